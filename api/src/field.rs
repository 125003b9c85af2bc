//! Validation errors: what is wrong with which field.
//!
//! Types, texts and reasons follow upstream's `k8s.io/apimachinery/pkg/util/validation/field`.

use std::fmt;

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
    TooMany,
    NotFound,
    TypeInvalid,
    InternalError,
}

/// One error about one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub error_type: ErrorType,
    /// For example `spec.containers[0].name`.
    pub field: String,
    /// What was given. `Null` where upstream prints no value.
    pub bad_value: Value,
    pub detail: String,
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

    /// `path.name`
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
        self.error(ErrorType::Required, Value::Null, detail)
    }

    pub fn invalid(&self, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
        self.error(ErrorType::Invalid, value.into(), detail)
    }

    pub fn duplicate(&self, value: impl Into<Value>) -> FieldError {
        self.error(ErrorType::Duplicate, value.into(), "")
    }

    pub fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        self.error(ErrorType::Forbidden, Value::Null, detail)
    }

    pub fn not_found(&self, value: impl Into<Value>) -> FieldError {
        self.error(ErrorType::NotFound, value.into(), "")
    }

    /// `supported` in the order in which it is to be printed.
    pub fn not_supported(&self, value: impl Into<Value>, supported: &[&str]) -> FieldError {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        self.error(
            ErrorType::NotSupported,
            value.into(),
            format!("supported values: {}", supported.join(", ")),
        )
    }

    pub fn too_long(&self, max_bytes: usize) -> FieldError {
        self.error(
            ErrorType::TooLong,
            Value::Null,
            format!("may not be more than {max_bytes} bytes"),
        )
    }

    pub fn error(
        &self,
        error_type: ErrorType,
        bad_value: Value,
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

impl ErrorType {
    /// As upstream's messages begin.
    pub fn text(self) -> &'static str {
        match self {
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::NotFound => "Not found",
            ErrorType::InternalError => "Internal error",
        }
    }
}

impl FieldError {
    /// The error without its field: `Invalid value: "x": must be no more than 63 characters`.
    pub fn body(&self) -> String {
        let kind = self.error_type.text();
        let mut body = match (self.error_type, &self.bad_value) {
            (
                ErrorType::Required
                | ErrorType::Forbidden
                | ErrorType::TooLong
                | ErrorType::InternalError,
                _,
            ) => kind.to_owned(),
            (_, value) => format!("{kind}: {value}"),
        };
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}
