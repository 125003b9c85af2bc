//! Label and field selectors: parsing, matching and printing.

mod field;
mod label;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Operator, Requirement, format_object};

/// Why a text or an object is no selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// What upstream says about a field selector that names a field the kind does not have.
/// `own_fields` are those beside `metadata.name` and `metadata.namespace`.
pub fn unsupported_field(field: &str, own_fields: bool) -> SelectorError {
    SelectorError(if own_fields {
        format!("field label not supported: {field}")
    } else {
        format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \
             \"metadata.namespace\""
        )
    })
}
