//! Validation errors: what is wrong with which field.
//!
//! Types, texts and reasons follow upstream's `k8s.io/apimachinery/pkg/util/validation/field`.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// What kind of wrong, as upstream's `field.ErrorType`; the variant's name is the cause's reason
/// with `FieldValue` before it (`FieldValueRequired`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    NotFound,
    TypeInvalid,
    InternalError,
}

impl ErrorType {
    /// The reason of the cause in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooShort => "FieldValueTooShort",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::TooFew => "FieldValueTooFew",
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
            ErrorType::InternalError => "InternalError",
        }
    }

    /// How a message starts.
    pub fn text(self) -> &'static str {
        match self {
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooShort => "Too short",
            ErrorType::TooMany => "Too many",
            ErrorType::TooFew => "Too few",
            ErrorType::NotFound => "Not found",
            ErrorType::InternalError => "Internal error",
        }
    }
}

/// One error about one field. It displays as upstream's does: the field, the kind of error, the
/// value where that helps, and the detail.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub error_type: ErrorType,
    /// For example `spec.containers[0].name`.
    pub field: String,
    /// What was given, where that helps.
    pub bad_value: Option<BadValue>,
    pub detail: String,
}

impl FieldError {
    /// The message without the field: `Invalid value: "x": must be y`.
    pub fn body(&self) -> String {
        let mut body = self.error_type.text().to_owned();
        if let Some(value) = &self.bad_value {
            body.push_str(": ");
            value.print(&mut body);
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }

    /// The error with a different detail.
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        FieldError {
            detail: detail.into(),
            ..self
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// A value that an error shows.
#[derive(Clone, Debug, PartialEq)]
pub enum BadValue {
    Value(Value),
    /// What upstream shows as its internal type: all fields by their names in Go, in that order,
    /// and null for what is not given.
    Struct(Vec<(&'static str, BadValue)>),
    /// Several of those.
    List(Vec<BadValue>),
    /// The same by name.
    Map(BTreeMap<String, BadValue>),
}

impl<T: Into<Value>> From<T> for BadValue {
    fn from(value: T) -> Self {
        BadValue::Value(value.into())
    }
}

impl BadValue {
    /// Text in quotes, anything else as JSON, as Go writes it.
    fn print(&self, out: &mut String) {
        match self {
            BadValue::Value(Value::String(text)) => out.push_str(&quoted(text)),
            other => other.print_json(out),
        }
    }

    fn print_json(&self, out: &mut String) {
        self.print_nested(None, out);
    }

    /// As JSON with one space more for each level.
    pub(crate) fn print_indented(&self, out: &mut String) {
        self.print_nested(Some(0), out);
    }

    /// `depth`: on how many levels this is, when each member is to have its own line.
    fn print_nested(&self, depth: Option<usize>, out: &mut String) {
        match self {
            BadValue::Value(value) => print_json(value, out),
            BadValue::Struct(fields) => {
                let members = fields.iter().map(|(name, value)| (Some(*name), value));
                print_members('{', members, '}', depth, out);
            }
            BadValue::Map(entries) => {
                let members = entries
                    .iter()
                    .map(|(name, value)| (Some(name.as_str()), value));
                print_members('{', members, '}', depth, out);
            }
            BadValue::List(items) => {
                let members = items.iter().map(|value| (None, value));
                print_members('[', members, ']', depth, out);
            }
        }
    }
}

fn print_members<'v>(
    open: char,
    members: impl Iterator<Item = (Option<&'v str>, &'v BadValue)>,
    close: char,
    depth: Option<usize>,
    out: &mut String,
) {
    let new_line = |levels: usize, out: &mut String| {
        if let Some(depth) = depth {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', depth + levels));
        }
    };
    out.push(open);
    let mut is_empty = true;
    for (name, value) in members {
        if !is_empty {
            out.push(',');
        }
        is_empty = false;
        new_line(1, out);
        if let Some(name) = name {
            print_json(&Value::from(name), out);
            out.push_str(if depth.is_some() { ": " } else { ":" });
        }
        value.print_nested(depth.map(|depth| depth + 1), out);
    }
    if !is_empty {
        new_line(0, out);
    }
    out.push(close);
}

fn print_json(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            out.push('{');
            // The one type of ours whose fields upstream does not declare in alphabetical order.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name == "matchExpressions");
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print_json(&Value::from(name.as_str()), out);
                out.push(':');
                print_json(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                out.push(if index == 0 { '[' } else { ',' });
                print_json(item, out);
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        scalar => {
            let text = scalar.to_string();
            let text = text.replace('<', "\\u003c").replace('>', "\\u003e");
            out.push_str(&text.replace('&', "\\u0026"));
        }
    }
}

/// As Go's `strconv.Quote`, which escapes other control characters than Rust.
fn quoted(text: &str) -> String {
    use std::fmt::Write as _;
    let mut quoted = String::from("\"");
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            '\x07' => write!(quoted, "\\a"),
            '\x08' => write!(quoted, "\\b"),
            '\x0b' => write!(quoted, "\\v"),
            '\x0c' => write!(quoted, "\\f"),
            '\'' => write!(quoted, "'"),
            '\n' | '\r' | '\t' => write!(quoted, "{}", c.escape_debug()),
            c if c < ' ' || c == '\x7f' => write!(quoted, "\\x{:02x}", u32::from(c)),
            c => write!(quoted, "{}", c.escape_debug()),
        };
    }
    quoted.push('"');
    quoted
}

/// Any value as the bad value of an error.
pub fn value_of<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// All errors of an object; empty when it is valid.
pub type ErrorList = Vec<FieldError>;

/// A path to a field, built from the root down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn new(name: &str) -> Self {
        Path(name.to_owned())
    }

    /// `path.name`; the name may itself be a path, `emptyDir.sizeLimit`.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Path::new(name)
        } else {
            Path(format!("{}.{name}", self.0))
        }
    }

    /// `path[index]`
    pub fn index(&self, index: usize) -> Self {
        Path(format!("{}[{index}]", self.0))
    }

    /// `path[key]`
    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }

    pub fn required(&self, detail: impl Into<String>) -> FieldError {
        self.error(ErrorType::Required, None, detail)
    }

    pub fn invalid(&self, value: impl Into<BadValue>, detail: impl Into<String>) -> FieldError {
        self.error(ErrorType::Invalid, Some(value.into()), detail)
    }

    /// Of something too large to be printed.
    pub fn invalid_without_value(&self, detail: impl Into<String>) -> FieldError {
        self.error(ErrorType::Invalid, None, detail)
    }

    pub fn duplicate(&self, value: impl Into<BadValue>) -> FieldError {
        self.error(ErrorType::Duplicate, Some(value.into()), "")
    }

    pub fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        self.error(ErrorType::Forbidden, None, detail)
    }

    pub fn not_found(&self, value: impl Into<BadValue>) -> FieldError {
        self.error(ErrorType::NotFound, Some(value.into()), "")
    }

    /// `supported` in the order in which it is to be printed.
    pub fn not_supported(&self, value: impl Into<BadValue>, supported: &[&str]) -> FieldError {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        self.error(
            ErrorType::NotSupported,
            Some(value.into()),
            format!("supported values: {}", supported.join(", ")),
        )
    }

    pub fn too_long(&self, max_bytes: usize) -> FieldError {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        self.error(
            ErrorType::TooLong,
            None,
            format!("may not be more than {max_bytes} {unit}"),
        )
    }

    pub fn too_many(&self, actual: usize, max: usize) -> FieldError {
        let unit = if max == 1 { "item" } else { "items" };
        self.error(
            ErrorType::TooMany,
            Some(actual.into()),
            format!("must have at most {max} {unit}"),
        )
    }

    pub fn internal(&self, detail: impl Into<String>) -> FieldError {
        self.error(ErrorType::InternalError, None, detail)
    }

    pub fn error(
        &self,
        error_type: ErrorType,
        bad_value: Option<BadValue>,
        detail: impl Into<String>,
    ) -> FieldError {
        FieldError {
            error_type,
            field: self.0.clone(),
            bad_value,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_read_as_upstreams() {
        let path = Path::new("spec").child("ports").index(0);
        let cases = [
            (path.required(""), "spec.ports[0]: Required value"),
            (
                path.invalid(0, "must be between 1 and 65535, inclusive"),
                "spec.ports[0]: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                path.key("a/b").invalid("x\"y", "no"),
                r#"spec.ports[0][a/b]: Invalid value: "x\"y": no"#,
            ),
            (
                path.invalid(json!({"a": "<"}), ""),
                r#"spec.ports[0]: Invalid value: {"a":"\u003c"}"#,
            ),
            (
                path.not_supported("X", &["A", "B"]),
                r#"spec.ports[0]: Unsupported value: "X": supported values: "A", "B""#,
            ),
            (
                path.too_long(1),
                "spec.ports[0]: Too long: may not be more than 1 byte",
            ),
            (
                path.too_many(3, 2),
                "spec.ports[0]: Too many: 3: must have at most 2 items",
            ),
            (
                path.duplicate("a"),
                r#"spec.ports[0]: Duplicate value: "a""#,
            ),
            (path.forbidden("no"), "spec.ports[0]: Forbidden: no"),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
