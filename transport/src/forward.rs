//! Passing a request on to another server, protocol upgrades (SPDY, WebSocket) included.
//!
//! An upgraded connection is piped byte for byte: what the two ends speak over it is their own
//! affair.

use std::{io, sync::Arc, time::Duration};

use axum::body::Body;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version,
    header::{self, HeaderName},
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Anything that carries bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server to pass requests on to.
#[derive(Clone, Debug)]
pub struct Backend {
    /// `host:port`; an IPv6 address in brackets.
    pub address: String,
    /// Speak TLS; without, plain HTTP.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Why a request could not be passed on. The texts are those of Go's `net` package, because
/// clients get to see them.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("dial tcp {address}: {}", describe(.source))]
    Connect { address: String, source: io::Error },
    #[error("tls: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// Passes requests on. It owns the connections that were upgraded, and ends them on shutdown.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Forwarder {
    pipes: TaskTracker,
    shutdown: CancellationToken,
}

impl Forwarder {
    pub fn new(shutdown: CancellationToken) -> Self {
        Forwarder {
            pipes: TaskTracker::new(),
            shutdown,
        }
    }

    /// Waits until every upgraded connection has ended. Call it after the shutdown has begun.
    pub async fn drained(&self) {
        self.pipes.close();
        self.pipes.wait().await;
    }

    /// Runs `work` as a task that ends with the shutdown and that [`Forwarder::drained`] waits
    /// for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.pipes.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// A connection to the backend.
    pub async fn connect(&self, backend: &Backend) -> Result<Box<dyn Stream>, ForwardError> {
        let address = &backend.address;
        let failed = |source| ForwardError::Connect {
            address: address.clone(),
            source,
        };
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address.as_str()))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        let _ = stream.set_nodelay(true);
        let Some((config, name)) = &backend.tls else {
            return Ok(Box::new(stream));
        };
        let connector = TlsConnector::from(config.clone());
        let stream = timeout(CONNECT_TIMEOUT, connector.connect(name.clone(), stream))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(ForwardError::Tls)?;
        Ok(Box::new(stream))
    }

    /// Sends one request over a connection of its own and gives the answer; after a 101 the
    /// caller takes the connection with `hyper::upgrade::on`.
    ///
    /// The request's URI must be a path with query; its `Host` is added.
    pub async fn send(
        &self,
        backend: &Backend,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ForwardError> {
        let stream = self.connect(backend).await?;
        if let Ok(host) = HeaderValue::from_str(&backend.address) {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        *request.version_mut() = Version::HTTP_11;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = connection.with_upgrades();
        self.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "forwarded connection ended");
            }
        });
        Ok(sender.send_request(request).await?.map(Body::new))
    }

    /// Passes the request on and gives the backend's answer. When both the request and the
    /// answer are an upgrade, the two connections are piped from then on.
    pub async fn forward(
        &self,
        backend: &Backend,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ForwardError> {
        let upgrade = is_upgrade(request.headers());
        drop_hop_headers(request.headers_mut(), upgrade);
        let client = upgrade.then(|| hyper::upgrade::on(&mut request));
        let mut response = self.send(backend, request).await?;
        let Some(client) = client else {
            drop_hop_headers(response.headers_mut(), false);
            return Ok(response);
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            drop_hop_headers(response.headers_mut(), false);
            return Ok(response);
        }
        let server = hyper::upgrade::on(&mut response);
        self.spawn(async move {
            match tokio::try_join!(client, server) {
                Ok((client, server)) => pipe(TokioIo::new(client), TokioIo::new(server)).await,
                Err(error) => tracing::debug!(%error, "upgrade failed"),
            }
        });
        let (parts, _) = response.into_parts();
        Ok(Response::from_parts(parts, Body::empty()))
    }
}

/// How long an end may still send when the other has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Copies both ways until either end closes or fails, then closes both. What an end has sent by
/// then still arrives: one that takes no more input may have said something last.
pub async fn pipe(one: impl Stream, other: impl Stream) {
    let (one_read, one_write) = tokio::io::split(one);
    let (other_read, other_write) = tokio::io::split(other);
    let mut there = std::pin::pin!(copy(one_read, other_write));
    let mut back = std::pin::pin!(copy(other_read, one_write));
    // The last words are lost with a peer that takes none.
    let _ = tokio::select! {
        () = &mut there => timeout(LAST_WORDS, back).await,
        () = &mut back => timeout(LAST_WORDS, there).await,
    };
}

/// Copies until the end, and tells the writer of it.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// Whether the request asks to change the protocol of its connection.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// RFC 9110, section 7.6.1, and what older servers send.
const HOP_HEADERS: [HeaderName; 6] = [
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
];

/// Removes what is meant for this connection only; an upgrade keeps what asks for it.
fn drop_hop_headers(headers: &mut HeaderMap, upgrade: bool) {
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        .filter(|name| !(upgrade && *name == header::UPGRADE))
        .collect();
    for name in named.iter().chain(&HOP_HEADERS) {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        assert!(is_upgrade(&headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1")
        ])));
        assert!(!is_upgrade(&headers(&[("connection", "Upgrade")])));
        assert!(!is_upgrade(&headers(&[("upgrade", "websocket")])));
    }

    #[test]
    fn hop_headers_are_not_passed_on() {
        let mut plain = headers(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]);
        drop_hop_headers(&mut plain, false);
        assert_eq!(plain, headers(&[("accept", "*/*")]));

        let mut upgrade = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("keep-alive", "5"),
            ("upgrade", "websocket"),
        ]);
        drop_hop_headers(&mut upgrade, true);
        assert_eq!(
            upgrade,
            headers(&[("upgrade", "websocket"), ("connection", "Upgrade")])
        );
    }

    /// A connection, from both ends.
    async fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
        (connected.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn what_an_end_says_last_is_not_lost() {
        let said = vec![7; 32 << 10];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..200 {
            let (client, ours) = connection(&listener).await;
            let (to_backend, mut backend) = connection(&listener).await;
            let piped = tokio::spawn(pipe(ours, to_backend));
            let (mut read, mut write) = client.into_split();
            let typing = tokio::spawn(async move {
                while write.write_all(b"exit\n").await.is_ok() {
                    tokio::task::yield_now().await;
                }
            });
            backend.read_u8().await.unwrap();
            backend.write_all(&said).await.unwrap();
            // Closed with input that nobody has read.
            drop(backend);
            let mut got = Vec::new();
            let ended = timeout(CONNECT_TIMEOUT, read.read_to_end(&mut got)).await;
            assert!(
                ended.is_ok() && got == said,
                "{} bytes, {ended:?}",
                got.len()
            );
            typing.abort();
            drop(read);
            timeout(CONNECT_TIMEOUT, piped)
                .await
                .expect("it ends")
                .unwrap();
        }
    }
}
