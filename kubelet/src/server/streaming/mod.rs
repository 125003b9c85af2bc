//! exec, attach and port-forward: requests are passed on to the runtime's streaming server.
//!
//! Enter at [`Runtime::remote_command`] and [`Runtime::port_forward`]. SPDY and the older
//! WebSocket protocols are piped byte for byte, because the runtime speaks them; what it does
//! not speak is translated: `v5.channel.k8s.io` ([`remote_command`]) and SPDY tunneled through
//! a WebSocket ([`tunnel`]).

mod remote_command;
mod tunnel;
mod websocket;

use axum::body::Body;
use coracle_transport::{Backend, ForwardError, Forwarder, is_upgrade};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::respond;
pub use remote_command::{Channels, Process};

const PROTOCOL_HEADER: &str = "x-stream-protocol-version";
const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");
const CLOSING_PROTOCOL: &str = "v5.channel.k8s.io";
/// Versions of the remote command protocol that report a Status, the best first.
const RUNTIME_PROTOCOLS: [&str; 2] = [CLOSING_PROTOCOL, "v4.channel.k8s.io"];
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Why the runtime's streaming server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum StreamingError {
    #[error("the runtime gave an invalid streaming URL {0:?}")]
    Url(String),
    #[error("error dialing backend: {0}")]
    Dial(#[from] ForwardError),
    #[error("unable to upgrade connection: {0}")]
    Refused(String),
    #[error("unable to upgrade connection: {0}")]
    Upgrade(#[from] hyper::Error),
}

/// One session at the runtime's streaming server: what the URL that CRI gave names.
pub struct Runtime {
    forwarder: Forwarder,
    backend: Backend,
    path: Uri,
}

impl Runtime {
    pub fn new(forwarder: Forwarder, url: &str) -> Result<Self, StreamingError> {
        let invalid = || StreamingError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let authority = uri.authority().ok_or_else(invalid)?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid());
        }
        let path = uri.path_and_query().ok_or_else(invalid)?.clone();
        let port = authority.port_u16().unwrap_or(80);
        Ok(Runtime {
            forwarder,
            backend: Backend {
                address: format!("{}:{port}", authority.host()),
                tls: None,
            },
            path: path.into(),
        })
    }

    /// Serves exec or attach.
    pub async fn remote_command(
        self,
        mut request: Request<Body>,
        channels: Channels,
        process: Process,
    ) -> Response<Body> {
        if !is_translated(&request) {
            return self.pass_on(request).await;
        }
        let (response, socket) = match websocket::accept(&mut request, Some(CLOSING_PROTOCOL)) {
            Ok(accepted) => accepted,
            Err(error) => return respond::text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let forwarder = self.forwarder.clone();
        forwarder.spawn(async move {
            let Ok(mut socket) = socket.await else {
                return;
            };
            if remote_command::greet(&mut socket, channels).await.is_err() {
                return;
            }
            match self.dial(&RUNTIME_PROTOCOLS).await {
                Ok((runtime, _)) => {
                    remote_command::translate(socket, runtime, channels, process).await;
                }
                Err(error) => {
                    let status = remote_command::internal_error(&error.to_string());
                    remote_command::finish(socket, &status).await;
                }
            }
        });
        response
    }

    /// Serves port-forward.
    pub async fn port_forward(self, mut request: Request<Body>) -> Response<Body> {
        if !is_tunnel(&request) {
            return self.pass_on(request).await;
        }
        let inner: Vec<String> = websocket::protocols(request.headers())
            .filter_map(tunnel::tunneled)
            .map(str::to_owned)
            .collect();
        let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
        let (runtime, chosen) = match self.dial(&inner).await {
            Ok(dialed) => dialed,
            Err(error) => {
                return respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
            }
        };
        let chosen = chosen.as_deref().map(tunnel::tunneling);
        let (response, socket) = match websocket::accept(&mut request, chosen.as_deref()) {
            Ok(accepted) => accepted,
            Err(error) => return respond::text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        self.forwarder.spawn(async move {
            if let Ok(socket) = socket.await {
                tunnel::pipe(socket, runtime).await;
            }
        });
        response
    }

    /// Passes the request on as it is.
    async fn pass_on(self, mut request: Request<Body>) -> Response<Body> {
        if !is_upgrade(request.headers()) {
            let message = "Upgrade request required";
            return respond::text(StatusCode::INTERNAL_SERVER_ERROR, message);
        }
        *request.uri_mut() = self.path;
        match self.forwarder.forward(&self.backend, request).await {
            Ok(response) => response,
            Err(error) => {
                let error = StreamingError::from(error).to_string();
                respond::text(StatusCode::INTERNAL_SERVER_ERROR, error)
            }
        }
    }

    /// A SPDY connection of our own, and the protocol that the runtime chose for it.
    async fn dial(
        &self,
        protocols: &[&str],
    ) -> Result<(TokioIo<Upgraded>, Option<String>), StreamingError> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, SPDY);
        for protocol in protocols {
            if let Ok(protocol) = HeaderValue::from_str(protocol) {
                headers.append(PROTOCOL_HEADER, protocol);
            }
        }
        let mut response = self.forwarder.send(&self.backend, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let body = Limited::new(response.into_body(), MAX_ERROR_BYTES);
            let text = body.collect().await.map(|body| body.to_bytes());
            let text = text.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            return Err(StreamingError::Refused(text));
        }
        let chosen = response
            .headers()
            .get(PROTOCOL_HEADER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let upgraded = hyper::upgrade::on(&mut response).await?;
        Ok((TokioIo::new(upgraded), chosen))
    }
}

/// Whether an exec or attach is in a protocol that the runtime does not speak.
pub fn is_translated(request: &Request<Body>) -> bool {
    let headers = request.headers();
    websocket::is_websocket(headers)
        && websocket::protocols(headers).any(|protocol| protocol == CLOSING_PROTOCOL)
}

/// Whether the request wants SPDY tunneled through a WebSocket.
pub fn is_tunnel(request: &Request<Body>) -> bool {
    let headers = request.headers();
    websocket::is_websocket(headers)
        && websocket::protocols(headers).any(|protocol| tunnel::tunneled(protocol).is_some())
}
