//! The server's side of a WebSocket handshake.

use axum::body::Body;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

const PROTOCOL: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;
/// What upstream's server accepts.
const MAX_MESSAGE_BYTES: usize = 32 << 20;
const READ_BUFFER_BYTES: usize = 32 << 10;

pub type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Why the handshake is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(&'static str);

/// The closing frame: clients take one without status for a failure.
pub fn closing() -> Option<CloseFrame> {
    Some(CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    })
}

/// Whether the request wants to become a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    coracle_transport::is_upgrade(headers)
        && headers
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The subprotocols that the client speaks, the one it likes best first.
pub fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(PROTOCOL)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The answer to the handshake, and the connection that there will be when it was sent.
pub fn accept(
    request: &mut Request<Body>,
    protocol: Option<&str>,
) -> Result<(Response<Body>, BoxFuture<'static, hyper::Result<WebSocket>>), HandshakeError> {
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        return Err(HandshakeError("unsupported WebSocket version"));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or(HandshakeError("missing Sec-WebSocket-Key"))?;
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| HandshakeError("invalid Sec-WebSocket-Key"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if let Some(protocol) = protocol {
        let protocol =
            HeaderValue::from_str(protocol).map_err(|_| HandshakeError("invalid subprotocol"))?;
        answer.insert(PROTOCOL, protocol);
    }
    let upgrade = hyper::upgrade::on(request);
    let socket = async move {
        let stream = TokioIo::new(upgrade.await?);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        Ok(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
    };
    Ok((response, Box::pin(socket)))
}
