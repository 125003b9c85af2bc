//! `patch`: a change described as a difference, in three forms.

use axum::body::Body;
use coracle_api::{Object, Subresource, field::Path};
use http::{Response, StatusCode};
use serde_json::Value;

use super::{
    update::{Change, change_object, check_name},
    written::Written,
};
use crate::{
    body, decode,
    error::ApiError,
    options::WriteOptions,
    query::Query,
    registry::Resource,
    respond::Output,
    server::{ApiServer, Context},
    strategy,
};

const MAX_OPERATIONS: usize = 10_000;
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The difference that the client sent.
pub enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
}

/// Changes the object, or the part that the subresource is, as the body says.
pub async fn patch(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    subresource: Option<Subresource>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let media_type = body::media_type(&context.headers);
    let check = Patch::check_type(media_type);
    check?;
    let output = Output::negotiate(&context.headers, &query)?;
    let bytes = body::read(body).await?;
    let options = WriteOptions::parse(&query, "PatchOptions", Some(false))?;
    let patch = Patch::read(media_type, &bytes)?;
    let make = |old: Option<&dyn Object>| {
        let old = old.ok_or_else(|| ApiError::not_found(&*resource.kind, &context.info.name))?;
        let mut new = patched(resource, &patch, old, &options, context)?;
        let meta = new.meta_mut();
        strategy::match_namespace(meta, resource.kind.namespaced, &context.info.namespace)?;
        check_name(meta, &context.info.name)?;
        Ok(new)
    };
    let change = Change {
        subresource,
        options: &options,
        create: false,
        uid: None,
        make: &make,
    };
    let (written, _): (Written, bool) = change_object(server, context, resource, &change).await?;
    written.respond(&output, StatusCode::OK, resource)
}

impl Patch {
    /// Refuses bodies that are no patch.
    pub fn check_type(media_type: &str) -> Result<(), ApiError> {
        const TYPES: [&str; 2] = [JSON_PATCH, MERGE_PATCH];
        if TYPES.contains(&media_type) {
            return Ok(());
        }
        Err(ApiError::unsupported_media_type(&TYPES))
    }

    /// Reads a patch whose type was checked.
    pub fn read(media_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let bad = |error: serde_json::Error| {
            ApiError::bad_request(format!("error decoding patch: {error}"))
        };
        if media_type == JSON_PATCH {
            let patch: json_patch::Patch = serde_json::from_slice(body).map_err(bad)?;
            if patch.len() > MAX_OPERATIONS {
                return Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestEntityTooLarge",
                    format!(
                        "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                        patch.len()
                    ),
                ));
            }
            return Ok(Patch::Json(patch));
        }
        Ok(Patch::Merge(serde_json::from_slice(body).map_err(bad)?))
    }

    /// Applies it.
    pub fn apply(&self, value: &mut Value) -> Result<(), ApiError> {
        match self {
            Patch::Json(patch) => json_patch::patch(value, patch).map_err(|error| {
                tracing::debug!(%error, "a JSON patch does not apply");
                ApiError::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "Invalid",
                    "the server rejected our request due to an error in our request",
                )
            }),
            Patch::Merge(patch) => {
                json_patch::merge(value, patch);
                Ok(())
            }
        }
    }
}

/// The object with the patch applied.
fn patched(
    resource: &Resource,
    patch: &Patch,
    old: &dyn Object,
    options: &WriteOptions,
    context: &Context,
) -> Result<Box<dyn Object>, ApiError> {
    let mut value = old.to_value();
    patch.apply(&mut value)?;
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    decode::object(
        &resource.kind,
        &json,
        options.field_validation,
        &context.warnings,
    )
    .map_err(|error| {
        let path = Path::new("patch");
        let sent = String::from_utf8_lossy(&json).into_owned();
        ApiError::invalid("", "", "", &vec![path.invalid(sent, error.to_string())])
    })
}
