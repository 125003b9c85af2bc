//! What a write through each endpoint can change: all but what the kind's strategy sets back.
//!
//! Upstream: `GetResetFields` and `GetResetFieldsFilter` of the strategies in `pkg/registry`.

use coracle_api::{Kind, apply::Filter};

/// Kinds of which a write of the status takes no metadata.
const STATUS_WITHOUT_META: [&str; 8] = [
    "apiservices",
    "customresourcedefinitions",
    "flowschemas",
    "prioritylevelconfigurations",
    "resourceclaims",
    "servicecidrs",
    "validatingadmissionpolicies",
    "volumeattachments",
];

/// What a write through a subresource, or the object itself when it is empty, can change.
pub fn of(kind: &Kind, subresource: &str) -> Filter {
    let resource = kind.resource.as_str();
    match (resource, subresource) {
        ("pods", "ephemeralcontainers") => Filter::Below(&[&["spec", "ephemeralContainers"]]),
        ("pods", "resize") => Filter::Below(&[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
        ]),
        ("pods", "status") => Filter::except(&[
            "spec",
            "metadata.deletionTimestamp",
            "metadata.ownerReferences",
        ]),
        ("deployments", "status") => Filter::except(&["spec", "metadata.labels"]),
        ("certificatesigningrequests", "") => Filter::except(&["spec", "status"]),
        ("certificatesigningrequests", "status") => Filter::except(&["spec", "status.conditions"]),
        ("certificatesigningrequests", "approval") => {
            Filter::except(&["spec", "status.certificate"])
        }
        (_, "status") if STATUS_WITHOUT_META.contains(&resource) => {
            Filter::except(&["spec", "metadata"])
        }
        (_, "status") => Filter::except(&["spec"]),
        (_, "" | "finalize") if kind.subresource("status").is_some() => Filter::except(&["status"]),
        _ => Filter::All,
    }
}
