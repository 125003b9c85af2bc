//! From a request's JSON to an object of the kind that the URL names.
//!
//! Unknown and repeated fields are ignored, warned about or refused, as `fieldValidation` says.

mod go;
pub mod type_meta;

use std::{any::Any, borrow::Cow, sync::Arc};

use axum::body::Body;
use coracle_api::{
    Kind, Object, Strategy, field::Path, kinds, object::Typed, strategy::DecodeError,
};

use serde_json::{Map, Value};

use crate::{
    admission::Warnings,
    body::{self, Sent},
    error::ApiError,
    options::{FieldValidation, WriteOptions},
    query::Query,
    server::Context,
    yaml::{self, Document},
};

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

    /// Whether bodies of this version are read. Evictions come in that of former releases, too,
    /// which has the same fields.
    fn takes(&self, group: &str, version: &str) -> bool {
        let is_former = self.has_former() && version == "v1beta1";
        group == self.group && (version == self.version || is_former)
    }

    fn has_former(&self) -> bool {
        (self.group.as_str(), self.kind.as_str()) == ("policy", "Eviction")
    }

    /// Where upstream has the types of the server that serves this kind.
    fn scheme(&self) -> &'static str {
        match self.group.as_str() {
            "apiextensions.k8s.io" => {
                "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55"
            }
            "apiregistration.k8s.io" => "k8s.io/kube-aggregator/pkg/apiserver/scheme/scheme.go:28",
            _ => "pkg/api/legacyscheme/scheme.go:30",
        }
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

/// Reads an object of `kind` and fills in its defaults.
pub fn object(
    kind: &Expected,
    sent: &Sent,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Box<dyn Object>, ApiError> {
    let mut problems = Vec::new();
    let (json, document) = if sent.is_yaml {
        let document =
            yaml::read(&sent.bytes).map_err(|why| unrecognized(kind, &sent.bytes, &why))?;
        (document.value.to_string().into(), document)
    } else {
        (sent.bytes.clone(), Document::default())
    };
    let (object, declared) = tolerant(kind, &json, &sent.bytes, &mut problems)?;
    match validation {
        FieldValidation::Strict => {
            problems.splice(0..0, document.strict_error());
            if !problems.is_empty() {
                let why = strict(&problems);
                return Err(cannot_be_handled(kind, &declared, &kind.version, &why));
            }
        }
        FieldValidation::Ignore => {}
        FieldValidation::Warn => document
            .repeated
            .into_iter()
            .chain(problems)
            .for_each(|problem| warnings.add(problem)),
    }
    Ok(object)
}

/// Reads the body of a request for a review, which is answered and not stored.
pub async fn review<T: Typed>(context: &Context, body: Body) -> Result<T, ApiError> {
    let options = WriteOptions::parse(&Query::parse(context.query()), "CreateOptions", None)?;
    let kind = Expected::body(T::GROUP, T::VERSION, T::KIND)?;
    let sent = body::read_sent(context.headers(), body).await?;
    let object = object(&kind, &sent, options.field_validation, &context.warnings)?;
    context.audit_request(|| object.to_value());
    let object: Box<dyn Any> = object;
    let object = object
        .downcast()
        .map_err(|_| ApiError::internal("a review is decoded as its type"))?;
    Ok(*object)
}

/// The same for an object that is the result of a patch, in which `problems` were found
/// already. `strategic`: the patch as it was sent, when it
/// was a strategic merge patch.
pub fn patched(
    kind: &Expected,
    json: &[u8],
    strategic: Option<&[u8]>,
    mut problems: Vec<String>,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Box<dyn Object>, ApiError> {
    let invalid = |why: String| {
        let sent = match strategic {
            Some(patch) => go::printed(&serde_json::from_slice(patch).unwrap_or_default()),
            None => String::from_utf8_lossy(json).into_owned(),
        };
        ApiError::invalid("", "", "", &vec![Path::new("patch").invalid(sent, why)])
    };
    // Without a version upstream reads an object of its own types, which have no field that JSON
    // names: nothing is left of it, not even the name.
    let unversioned = strategic.is_none() && without_version(kind, json, &mut problems);
    let json = if unversioned { b"{}" } else { json };
    let decoded = tolerant(kind, json, json, &mut problems);
    let (object, _) = decoded.map_err(|refused| {
        invalid(match refused.why {
            Why::Mismatch(why) if strategic.is_some() => for_maps(&why),
            Why::Mismatch(why) => why.to_string(),
            Why::Other(why) => why,
        })
    })?;
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

/// Whether a built-in object says no version. Then all else that it says is unknown.
fn without_version(kind: &Expected, json: &[u8], problems: &mut Vec<String>) -> bool {
    let versioned =
        !matches!(type_meta::read(json), Ok(declared) if declared.api_version.is_empty());
    if versioned || kinds::body(&kind.group, &kind.version, &kind.kind).is_none() {
        return false;
    }
    let members: Map<String, Value> = serde_json::from_slice(json).unwrap_or_default();
    let unknown = members
        .keys()
        .filter(|name| !matches!(name.as_str(), "apiVersion" | "kind"));
    problems.extend(unknown.map(|name| format!("unknown field {name:?}")));
    true
}

/// Why a map in memory is not of its type: upstream says that otherwise than of JSON.
pub fn for_maps(why: &DecodeError) -> String {
    match why {
        DecodeError::Mismatch(mismatch) => go::for_maps(mismatch),
        DecodeError::Other(why) if why.starts_with("illegal base64") => {
            format!("error decoding from json: {why}")
        }
        DecodeError::Other(why) => why.clone(),
    }
}

fn strict(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

/// Why a body is refused.
struct Refused {
    /// As it is told of a body.
    error: ApiError,
    /// As it is told of what a patch has made.
    why: Why,
}

enum Why {
    /// It is of the right kind, but something in it does not fit.
    Mismatch(DecodeError),
    Other(String),
}

impl Refused {
    fn cannot_be_handled(kind: &Expected, declared: &str, version: &str, why: String) -> Self {
        Refused {
            error: cannot_be_handled(kind, declared, version, &why),
            why: Why::Other(why),
        }
    }

    fn unrecognized(kind: &Expected, sent: &[u8], why: String) -> Self {
        Refused {
            error: unrecognized(kind, sent, &why),
            why: Why::Other(why),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

/// The object with its defaults, and the kind that it says it is. `sent`: what `json` was made
/// from.
fn tolerant(
    kind: &Expected,
    json: &[u8],
    sent: &[u8],
    problems: &mut Vec<String>,
) -> Result<(Box<dyn Object>, String), Refused> {
    let declared = check_type(kind, json, sent)?;
    let json = &in_version(kind, json);
    let mut object = kind
        .strategy
        .decode(json, problems)
        .map_err(|error| Refused {
            error: cannot_be_handled(kind, &declared, &kind.version, &error.to_string()),
            why: Why::Mismatch(error),
        })?;
    kind.strategy.default_fields(&mut *object);
    Ok((object, declared))
}

/// The object as one of the version that is served, when it is of a former one.
fn in_version<'j>(kind: &Expected, json: &'j [u8]) -> Cow<'j, [u8]> {
    if !kind.has_former() {
        return json.into();
    }
    let mut object: Map<String, Value> = match serde_json::from_slice(json) {
        Ok(object) => object,
        Err(_) => return json.into(),
    };
    object.insert("apiVersion".to_owned(), kind.api_version().into());
    Value::Object(object).to_string().into_bytes().into()
}

/// Checks that the object is of the version and kind of the URL, and returns the kind that it
/// says it is, or that of the URL.
fn check_type(kind: &Expected, json: &[u8], sent: &[u8]) -> Result<String, Refused> {
    let declared = type_meta::read(json).map_err(|error| {
        let why = format!("couldn't get version/kind; json parse error: {error}");
        Refused::unrecognized(kind, sent, why)
    })?;
    let (group, version) = match declared.api_version.split_once('/') {
        Some((_, version)) if version.contains('/') => {
            let why = format!("unexpected GroupVersion string: {}", declared.api_version);
            return Err(Refused::unrecognized(kind, sent, why));
        }
        Some(parts) => parts,
        None if declared.api_version.is_empty() => (kind.group.as_str(), kind.version.as_str()),
        None => ("", declared.api_version.as_str()),
    };
    let declared_kind = match declared.kind.as_str() {
        "" => kind.kind.as_str(),
        declared => declared,
    };
    let item = declared_kind.strip_suffix("List").unwrap_or(declared_kind);
    let taken = kind.takes(group, version);
    let is_own = taken && declared_kind == kind.kind;
    if !is_own
        && kinds::body(group, version, declared_kind).is_none()
        && kinds::body(group, version, item).is_none()
    {
        let named = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        let why = format!(
            "no kind {declared_kind:?} is registered for version {named:?} in scheme {:?}",
            kind.scheme()
        );
        return Err(Refused::cannot_be_handled(
            kind,
            declared_kind,
            version,
            why,
        ));
    }
    if declared_kind != kind.kind {
        let package = match kind.group.split('.').next() {
            None | Some("") => "core",
            Some(package) => package,
        };
        let why = format!(
            "converting ({version}.{declared_kind}) to ({package}.{}): unknown conversion",
            kind.kind
        );
        return Err(Refused::cannot_be_handled(
            kind,
            declared_kind,
            version,
            why,
        ));
    }
    if !taken {
        let why = format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            declared.api_version,
            kind.api_version()
        );
        return Err(Refused {
            error: ApiError::bad_request(&why),
            why: Why::Other(why),
        });
    }
    Ok(declared_kind.to_owned())
}

fn cannot_be_handled(kind: &Expected, declared: &str, version: &str, why: &str) -> ApiError {
    let expected = &kind.kind;
    ApiError::bad_request(format!(
        "{declared} in version {version:?} cannot be handled as a {expected}: {why}"
    ))
}

/// Of what does not even say of which kind it is.
fn unrecognized(kind: &Expected, sent: &[u8], why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        kind.kind,
        summary(sent)
    ))
}

/// The beginning of what was sent; in hexadecimal when it does not look like JSON.
fn summary(sent: &[u8]) -> String {
    const MAX: usize = 30;
    use std::fmt::Write as _;
    let start = &sent[..sent.len().min(MAX)];
    let mut text = String::new();
    match start.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => text.push_str(&String::from_utf8_lossy(start)),
        Some(_) => {
            for byte in start {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
    if sent.len() > MAX {
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
        let sent = Sent {
            bytes: json.as_bytes().to_vec().into(),
            is_yaml: false,
        };
        let result = object(kind, &sent, validation, &warnings)
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
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is \
             registered for version \"apps/v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        let (result, _) = decode(r#"{"kind":"Secret"}"#, FieldValidation::Warn);
        assert!(
            result
                .unwrap_err()
                .starts_with("Secret in version \"v1\" cannot be handled as a ConfigMap")
        );
        assert_eq!(decode("{}", FieldValidation::Warn).0, Ok(()));
        let (result, _) = decode(
            r#"{"apiVersion":"apps/v1","kind":"Deployment"}"#,
            FieldValidation::Warn,
        );
        assert_eq!(
            result.unwrap_err(),
            "Deployment in version \"v1\" cannot be handled as a ConfigMap: converting \
             (v1.Deployment) to (core.ConfigMap): unknown conversion"
        );
    }

    /// What is wrong with a patched object is told without the frame that a body gets.
    #[test]
    fn patched_objects_have_their_own_words() {
        let kind = Expected::from(&**kinds::find("", "v1", "ConfigMap").unwrap());
        let patched = |json: &str, validation| {
            let warnings = Warnings::default();
            let result = patched(&kind, json.as_bytes(), None, vec![], validation, &warnings);
            (result.map(|object| object.to_value()), warnings.take())
        };
        for (json, why) in [
            (
                r#"{"apiVersion":"v1","kind":"Foo"}"#,
                "no kind \"Foo\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            ),
            (
                r#"{"apiVersion":"apps/v1","kind":"Deployment"}"#,
                "converting (v1.Deployment) to (core.ConfigMap): unknown conversion",
            ),
            (
                r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":5}}"#,
                "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
            ),
            (
                r#"{"apiVersion":"a/b/c"}"#,
                "unexpected GroupVersion string: a/b/c",
            ),
        ] {
            let (result, _) = patched(json, FieldValidation::Warn);
            let error = result.unwrap_err().to_string();
            assert!(error.ends_with(&format!("\": {why}")), "{error}");
        }
        let unversioned = r#"{"kind":"ConfigMap","metadata":{"name":"a"},"data":{}}"#;
        let (result, warnings) = patched(unversioned, FieldValidation::Warn);
        assert_eq!(result.unwrap()["metadata"], serde_json::json!({}));
        assert_eq!(
            warnings,
            ["unknown field \"data\"", "unknown field \"metadata\""]
        );
    }
}
