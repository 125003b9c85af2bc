//! The body of a request: bounded, and as JSON whatever it was sent as.

use axum::body::Body;
use bytes::Bytes;
use coracle_api::codec::protobuf;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    error::ApiError,
    respond::{JSON, MEDIA_TYPES, PROTOBUF, YAML},
    yaml,
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

/// A body as it was sent.
pub struct Sent {
    /// Protobuf was made JSON already.
    pub bytes: Bytes,
    pub is_yaml: bool,
}

/// Reads the body of a request that sends an object.
///
/// # Errors
/// 415 when its type is none that the API speaks.
pub async fn read_sent(headers: &HeaderMap, body: Body) -> Result<Sent, ApiError> {
    let media_type = media_type(headers);
    let bytes = read(body).await?;
    let sent = |bytes, is_yaml| Ok(Sent { bytes, is_yaml });
    match media_type {
        "" | JSON => sent(bytes, false),
        YAML => sent(bytes, true),
        // An empty body, of a deletion for example, is none in any encoding.
        PROTOBUF if bytes.is_empty() => sent(bytes, false),
        PROTOBUF => {
            let json = protobuf::to_json(&bytes, "", "")
                .map_err(|error| ApiError::bad_request(error.to_string()))?;
            sent(json.into(), false)
        }
        _ => Err(ApiError::unsupported_media_type(&MEDIA_TYPES)),
    }
}

/// Reads the body and gives it as JSON.
///
/// # Errors
/// 415 when its type is none that the API speaks.
pub async fn read_json(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let sent = read_sent(headers, body).await?;
    if !sent.is_yaml || sent.bytes.is_empty() {
        return Ok(sent.bytes);
    }
    let document = yaml::read(&sent.bytes).map_err(ApiError::bad_request)?;
    Ok(document.value.to_string().into())
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
