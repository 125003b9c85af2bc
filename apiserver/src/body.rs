//! The body of a request: bounded, and as JSON whatever it was sent as.

use axum::body::Body;
use bytes::Bytes;
use coracle_api::codec::protobuf;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    error::ApiError,
    respond::{JSON, MEDIA_TYPES, PROTOBUF, YAML},
};

/// Upstream's bound.
pub const MAX_BYTES: usize = 3 << 20;

/// Reads the whole body.
///
/// # Errors
/// 413 when it is larger than [`MAX_BYTES`].
pub async fn read(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(MAX_BYTES)),
        Err(error) => Err(ApiError::bad_request(format!(
            "unable to read the request body: {error}"
        ))),
    }
}

/// Reads the body and gives it as JSON.
///
/// # Errors
/// 415 when its type is none that the API speaks.
pub async fn read_json(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let media_type = media_type(headers);
    let bytes = read(body).await?;
    match media_type {
        "" | JSON => Ok(bytes),
        YAML => yaml_to_json(&bytes),
        // An empty body, of a deletion for example, is none in any encoding.
        PROTOBUF if bytes.is_empty() => Ok(bytes),
        PROTOBUF => protobuf::to_json(&bytes, "", "")
            .map(Bytes::from)
            .map_err(|error| ApiError::bad_request(error.to_string())),
        _ => Err(ApiError::unsupported_media_type(&MEDIA_TYPES)),
    }
}

/// The type of the body without parameters; empty when the client gave none.
pub fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// YAML as JSON.
pub fn yaml_to_json(yaml: &[u8]) -> Result<Bytes, ApiError> {
    let value: serde_json::Value = serde_yaml_ng::from_slice(yaml).map_err(|error| {
        ApiError::bad_request(format!("error converting YAML to JSON: {error}"))
    })?;
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    Ok(json.into())
}
