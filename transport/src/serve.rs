//! The HTTPS listener.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt as _};

use crate::Peer;

/// A peer has this long to complete the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An HTTP/1.1 connection may be idle, or take for the head of a request, this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// A dead HTTP/2 peer is noticed after the interval and the timeout.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// The bounds of a listener.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// Bytes of a request's head.
    pub max_head_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// How long requests under way may take after the shutdown has begun.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions {
            max_connections: 16384,
            max_head_bytes: 1 << 20,
            max_streams: 1000,
            drain: Duration::from_secs(10),
        }
    }
}

/// Answers requests with `service` until `shutdown`, then lets those under way end.
///
/// Each request carries its [`Peer`] as an extension. HTTP/1.1 connections can be upgraded
/// (`hyper::upgrade::on`); what follows an upgrade belongs to the service, which must end it on
/// shutdown itself.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    service: S,
    options: ServeOptions,
    shutdown: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let acceptor = TlsAcceptor::from(tls);
    let permits = Arc::new(Semaphore::new(options.max_connections));
    let connections = TaskTracker::new();
    while let Some((stream, address)) = accept(&listener, &permits, &shutdown).await {
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            continue;
        };
        let connection = Connection {
            acceptor: acceptor.clone(),
            options: options.clone(),
            shutdown: shutdown.clone(),
            address,
        };
        let service = service.clone();
        connections.spawn(async move {
            connection.run(stream, service).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection; `None` on shutdown.
async fn accept(
    listener: &TcpListener,
    permits: &Semaphore,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr)> {
    let next = async {
        loop {
            // Only this task takes permits, so one that was free stays free.
            drop(permits.acquire().await);
            match listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => None,
        accepted = next => Some(accepted),
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

struct Connection {
    acceptor: TlsAcceptor,
    options: ServeOptions,
    shutdown: CancellationToken,
    address: SocketAddr,
}

impl Connection {
    async fn run<S>(self, stream: TcpStream, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let Some(stream) = self.handshake(stream).await else {
            return;
        };
        let session = stream.get_ref().1;
        let certificates = session.peer_certificates().unwrap_or_default();
        let peer = Peer::new(self.address, certificates.into());
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            service.clone().oneshot(request)
        });
        let io = TokioIo::new(stream);
        if is_http2 {
            let connection = self.http2().serve_connection(io, service);
            self.drive(connection, http2::Connection::graceful_shutdown)
                .await;
        } else {
            let connection = self.http1().serve_connection(io, service);
            let end = http1::UpgradeableConnection::graceful_shutdown;
            self.drive(connection.with_upgrades(), end).await;
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        // Watch events are small and must not wait for one another.
        let _ = stream.set_nodelay(true);
        let handshake = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream));
        let outcome = tokio::select! {
            () = self.shutdown.cancelled() => return None,
            outcome = handshake => outcome,
        };
        match outcome {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.address, %error, "TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!(peer = %self.address, "TLS handshake took too long");
                None
            }
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(self.options.max_head_bytes);
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let max_head = u32::try_from(self.options.max_head_bytes).unwrap_or(u32::MAX);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.options.max_streams)
            .max_header_list_size(max_head);
        builder
    }

    /// Runs the connection; on shutdown it takes no new request and ends with those under way.
    async fn drive<C>(&self, connection: C, graceful_shutdown: fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                graceful_shutdown(connection.as_mut());
                match timeout(self.options.drain, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.address, %error, "connection ended");
        }
    }
}
