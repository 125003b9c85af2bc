//! Namespace.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    zero::{list, text},
};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

impl Behaviour for Namespace {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        label_with_name(self);
        let status = self.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Active".to_owned());
        }
    }

    /// The finalizer is the controller's, which empties the namespace first.
    fn prepare_for_create(&mut self) {
        label_with_name(self);
        self.status = Some(NamespaceStatus {
            phase: Some("Active".to_owned()),
            conditions: None,
        });
        let spec = self.spec.get_or_insert_default();
        let finalizers = spec.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn prepare_for_update(&mut self, old: &Self) {
        label_with_name(self);
        self.spec.clone_from(&old.spec);
    }

    fn prepare_for_subresource(&mut self, old: &Self, subresource: Subresource) {
        if subresource == Subresource::Finalize {
            self.status.clone_from(&old.status);
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec.finalizers");
        for finalizer in finalizers(self) {
            check::finalizer(finalizer, &path, &mut errors);
        }
        errors
    }

    fn validate_subresource(&self, _old: &Self, subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        match subresource {
            Subresource::Status => validate_phase(self, &mut errors),
            Subresource::Finalize => {
                for (index, finalizer) in finalizers(self).iter().enumerate() {
                    let path = Path::new("spec.finalizers").index(index);
                    check::finalizer(finalizer, &path, &mut errors);
                }
            }
            _ => {}
        }
        errors
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &["status.phase"];

    fn selectable_fields(&self) -> Vec<String> {
        vec![phase(self).to_owned()]
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    let spec = namespace.spec.as_ref();
    spec.map_or(&[], |spec| list(&spec.finalizers))
}

fn phase(namespace: &Namespace) -> &str {
    namespace
        .status
        .as_ref()
        .map_or("", |status| text(&status.phase))
}

/// Selectors of namespaces can so name one.
fn label_with_name(namespace: &mut Namespace) {
    if let Some(name) = namespace
        .metadata
        .name
        .clone()
        .filter(|name| !name.is_empty())
    {
        let labels = namespace.metadata.labels.get_or_insert_default();
        labels.insert(NAME_LABEL.to_owned(), name);
    }
}

fn validate_phase(namespace: &Namespace, errors: &mut ErrorList) {
    let (expected, when) = match namespace.metadata.deletion_timestamp {
        None => ("Active", "empty"),
        Some(_) => ("Terminating", "not empty"),
    };
    let phase = phase(namespace);
    if phase != expected {
        errors.push(Path::new("status.Phase").invalid(
            phase,
            format!("may only be '{expected}' if `deletionTimestamp` is {when}"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        crate::testing::run::<Namespace>(include_str!("../../testdata/namespace.yaml"));
    }
}
