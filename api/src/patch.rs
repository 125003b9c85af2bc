//! The three patches that change an object: JSON patch, JSON merge patch and strategic merge
//! patch. (Server-side apply is the fourth; it stands in a module of its own.)
//!
//! Each takes the object as JSON in the version that the client named and gives the patched JSON,
//! which is then decoded as if the client had sent it.

use serde_json::Value;

mod json;
mod merge;
mod strategic;

pub use json::apply as apply_json;
pub use merge::apply as apply_merge;
pub use strategic::apply as apply_strategic;

/// Go's words for a patch that is JSON, but no object.
fn not_a_map(value: &Value) -> String {
    let of = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Object(_) => "object",
        Value::Null => "null",
    };
    format!("json: cannot unmarshal {of} into Go value of type map[string]interface {{}}")
}

/// Why a patch was not applied. The text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400: the patch is malformed.
    #[error("{0}")]
    Malformed(String),
    /// 422: the patch does not fit the object.
    #[error("{0}")]
    DoesNotApply(String),
    /// 413: the patch has too many operations.
    #[error("{0}")]
    TooLarge(String),
    /// 500: what upstream does not tell apart from its own failures.
    #[error("{0}")]
    Other(String),
}
