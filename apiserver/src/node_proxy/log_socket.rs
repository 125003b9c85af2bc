//! A container's log over a WebSocket: the bytes as they come, after an empty message that tells
//! the client that the stream is open.

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use hyper::upgrade::Upgraded;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    error::ApiError,
    websocket::{accept, socket},
};

/// How the bytes are put into messages: upstream's subprotocols for a stream in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Unnamed,
    Binary,
    Base64,
}

impl Protocol {
    /// The first that is known of those offered.
    fn choose(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut offered = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .map(str::trim)
            .peekable();
        if offered.peek().is_none() {
            return Ok(Protocol::Unnamed);
        }
        let known = offered.find_map(|name| match name {
            "" => Some(Protocol::Unnamed),
            "binary.k8s.io" => Some(Protocol::Binary),
            "base64.binary.k8s.io" => Some(Protocol::Base64),
            _ => None,
        });
        known.ok_or_else(|| ApiError::bad_request("requested protocol(s) are not supported"))
    }

    fn name(self) -> Option<HeaderValue> {
        match self {
            Protocol::Unnamed => None,
            Protocol::Binary => Some(HeaderValue::from_static("binary.k8s.io")),
            Protocol::Base64 => Some(HeaderValue::from_static("base64.binary.k8s.io")),
        }
    }

    fn message(self, bytes: Bytes) -> Message {
        match self {
            Protocol::Unnamed | Protocol::Binary => Message::Binary(bytes),
            Protocol::Base64 => Message::Text(STANDARD.encode(bytes).into()),
        }
    }
}

/// Accepts the handshake; `log` is sent once the connection is upgraded, and ends with it.
pub fn serve(parts: &Parts, log: Body) -> Result<Response<Body>, ApiError> {
    let protocol = Protocol::choose(&parts.headers)?;
    let (upgrade, response) = accept(parts, protocol.name())?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                if let Err(error) = send(upgraded, protocol, log).await {
                    tracing::debug!(%error, "a log over a WebSocket ended");
                }
            }
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
    });
    Ok(response)
}

async fn send(upgraded: Upgraded, protocol: Protocol, log: Body) -> Result<(), Error> {
    let (mut sink, mut incoming) = socket(upgraded).await.split();
    let mut log = log.into_data_stream();
    sink.send(protocol.message(Bytes::new())).await?;
    loop {
        tokio::select! {
            bytes = log.next() => {
                let Some(Ok(bytes)) = bytes else {
                    break;
                };
                sink.send(protocol.message(bytes)).await?;
            }
            message = incoming.next() => match message {
                Some(Ok(Message::Close(_))) | None => break,
                Some(message) => drop(message?),
            },
        }
    }
    sink.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_protocol_is_spoken() {
        let choose = |offered: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for offer in offered {
                let value = HeaderValue::from_static(offer);
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, value);
            }
            Protocol::choose(&headers).ok()
        };
        assert_eq!(choose(&[]), Some(Protocol::Unnamed));
        assert_eq!(choose(&["x, binary.k8s.io"]), Some(Protocol::Binary));
        assert_eq!(
            choose(&["x", "base64.binary.k8s.io"]),
            Some(Protocol::Base64)
        );
        assert_eq!(choose(&["v5.channel.k8s.io"]), None);
    }

    #[test]
    fn bytes_are_sent_as_the_protocol_says() {
        let bytes = Bytes::from_static(b"hi");
        let binary = Protocol::Binary.message(bytes.clone());
        assert_eq!(binary, Message::Binary(bytes.clone()));
        assert_eq!(
            Protocol::Base64.message(bytes),
            Message::Text("aGk=".into())
        );
    }
}
