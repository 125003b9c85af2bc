//! From a request's JSON to an object of the kind that the URL names.
//!
//! Unknown and repeated fields are ignored, warned about or refused, as `fieldValidation` says.

use std::sync::Arc;

use coracle_api::{Kind, Object, Strategy, field::Path, kinds};
use serde::Deserialize;

use crate::{admission::Warnings, error::ApiError, options::FieldValidation};

/// What a body must be: the kind of the resource, or that of a subresource.
#[derive(Clone)]
pub struct Expected {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub strategy: Arc<dyn Strategy>,
}

impl Expected {
    /// The body of a subresource.
    pub fn body(group: &str, version: &str, kind: &str) -> Result<Self, ApiError> {
        let strategy = kinds::body(group, version, kind).ok_or_else(ApiError::unknown_resource)?;
        Ok(Expected {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            strategy,
        })
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

impl From<&Kind> for Expected {
    fn from(kind: &Kind) -> Self {
        Expected {
            group: kind.group.clone(),
            version: kind.version.clone(),
            kind: kind.kind.clone(),
            strategy: kind.strategy.clone(),
        }
    }
}

/// What says which kind an object is of.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// Reads an object of `kind` and fills in its defaults.
pub fn object(
    kind: &Expected,
    json: &[u8],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Box<dyn Object>, ApiError> {
    let mut problems = Vec::new();
    let (object, declared) = tolerant(kind, json, &mut problems)?;
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            let why = strict(&problems);
            return Err(cannot_be_handled(kind, &declared, json, &why));
        }
        FieldValidation::Strict | FieldValidation::Ignore => {}
        FieldValidation::Warn => problems
            .into_iter()
            .for_each(|problem| warnings.add(problem)),
    }
    Ok(object)
}

/// The same for an object that is the result of a patch, in which `problems` were found
/// already.
pub fn patched(
    kind: &Expected,
    json: &[u8],
    mut problems: Vec<String>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Box<dyn Object>, ApiError> {
    let invalid = |why: String| {
        let sent = String::from_utf8_lossy(json).into_owned();
        ApiError::invalid("", "", "", &vec![Path::new("patch").invalid(sent, why)])
    };
    let decoded = tolerant(kind, json, &mut problems);
    let (object, _) = decoded.map_err(|error| invalid(error.to_string()))?;
    match validation {
        FieldValidation::Strict if !problems.is_empty() => Err(invalid(strict(&problems))),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(object),
        FieldValidation::Warn => {
            problems
                .into_iter()
                .for_each(|problem| warnings.add(problem));
            Ok(object)
        }
    }
}

fn strict(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

/// The object with its defaults, and the kind that it says it is.
fn tolerant(
    kind: &Expected,
    json: &[u8],
    problems: &mut Vec<String>,
) -> Result<(Box<dyn Object>, String), ApiError> {
    let declared = check_type(kind, json)?;
    let mut object = kind
        .strategy
        .decode(json, problems)
        .map_err(|error| cannot_be_handled(kind, &declared, json, &error.message))?;
    kind.strategy.default_fields(&mut *object);
    Ok((object, declared))
}

/// Checks that the object is of the version and kind of the URL, and returns its kind; empty
/// when it does not say.
fn check_type(kind: &Expected, json: &[u8]) -> Result<String, ApiError> {
    let declared: TypeMeta = serde_json::from_slice(json).map_err(|error| {
        ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })?;
    let expected = kind.api_version();
    if let Some(version) = declared.api_version.filter(|version| !version.is_empty())
        && version != expected
    {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    let declared = declared.kind.unwrap_or_default();
    if !declared.is_empty() && declared != kind.kind {
        let why = format!(
            "converting ({declared}) to ({}): unknown conversion",
            kind.kind
        );
        return Err(cannot_be_handled(kind, &declared, json, &why));
    }
    Ok(declared)
}

fn cannot_be_handled(kind: &Expected, declared: &str, json: &[u8], why: &str) -> ApiError {
    let expected = &kind.kind;
    ApiError::bad_request(if declared.is_empty() {
        format!(
            "the object provided is unrecognized (must be of type {expected}): {why} ({})",
            summary(json)
        )
    } else {
        format!(
            "{declared} in version {:?} cannot be handled as a {expected}: {why}",
            kind.version
        )
    })
}

/// The beginning of what was sent, in hexadecimal.
fn summary(json: &[u8]) -> String {
    const MAX: usize = 30;
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in json.iter().take(MAX) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    if json.len() > MAX {
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str, validation: FieldValidation) -> (Result<(), String>, Vec<String>) {
        let kind = &Expected::body("", "v1", "ConfigMap").unwrap();
        let warnings = Warnings::default();
        let result = object(kind, json.as_bytes(), validation, &warnings)
            .map(|_| ())
            .map_err(|error| error.to_string());
        (result, warnings.take())
    }

    #[test]
    fn unknown_and_duplicate_fields() {
        let json = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","a":"2"},"foo":1,"metadata":{"ownerReferences":[{"bar":2}]}}"#;
        let problems = [
            r#"duplicate field "data.a""#,
            r#"unknown field "foo""#,
            r#"unknown field "metadata.ownerReferences[0].bar""#,
        ];
        assert_eq!(decode(json, FieldValidation::Ignore), (Ok(()), vec![]));
        let (result, warnings) = decode(json, FieldValidation::Warn);
        assert_eq!(
            (result, warnings),
            (Ok(()), problems.map(str::to_owned).to_vec())
        );
        assert_eq!(
            decode(json, FieldValidation::Strict).0.unwrap_err(),
            format!(
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {}",
                problems.join(", ")
            )
        );
    }

    #[test]
    fn version_and_kind_must_be_those_of_the_url() {
        let (result, _) = decode(
            r#"{"apiVersion":"apps/v1","kind":"ConfigMap"}"#,
            FieldValidation::Warn,
        );
        assert_eq!(
            result.unwrap_err(),
            "the API version in the data (apps/v1) does not match the expected API version (v1)"
        );
        let (result, _) = decode(r#"{"kind":"Secret"}"#, FieldValidation::Warn);
        assert!(
            result
                .unwrap_err()
                .starts_with("Secret in version \"v1\" cannot be handled as a ConfigMap")
        );
        assert_eq!(decode("{}", FieldValidation::Warn).0, Ok(()));
    }
}
