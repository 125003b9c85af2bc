//! Port forwarding of a client that speaks SPDY inside a WebSocket
//! (`SPDY/3.1+portforward.k8s.io`): binary messages carry the bytes of the SPDY connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_transport::Stream;
use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use super::websocket::{WebSocket, closing};

/// The prefix of the subprotocols that tunnel SPDY.
const PREFIX: &str = "SPDY/3.1+";
const SUFFIX: &str = ".k8s.io";
const PIECE_BYTES: usize = 32 << 10;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the client wants to speak through the tunnel, if `protocol` is one for tunnels.
pub fn tunneled(protocol: &str) -> Option<&str> {
    protocol
        .strip_prefix(PREFIX)
        .filter(|inner| inner.ends_with(SUFFIX))
}

/// The subprotocol that says that `inner` is spoken through the tunnel.
pub fn tunneling(inner: &str) -> String {
    format!("{PREFIX}{inner}")
}

/// Carries bytes both ways until one of the ends is gone.
pub async fn pipe(mut socket: WebSocket, runtime: impl Stream) {
    let (mut reader, mut writer) = tokio::io::split(runtime);
    {
        let (mut sink, mut source) = (&mut socket).split();
        let to_runtime = async {
            while let Some(Ok(message)) = source.next().await {
                let bytes: Bytes = match message {
                    Message::Binary(bytes) => bytes,
                    Message::Text(text) => text.into(),
                    Message::Close(_) => return,
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                };
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    // It takes no more, but what it said last may still be on its way.
                    return std::future::pending().await;
                }
            }
        };
        let to_client = async {
            let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
            while let Ok(1..) = reader.read_buf(&mut buffer).await {
                if sink
                    .send(Message::Binary(buffer.split().freeze()))
                    .await
                    .is_err()
                {
                    return;
                }
                buffer.reserve(PIECE_BYTES);
            }
        };
        tokio::select! {
            () = to_runtime => {}
            () = to_client => {}
        }
    }
    let _ = writer.shutdown().await;
    let _ = timeout(CLOSE_TIMEOUT, async {
        if socket.close(closing()).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kubernetes_protocols_are_tunneled() {
        assert_eq!(
            tunneled("SPDY/3.1+portforward.k8s.io"),
            Some("portforward.k8s.io")
        );
        assert_eq!(tunneled("v4.channel.k8s.io"), None);
        assert_eq!(tunneled("SPDY/3.1+other"), None);
        assert_eq!(
            tunneling("portforward.k8s.io"),
            "SPDY/3.1+portforward.k8s.io"
        );
    }
}
