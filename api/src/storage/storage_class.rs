//! StorageClass.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::TopologySelectorTerm, storage::v1::StorageClass};
use serde_json::Value;

use super::{parameters, provisioner};
use crate::{
    check,
    core::pod::warnings::deprecated_node_label,
    field::{ErrorList, Path},
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column},
    zero::{list, text},
};

impl Behaviour for StorageClass {
    fn default_fields(&mut self) {
        self.reclaim_policy
            .get_or_insert_with(|| "Delete".to_owned());
        self.volume_binding_mode
            .get_or_insert_with(|| "Immediate".to_owned());
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        provisioner(&self.provisioner, &Path::new("provisioner"), &mut errors);
        let path = Path::new("parameters");
        parameters(self.parameters.as_ref(), true, &path, &mut errors);
        let policy = text(&self.reclaim_policy);
        if !policy.is_empty() {
            const POLICIES: &[&str] = &["Delete", "Retain"];
            check::one_of(policy, POLICIES, &Path::new("reclaimPolicy"), &mut errors);
        }
        const MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];
        let mode = text(&self.volume_binding_mode);
        check::one_of(mode, MODES, &Path::new("volumeBindingMode"), &mut errors);
        let terms = list(&self.allowed_topologies);
        for (index, term) in terms.iter().enumerate() {
            let path = Path::new("allowedTopologies").index(index);
            check::topology_selector_term(term, &path, &mut errors);
            let selects_nothing = list(&term.match_label_expressions).is_empty();
            if selects_nothing || terms[..index].iter().any(|other| is_same(term, other)) {
                errors.push(path.child("matchLabelExpressions").duplicate(""));
            }
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut immutable = |name: &str, new: &Option<String>, old: &Option<String>| {
            check::immutable(new, old, &Path::new(name), &mut errors);
        };
        let provisioner = |class: &Self| Some(class.provisioner.clone());
        immutable("provisioner", &provisioner(self), &provisioner(old));
        immutable("reclaimPolicy", &self.reclaim_policy, &old.reclaim_policy);
        let (new_mode, old_mode) = (&self.volume_binding_mode, &old.volume_binding_mode);
        immutable("volumeBindingMode", new_mode, old_mode);
        let mut first = self.validate();
        let path = Path::new("parameters");
        check::immutable(&self.parameters, &old.parameters, &path, &mut first);
        first.extend(errors);
        first
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let terms = list(&self.allowed_topologies).iter().enumerate();
        terms
            .flat_map(|(index, term)| {
                let path = Path::new("allowedTopologies").index(index);
                let keys = list(&term.match_label_expressions).iter().enumerate();
                keys.filter_map(move |(index, requirement)| {
                    let path = path
                        .child("matchLabelExpressions")
                        .index(index)
                        .child("key");
                    let instead = deprecated_node_label(&requirement.key)?;
                    Some(format!("{path}: {instead}"))
                })
                .collect::<Vec<_>>()
            })
            .collect()
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Provisioner",
                "string",
                "provisioner indicates the type of the provisioner.",
            ),
            column(
                "ReclaimPolicy",
                "string",
                "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
            ),
            column(
                "VolumeBindingMode",
                "string",
                "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
            ),
            column(
                "AllowVolumeExpansion",
                "string",
                "allowVolumeExpansion shows whether the storage class allow volume expand.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let annotations = self.metadata.annotations.as_ref();
        let is_default = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ]
        .into_iter()
        .filter_map(|name| annotations?.get(name))
        .any(|value| value == "true");
        let suffix = if is_default { " (default)" } else { "" };
        vec![
            Value::from(format!("{}{suffix}", text(&self.metadata.name))),
            Value::from(self.provisioner.clone()),
            Value::from(self.reclaim_policy.as_deref().unwrap_or("Delete")),
            Value::from(self.volume_binding_mode.as_deref().unwrap_or("Immediate")),
            Value::from(self.allow_volume_expansion.unwrap_or_default()),
            age(&self.metadata, now),
        ]
    }
}

/// Whether two terms select the same.
fn is_same(one: &TopologySelectorTerm, other: &TopologySelectorTerm) -> bool {
    let sets = |term: &TopologySelectorTerm| -> BTreeMap<String, BTreeSet<String>> {
        let requirements = list(&term.match_label_expressions).iter();
        requirements
            .map(|one| (one.key.clone(), one.values.iter().cloned().collect()))
            .collect()
    };
    sets(one) == sets(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<StorageClass>(include_str!("../../testdata/storage_class.yaml"));
    }
}
