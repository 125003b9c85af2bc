//! A watch over a WebSocket: each event is a message of text.

use axum::body::Body;
use bytes::Bytes;
use coracle_transport::is_upgrade;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::stream::WatchStream;
use crate::error::ApiError;

/// A client of a watch has nothing to say.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// Whether the request wants to become a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers)
        && headers
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Accepts the handshake. The watch is sent once the connection is upgraded, and ends with it.
pub fn serve(parts: &Parts, stream: WatchStream) -> Result<Response<Body>, ApiError> {
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
    // One subprotocol is taken as it is; of several, none.
    let offered = parts.headers.get(header::SEC_WEBSOCKET_PROTOCOL);
    if let Some(only) = offered.filter(|value| !value.as_bytes().contains(&b',')) {
        response = response.header(header::SEC_WEBSOCKET_PROTOCOL, only);
    }
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                if let Err(error) = send(upgraded, stream).await {
                    tracing::debug!(%error, "a watch over a WebSocket ended");
                }
            }
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
    response.body(Body::empty()).map_err(ApiError::internal)
}

/// The messages for a frame of events: a text for each line, or one of bytes for a frame that
/// is no text.
fn messages(frame: &Bytes) -> Vec<Result<Message, Error>> {
    if frame.first() != Some(&b'{') {
        return vec![Ok(Message::Binary(frame.clone()))];
    }
    let lines = frame.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| {
            let text = Utf8Bytes::try_from(Bytes::copy_from_slice(line))?;
            Ok(Message::Text(text))
        })
        .collect()
}

async fn send(upgraded: Upgraded, stream: WatchStream) -> Result<(), Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (mut sink, mut incoming) = socket.split();
    let mut frames = std::pin::pin!(stream.frames());
    loop {
        tokio::select! {
            frame = frames.next() => {
                let Some(Ok(frame)) = frame else {
                    break;
                };
                for message in messages(&frame) {
                    sink.feed(message?).await?;
                }
                sink.flush().await?;
            }
            message = incoming.next() => match message {
                Some(Ok(Message::Close(_))) | None => break,
                Some(message) => drop(message?),
            },
        }
    }
    sink.close().await
}
