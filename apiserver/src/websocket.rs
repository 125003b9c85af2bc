//! What every WebSocket that this server ends itself has in common. Enter at [`accept`]; what is
//! sent is up to the caller. A client may only listen: its messages are bounded and unheard.

use axum::body::Body;
use coracle_transport::is_upgrade;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::error::ApiError;

/// A listener has nothing to say.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// Whether the request wants to become a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers)
        && headers
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The answer that accepts the handshake, and the connection that it becomes once it is sent.
pub fn accept(
    parts: &Parts,
    protocol: Option<HeaderValue>,
) -> Result<(OnUpgrade, Response<Body>), ApiError> {
    let key = parts
        .headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| ApiError::bad_request("the request has no Sec-WebSocket-Key"))?;
    let upgrade = parts
        .extensions
        .get::<OnUpgrade>()
        .cloned()
        .ok_or_else(|| ApiError::bad_request("the connection cannot be upgraded"))?;
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(
            header::SEC_WEBSOCKET_ACCEPT,
            derive_accept_key(key.as_bytes()),
        );
    if let Some(protocol) = protocol {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let response = response.body(Body::empty()).map_err(ApiError::internal)?;
    Ok((upgrade, response))
}

/// This side of an upgraded connection.
pub async fn socket(upgraded: Upgraded) -> WebSocketStream<TokioIo<Upgraded>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}
