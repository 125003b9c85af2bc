//! How often upstream looks at the metadata of an object that is written, kind by kind.
//!
//! Enter at [`validate_created`] and [`validate_changed`]. Upstream checks metadata in general and
//! most kinds do it again on their own, so that what is wrong is told several times. The names
//! of finalizers are checked by most kinds, but not by the general checks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{validate, validate_update};
use crate::{
    Kind, Subresource, check,
    field::{ErrorList, Path},
    names::NameRule,
};

/// A check that a kind makes on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Of the metadata as such.
    Object,
    /// Of what has changed in it.
    Change,
}
use Check::{Change, Object};

/// The checks of a kind, in their order.
struct Checks {
    checks: &'static [Check],
    /// Whether each of them looks at the names of finalizers.
    finalizers: bool,
}

/// What is wrong with the metadata of a new object.
pub fn validate_created(kind: &Kind, meta: &ObjectMeta) -> ErrorList {
    let mut errors = validate(
        meta,
        kind.namespaced,
        kind.name_rule,
        &Path::new("metadata"),
    );
    if of_object(kind).finalizers {
        check::finalizers(meta, &mut errors);
    }
    errors
}

/// What is wrong with the metadata of a changed object, and with the change.
pub fn validate_changed(
    kind: &Kind,
    new: &ObjectMeta,
    old: &ObjectMeta,
    subresource: Option<Subresource>,
) -> ErrorList {
    let path = Path::new("metadata");
    let run = |check: Check, rule: NameRule| match check {
        Object => validate(new, kind.namespaced, rule, &path),
        Change => validate_update(new, old, &path),
    };
    let own = match subresource {
        None => of_object(kind),
        Some(subresource) => of_subresource(kind, subresource),
    };
    // What names of the kind look like is its own matter.
    let mut errors = run(Object, NameRule::PathSegment);
    errors.extend(run(Change, NameRule::PathSegment));
    for check in own.checks {
        errors.extend(run(*check, kind.name_rule));
        if own.finalizers {
            check::finalizers(new, &mut errors);
        }
    }
    errors
}

/// The checks of an object as a whole.
fn of_object(kind: &Kind) -> Checks {
    let (checks, finalizers): (&'static [Check], bool) = match kind.kind.as_str() {
        "Event" if kind.group.is_empty() => (&[], false),
        "PodDisruptionBudget" => (&[], false),
        "CustomResourceDefinition" | "Lease" => (&[Change], false),
        "APIService" => (&[Change, Object], false),
        "RuntimeClass" => (&[Object, Change], false),
        "MutatingAdmissionPolicy"
        | "MutatingAdmissionPolicyBinding"
        | "MutatingWebhookConfiguration"
        | "ValidatingAdmissionPolicy"
        | "ValidatingAdmissionPolicyBinding"
        | "ValidatingWebhookConfiguration" => (&[Object], false),
        "ConfigMap"
        | "ControllerRevision"
        | "Endpoints"
        | "Ingress"
        | "IngressClass"
        | "PersistentVolumeClaim"
        | "Pod"
        | "Secret"
        | "ServiceAccount"
        | "VolumeAttributesClass" => (&[Change, Object], true),
        "CSIStorageCapacity"
        | "CertificateSigningRequest"
        | "ClusterRole"
        | "ClusterRoleBinding"
        | "DeviceClass"
        | "IPAddress"
        | "Job"
        | "Namespace"
        | "Node"
        | "ResourceClaim"
        | "ResourceClaimTemplate"
        | "Role"
        | "RoleBinding"
        | "StorageClass" => (&[Object, Change], true),
        "PersistentVolume" => (&[Object, Object], true),
        "CSINode"
        | "EndpointSlice"
        | "FlowSchema"
        | "LimitRange"
        | "PriorityLevelConfiguration"
        | "VolumeAttachment" => (&[Object], true),
        _ => (&[Change], true),
    };
    Checks { checks, finalizers }
}

/// The checks of a part of an object that is written on its own.
fn of_subresource(kind: &Kind, subresource: Subresource) -> Checks {
    let (checks, finalizers): (&'static [Check], bool) = match (kind.kind.as_str(), subresource) {
        (
            "CronJob"
            | "FlowSchema"
            | "PodDisruptionBudget"
            | "PriorityLevelConfiguration"
            | "ValidatingAdmissionPolicy"
            | "VolumeAttachment",
            Subresource::Status,
        ) => (&[], false),
        ("APIService" | "CustomResourceDefinition", _) => (&[Change], false),
        ("CertificateSigningRequest", _) => (&[Object, Change], true),
        _ => (&[Change], true),
    };
    Checks { checks, finalizers }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    /// Which checks found something: `M` the general one, `U` that of changes, `F` that of
    /// finalizers.
    fn trace(group: &str, version: &str, name: &str, subresource: Option<Subresource>) -> String {
        let kind = kinds::find(group, version, name).unwrap();
        let namespace = kind.namespaced.then_some("n");
        let meta = |wrong: serde_json::Value| -> ObjectMeta {
            let mut meta = json!({"name": "a", "namespace": namespace, "resourceVersion": "1"});
            meta.as_object_mut()
                .unwrap()
                .extend(wrong.as_object().unwrap().clone());
            serde_json::from_value(meta).unwrap()
        };
        let new = meta(json!({"finalizers": ["a", "b c/d"], "deletionGracePeriodSeconds": 5}));
        let errors = validate_changed(kind, &new, &meta(json!({})), subresource);
        let mut trace = String::new();
        for error in &errors {
            trace.push(match error.field.as_str() {
                "metadata.finalizers" => 'M',
                "metadata.deletionGracePeriodSeconds" => 'U',
                "metadata.finalizers[0]" => 'F',
                other => panic!("{other}: {error:?}"),
            });
        }
        trace
    }

    #[test]
    fn kinds_repeat_the_checks_as_upstream() {
        let status = Some(Subresource::Status);
        for (group, version, kind, subresource, expected) in [
            ("", "v1", "Pod", None, "MUUFMF"),
            ("", "v1", "Pod", status, "MUUF"),
            ("", "v1", "Node", None, "MUMFUF"),
            ("", "v1", "PersistentVolume", None, "MUMFMF"),
            ("", "v1", "LimitRange", None, "MUMF"),
            ("", "v1", "Event", None, "MU"),
            ("events.k8s.io", "v1", "Event", None, "MUUF"),
            ("apps", "v1", "Deployment", None, "MUUF"),
            ("coordination.k8s.io", "v1", "Lease", None, "MUU"),
            ("node.k8s.io", "v1", "RuntimeClass", None, "MUMU"),
            ("policy", "v1", "PodDisruptionBudget", status, "MU"),
            (
                "certificates.k8s.io",
                "v1",
                "CertificateSigningRequest",
                Some(Subresource::Approval),
                "MUMFUF",
            ),
        ] {
            let traced = trace(group, version, kind, subresource);
            assert_eq!(traced, expected, "{kind} {subresource:?}");
        }
    }

    #[test]
    fn finalizers_without_a_domain_are_for_kinds_that_do_not_look() {
        let meta: ObjectMeta =
            serde_json::from_value(json!({"name": "a", "namespace": "n", "finalizers": ["a"]}))
                .unwrap();
        let lease = kinds::find("coordination.k8s.io", "v1", "Lease").unwrap();
        assert_eq!(validate_created(lease, &meta), vec![]);
        assert_eq!(
            validate_changed(lease, &with_version(&meta), &with_version(&meta), None),
            vec![]
        );
        let map = kinds::find("", "v1", "ConfigMap").unwrap();
        assert_eq!(validate_created(map, &meta).len(), 1);
        assert_eq!(
            validate_changed(map, &with_version(&meta), &with_version(&meta), None).len(),
            2
        );
    }

    fn with_version(meta: &ObjectMeta) -> ObjectMeta {
        ObjectMeta {
            resource_version: Some("1".to_owned()),
            ..meta.clone()
        }
    }
}
