//! Small documents over HTTPS.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_transport::{TlsError, Trust};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Key sets and discovery documents are a few kilobytes.
const MAX_BYTES: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 5;

/// Fetches from servers whose certificates one authority signed.
pub(super) struct Fetcher {
    tls: TlsConnector,
}

impl Fetcher {
    /// `authority` is PEM; when it is empty, the authorities of the host count.
    pub fn new(authority: &str) -> Result<Self, TlsError> {
        let authorities = if authority.is_empty() {
            of_host()
        } else {
            coracle_transport::parse_certificates(authority.as_bytes())?
        };
        let config: ClientConfig =
            coracle_transport::client_config(Trust::Authorities(&authorities), None)?;
        Ok(Fetcher {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The content at an `https` address.
    pub async fn get(&self, address: &str) -> Result<Bytes, String> {
        let fetched = tokio::time::timeout(TIMEOUT, self.follow(address)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("it takes too long".to_owned()));
        fetched.map_err(|error| format!("Get {address:?}: {error}"))
    }

    async fn follow(&self, address: &str) -> Result<Bytes, String> {
        let mut address: Uri = address.parse().map_err(text)?;
        for _ in 0..=MAX_REDIRECTS {
            match self.get_once(&address).await? {
                Answer::Content(content) => return Ok(content),
                Answer::Elsewhere(next) => address = next,
            }
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    }

    async fn get_once(&self, address: &Uri) -> Result<Answer, String> {
        let authority = address.authority().ok_or("the address names no host")?;
        if address.scheme_str() != Some("https") {
            return Err("the address is not of https".to_owned());
        }
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(443);
        let stream = TcpStream::connect((host, port)).await.map_err(text)?;
        let name = ServerName::try_from(host.to_owned()).map_err(text)?;
        let stream = self.tls.connect(name, stream).await.map_err(text)?;
        let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(text)?;
        let target = address
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let request = Request::get(target)
            .header(header::HOST, authority.as_str())
            .header(header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(text)?;
        let answer = async move {
            let response = sender.send_request(request).await.map_err(text)?;
            let status = response.status();
            if status.is_redirection()
                && let Some(location) = response.headers().get(header::LOCATION)
            {
                let location = location.to_str().map_err(text)?;
                return Ok(Answer::Elsewhere(location.parse().map_err(text)?));
            }
            if status != StatusCode::OK {
                return Err(format!("{status}"));
            }
            let body = Limited::new(response.into_body(), MAX_BYTES)
                .collect()
                .await;
            let body = body.map_err(|error| error.to_string())?;
            Ok(Answer::Content(body.to_bytes()))
        };
        let connection = async {
            // What goes wrong there, the answer tells.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answer => answer,
            () = connection => Err("the connection ended".to_owned()),
        }
    }
}

enum Answer {
    Content(Bytes),
    Elsewhere(Uri),
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Those that can be used; a host may have others.
fn of_host() -> Vec<rustls::pki_types::CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the host's certificate authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let usable = found.certs.into_iter();
    usable
        .filter(|one| roots.add(one.clone()).is_ok())
        .collect()
}
