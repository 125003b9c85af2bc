//! Errors of the API: the one place where what went wrong becomes a `Status`.
//!
//! Codes, reasons, details and messages are upstream's (`k8s.io/apimachinery/pkg/api/errors`),
//! because clients and tests read them. Enter at the constructors of [`ApiError`].

use std::collections::HashSet;

use coracle_api::{
    Kind,
    field::{ErrorList, FieldError},
    patch::PatchError,
};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ListMeta, Status, StatusCause, StatusDetails,
};

/// What upstream says when the resourceVersion of an update is not the object's.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A failed request, as the `Status` that the client gets.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", .0.message.as_deref().unwrap_or_default())]
pub struct ApiError(pub Box<Status>);

/// Which resource an error is about, as upstream's `schema.GroupResource`.
#[derive(Clone, Copy, Debug)]
pub struct GroupResource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl std::fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

impl<'a> From<&'a Kind> for GroupResource<'a> {
    fn from(kind: &'a Kind) -> Self {
        GroupResource {
            group: &kind.group,
            resource: &kind.resource,
        }
    }
}

impl ApiError {
    /// A failure with this code, reason and message, and no details.
    pub fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        ApiError(Box::new(Status {
            code: Some(i32::from(code.as_u16())),
            details: None,
            message: Some(message.into()),
            metadata: ListMeta::default(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            status: Some("Failure".to_owned()),
        }))
    }

    fn about(
        code: StatusCode,
        reason: &str,
        message: String,
        subject: GroupResource<'_>,
        name: &str,
    ) -> Self {
        let mut error = ApiError::new(code, reason, message);
        error.0.details = Some(StatusDetails {
            group: non_empty(subject.group),
            kind: non_empty(subject.resource),
            name: non_empty(name),
            ..StatusDetails::default()
        });
        error
    }

    fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.0.details.get_or_insert_default().causes = Some(causes);
        self
    }

    /// The same error with a hint when to try again.
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.0.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// The same error without such a hint.
    pub fn without_retry(mut self) -> Self {
        if let Some(details) = &mut self.0.details {
            details.retry_after_seconds = None;
        }
        self
    }

    pub fn code(&self) -> StatusCode {
        self.0
            .code
            .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }

    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    pub fn not_found<'a>(subject: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let subject = subject.into();
        let message = format!("{subject} {name:?} not found");
        ApiError::about(StatusCode::NOT_FOUND, "NotFound", message, subject, name)
    }

    /// The path names no resource that is served.
    pub fn unknown_resource() -> Self {
        let mut error = ApiError::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.0.details = Some(StatusDetails::default());
        error
    }

    pub fn already_exists<'a>(subject: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let subject = subject.into();
        let message = format!("{subject} {name:?} already exists");
        ApiError::about(
            StatusCode::CONFLICT,
            "AlreadyExists",
            message,
            subject,
            name,
        )
    }

    /// A name made from `generateName` was taken.
    pub fn generate_name_conflict<'a>(subject: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let subject = subject.into();
        let message = format!(
            "{subject} {name:?} already exists, the server was not able to generate a unique name for the object"
        );
        ApiError::about(
            StatusCode::CONFLICT,
            "AlreadyExists",
            message,
            subject,
            name,
        )
    }

    pub fn conflict<'a>(
        subject: impl Into<GroupResource<'a>>,
        name: &str,
        why: impl std::fmt::Display,
    ) -> Self {
        let subject = subject.into();
        let message = format!("Operation cannot be fulfilled on {subject} {name:?}: {why}");
        ApiError::about(StatusCode::CONFLICT, "Conflict", message, subject, name)
    }

    /// Server-side apply found fields that other managers own.
    pub fn apply_conflict(causes: Vec<StatusCause>, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::CONFLICT, "Conflict", message).with_causes(causes)
    }

    pub fn forbidden<'a>(
        subject: impl Into<GroupResource<'a>>,
        name: &str,
        why: impl std::fmt::Display,
    ) -> Self {
        let subject = subject.into();
        let message = match (subject.resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{subject} is forbidden: {why}"),
            _ => format!("{subject} {name:?} is forbidden: {why}"),
        };
        ApiError::about(StatusCode::FORBIDDEN, "Forbidden", message, subject, name)
    }

    pub fn unauthorized() -> Self {
        ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// A failure of which nothing but the text is known.
    pub fn unclassified(what: impl Into<String>) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", what)
    }

    pub fn internal(what: impl std::fmt::Display) -> Self {
        let what = what.to_string();
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {what}"),
        )
        .with_causes(vec![StatusCause {
            message: Some(what),
            ..StatusCause::default()
        }])
    }

    pub fn method_not_supported<'a>(subject: impl Into<GroupResource<'a>>, action: &str) -> Self {
        let subject = subject.into();
        let message = format!("{action} is not supported on resources of kind \"{subject}\"");
        ApiError::about(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            message,
            subject,
            "",
        )
    }

    /// A path that exists was asked with a method that it does not have.
    pub fn method_not_allowed() -> Self {
        let mut error = ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        error.0.details = Some(StatusDetails::default());
        error
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let mut error = ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!(
                "406: Not Acceptable\n\nAvailable representations: {}",
                accepted.join(", ")
            ),
        );
        error.0.details = Some(StatusDetails::default());
        error
    }

    /// Of a patch, of which upstream says less than of other bodies.
    pub fn unsupported_patch_type() -> Self {
        let mut error = ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "415: Unsupported Media Type",
        );
        error.0.details = Some(StatusDetails::default());
        error
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit_bytes}"),
        )
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
            .retry_after(retry_after_seconds)
    }

    /// The history no longer reaches back that far.
    pub fn expired(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::GONE, "Expired", message)
    }

    pub fn timeout(why: impl std::fmt::Display, retry_after_seconds: i32) -> Self {
        ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            format!("Timeout: {why}"),
        )
        .retry_after(retry_after_seconds)
    }

    /// A resourceVersion that has not happened yet.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let error = ApiError::timeout(
            format!("Too large resource version: {requested}, current: {current}"),
            1,
        );
        error.with_causes(vec![StatusCause {
            reason: Some("ResourceVersionTooLarge".to_owned()),
            message: Some("Too large resource version".to_owned()),
            field: None,
        }])
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
    }

    /// The object is not valid. `errors` must not be empty.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Self {
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let message = format!("{qualified} {name:?} is invalid: {}", aggregate(errors));
        let causes = errors.iter().map(cause).collect();
        let subject = GroupResource {
            group,
            resource: kind,
        };
        ApiError::about(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            message,
            subject,
            name,
        )
        .with_causes(causes)
    }
}

impl From<coracle_store::Error> for ApiError {
    fn from(error: coracle_store::Error) -> Self {
        use coracle_store::Error;
        match error {
            Error::Compacted { requested, oldest } => {
                ApiError::expired(format!("too old resource version: {requested} ({oldest})"))
            }
            Error::Future { requested, current } => {
                ApiError::too_large_resource_version(requested, current)
            }
            Error::Closed => ApiError::service_unavailable("the server is shutting down"),
            error @ (Error::Conflict { .. } | Error::Full | Error::Backend(_)) => {
                ApiError::internal(error)
            }
        }
    }
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let message = error.to_string();
        match error {
            PatchError::Malformed(_) => ApiError::bad_request(message),
            PatchError::TooLarge(_) => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                format!("Request entity too large: {message}"),
            ),
            PatchError::DoesNotApply(_) => {
                tracing::debug!(message, "a patch does not fit its object");
                let mut error = ApiError::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "Invalid",
                    "the server rejected our request due to an error in our request",
                );
                error.0.details = Some(StatusDetails::default());
                error
            }
            PatchError::Other(_) => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", message),
        }
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn cause(error: &FieldError) -> StatusCause {
    StatusCause {
        field: Some(error.field.clone()),
        message: Some(error.body()),
        reason: Some(error.error_type.reason().to_owned()),
    }
}

/// One error as it is, several in brackets, none twice: as upstream's `errors.Aggregate`.
fn aggregate(errors: &ErrorList) -> String {
    let mut seen = HashSet::new();
    let texts: Vec<String> = errors
        .iter()
        .map(ToString::to_string)
        .filter(|text| seen.insert(text.clone()))
        .collect();
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::field::Path;

    use super::*;

    #[test]
    fn invalid_reads_as_upstream() {
        let image = Path::new("spec")
            .child("containers")
            .index(0)
            .child("image");
        let error = ApiError::invalid("", "Pod", "x", &vec![image.required("")]);
        assert_eq!(
            error.to_string(),
            "Pod \"x\" is invalid: spec.containers[0].image: Required value"
        );
        let replicas = Path::new("spec").child("replicas");
        let error = ApiError::invalid(
            "apps",
            "Deployment",
            "x",
            &vec![
                replicas.invalid(-1, "must be greater than or equal to 0"),
                image.required(""),
            ],
        );
        assert_eq!(
            error.to_string(),
            "Deployment.apps \"x\" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.containers[0].image: Required value]"
        );
        let causes = error.0.details.unwrap().causes.unwrap();
        assert_eq!(causes[0].reason.as_deref(), Some("FieldValueInvalid"));
    }
}
