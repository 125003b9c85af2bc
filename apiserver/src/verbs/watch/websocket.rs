//! A watch over a WebSocket: each event is a message of text.

use axum::body::Body;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Response, header, request::Parts};
use hyper::upgrade::Upgraded;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::stream::WatchStream;
use crate::{
    error::ApiError,
    websocket::{accept, socket},
};

/// Accepts the handshake. The watch is sent once the connection is upgraded, and ends with it.
pub fn serve(parts: &Parts, stream: WatchStream) -> Result<Response<Body>, ApiError> {
    // One subprotocol is taken as it is; of several, none.
    let offered = parts.headers.get(header::SEC_WEBSOCKET_PROTOCOL);
    let only = offered.filter(|value| !value.as_bytes().contains(&b','));
    let (upgrade, response) = accept(parts, only.cloned())?;
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
    Ok(response)
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
    let (mut sink, mut incoming) = socket(upgraded).await.split();
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
