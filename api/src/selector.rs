//! Label and field selectors: parsing, matching and printing.

mod field;
mod label;

use crate::kinds::Kind;
pub use field::{FieldSelector, FieldTerm};

pub use label::{LabelSelector, Operator, Requirement, format_object};

/// Why a text or an object is no selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// What upstream says about a field selector that names a field the kind does not have.
/// `own_fields` are those beside `metadata.name` and `metadata.namespace`.
pub fn unsupported_field(kind: &Kind, field: &str, own_fields: bool) -> SelectorError {
    SelectorError(match (kind.group.as_str(), kind.kind.as_str()) {
        ("batch", "Job") => format!("field label {field:?} not supported for Job"),
        ("resource.k8s.io", "ResourceSlice") => format!(
            "field label not supported for {}/{}, Kind={}: {field}",
            kind.group, kind.version, kind.kind
        ),
        ("apps", "ReplicaSet") => unknown_field(field),
        _ if own_fields => format!("field label not supported: {field}"),
        _ => unknown_field(field),
    })
}

fn unknown_field(field: &str) -> String {
    format!(
        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    )
}
