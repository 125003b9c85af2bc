//! IPAddress.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    internal, names,
    strategy::{Behaviour, Column},
    table::{NAME, column, name},
    zero::text,
};

impl Behaviour for IPAddress {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let (parent, path) = (&self.spec.parent_ref, Path::new("spec.parentRef"));
        if *parent == ParentReference::default() {
            errors.push(path.required(""));
            return errors;
        }
        let group = text(&parent.group);
        if !group.is_empty() {
            check::subdomain(group, &path.child("group"), &mut errors);
        }
        check::required_path_segment(&parent.resource, &path.child("resource"), &mut errors);
        check::required_path_segment(&parent.name, &path.child("name"), &mut errors);
        let namespace = text(&parent.namespace);
        let messages = names::path_segment_name(namespace);
        check::each(&path.child("namespace"), namespace, messages, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        // Upstream has a pointer there.
        let parent =
            |of: &Self| Some(of.spec.parent_ref.clone()).filter(|of| *of != <_>::default());
        let (new, old) = (&parent(self), &parent(old));
        let path = Path::new("spec.parentRef");
        internal::immutable("ParentReference", new, old, &path, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "ParentRef",
                "string",
                "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent object.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let parent = &self.spec.parent_ref;
        let resource = match text(&parent.group) {
            "" => parent.resource.to_lowercase(),
            group => format!("{}.{group}", parent.resource).to_lowercase(),
        };
        let namespace = match text(&parent.namespace) {
            "" => String::new(),
            namespace => format!("/{namespace}"),
        };
        let parent = format!("{resource}{namespace}/{}", parent.name);
        vec![name(&self.metadata), Value::from(parent)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<IPAddress>(include_str!("../../testdata/ip_address.yaml"));
    }
}
