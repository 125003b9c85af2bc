//! One HTTP request to a container, as probes and lifecycle hooks make it (pkg/probe/http of
//! upstream): certificates are not verified, redirects are followed on the same host only.

use std::{error::Error as _, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpStream};

/// The most bytes of a body that are read.
const MAX_BODY: usize = 10 << 10;
const MAX_REDIRECTS: usize = 10;

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Target {
    pub scheme: String,
    pub host: String,
    pub port: u16,
    /// With the query.
    pub path: String,
    pub headers: HeaderMap,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: StatusCode,
    pub body: String,
}

/// The number of a container's port that is given by number or name.
///
/// # Errors
/// In upstream's words, when there is no such port.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok())
            .ok_or_else(|| format!("strconv.Atoi: parsing {name:?}: invalid syntax"))?,
    };
    u16::try_from(number)
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

impl Target {
    /// `purpose` is `probe` or `lifecycle`, part of the user agent.
    ///
    /// # Errors
    /// When the container has no such port.
    pub fn new(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        purpose: &str,
    ) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for header in action.http_headers.iter().flatten() {
            if let (Ok(name), Ok(value)) = (
                HeaderName::try_from(header.name.as_str()),
                HeaderValue::try_from(header.value.as_str()),
            ) {
                headers.append(name, value);
            }
        }
        if !headers.contains_key(header::USER_AGENT) {
            let agent = HeaderValue::try_from(format!("kube-{purpose}/1.36"));
            headers.extend(agent.ok().map(|agent| (header::USER_AGENT, agent)));
        }
        match headers.get(header::ACCEPT) {
            None => {
                headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
            }
            Some(accept) if accept.is_empty() => {
                headers.remove(header::ACCEPT);
            }
            Some(_) => {}
        }
        let host = action.host.as_deref().filter(|host| !host.is_empty());
        let path = action.path.as_deref().unwrap_or_default();
        Ok(Target {
            scheme: action.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            host: host.unwrap_or(pod_ip).to_owned(),
            port: port(&action.port, container)?,
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
            headers,
        })
    }

    fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.path)
    }

    /// Sends a GET and reads the answer.
    ///
    /// # Errors
    /// In the words of Go's client, as events show them.
    pub async fn get(&self, timeout: Duration) -> Result<Response, String> {
        let failed = |why: String| format!("Get {:?}: {why}", self.url());
        match tokio::time::timeout(timeout, self.follow()).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    .to_owned(),
            )),
        }
    }

    async fn follow(&self) -> Result<Response, String> {
        let mut target = self.clone();
        for _ in 0..=MAX_REDIRECTS {
            let (response, location) = target.get_once().await?;
            let next = location
                .filter(|_| is_redirect(response.status))
                .and_then(|location| target.redirected(&location));
            match next {
                Some(next) => target = next,
                None => return Ok(response),
            }
        }
        Err("stopped after 10 redirects".to_owned())
    }

    /// Where a redirect leads, unless it leads to another host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let mut next = self.clone();
        let uri: Uri = location.parse().ok()?;
        if let Some(host) = uri.host() {
            if host.trim_matches(['[', ']']) != self.host {
                return None;
            }
            next.scheme = uri.scheme_str().unwrap_or(&self.scheme).to_owned();
            let default = if next.scheme == "https" { 443 } else { 80 };
            next.port = uri.port_u16().unwrap_or(default);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        next.path = match path.starts_with('/') {
            true => path.to_owned(),
            false => {
                let base = self.path.split('?').next().unwrap_or_default();
                let directory = base.rfind('/').map_or("/", |slash| &base[..=slash]);
                format!("{directory}{path}")
            }
        };
        Some(next)
    }

    async fn get_once(&self) -> Result<(Response, Option<String>), String> {
        let stream = connect(&self.host, self.port).await?;
        let ends = match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(peer)) => format!("{local}->{peer}"),
            _ => self.authority(),
        };
        match self.scheme.as_str() {
            "https" => self.exchange(tls(stream, &self.host).await?, &ends).await,
            _ => self.exchange(stream, &ends).await,
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        ends: &str,
    ) -> Result<(Response, Option<String>), String> {
        let text = |error: hyper::Error| exchange_error(&error, ends);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(text)?;
        let request = self.request()?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(text)?;
            let status = response.status();
            let location = response.headers().get(header::LOCATION);
            let location = location.and_then(|it| it.to_str().ok()).map(str::to_owned);
            let body = read_body(response.into_body()).await?;
            Ok((Response { status, body }, location))
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            result = &mut exchange => result,
            ended = &mut connection => match ended {
                // The answer may be complete although the connection has ended.
                Ok(()) => exchange.await,
                Err(error) => Err(text(error)),
            },
        }
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, String> {
        let uri: Uri = self
            .path
            .parse()
            .or_else(|_| escaped(&self.path).parse())
            .map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        if !headers.contains_key(header::HOST) {
            let host = HeaderValue::try_from(self.authority());
            headers.insert(header::HOST, host.map_err(|error| error.to_string())?);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Escapes what must not stand in a path.
fn escaped(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'!'..=b'~'
                if !matches!(
                    byte,
                    b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
                ) =>
            {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

async fn read_body(mut body: hyper::body::Incoming) -> Result<String, String> {
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            content.extend_from_slice(data);
        }
        if content.len() >= MAX_BODY {
            content.truncate(MAX_BODY);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// `host:port`, with brackets where they are needed.
pub fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Connects.
///
/// # Errors
/// In Go's words.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|error| dial_error(host, port, &error))
}

fn dial_error(host: &str, port: u16, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {}: {why}", authority(host, port))
}

fn exchange_error(error: &hyper::Error, ends: &str) -> String {
    let cause = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset) => {
            format!("read tcp {ends}: read: connection reset by peer")
        }
        Some(io::ErrorKind::BrokenPipe) => format!("write tcp {ends}: write: broken pipe"),
        _ if error.is_incomplete_message() || error.is_closed() => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

async fn tls(
    stream: TcpStream,
    host: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let text = |error: rustls::Error| error.to_string();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Unverified(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(text)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|error| error.to_string())?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| match error.to_string() {
            text if text.contains("InvalidContentType") => {
                "http: server gave HTTP response to HTTPS client".to_owned()
            }
            text => text,
        })
}

/// Takes every certificate: a probe asks whether a container answers, not who it is.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket},
    };

    /// Answers each connection with the next of these; returns the port.
    async fn server(answers: Vec<String>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept().await else {
                    return;
                };
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    fn target(port: u16, path: &str) -> Target {
        let action = HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(port)),
            ..HTTPGetAction::default()
        };
        Target::new(&action, &Container::default(), "127.0.0.1", "probe").expect("a target")
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn redirects_are_followed_on_the_same_host_only() {
        let answers = vec![
            answer("302 Found", "Location: /next\r\n", ""),
            answer("200 OK", "", "there"),
        ];
        let port = server(answers).await;
        let response = target(port, "/").get(PATIENCE).await.expect("an answer");
        assert_eq!(
            (response.status.as_u16(), response.body.as_str()),
            (200, "there")
        );
        let away = vec![answer(
            "302 Found",
            "Location: http://example.org/\r\n",
            "away",
        )];
        let port = server(away).await;
        let response = target(port, "/").get(PATIENCE).await.expect("an answer");
        assert_eq!(
            (response.status.as_u16(), response.body.as_str()),
            (302, "away")
        );
    }

    #[tokio::test]
    async fn failures_read_as_gos() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let silent = target(port, "/x?y=1");
        let error = silent
            .get(Duration::from_millis(20))
            .await
            .expect_err("nobody answers");
        assert_eq!(
            error,
            format!(
                "Get \"http://127.0.0.1:{port}/x?y=1\": context deadline exceeded (Client.Timeout \
                 exceeded while awaiting headers)"
            )
        );
        // Bound and not listened at: a process that was just forked may keep a listener open.
        let bound = TcpSocket::new_v4().expect("a socket");
        bound
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("bound");
        let port = bound.local_addr().expect("an address").port();
        let refused = target(port, "/x?y=1").get(PATIENCE).await;
        assert_eq!(
            refused.expect_err("nobody listens"),
            format!(
                "Get \"http://127.0.0.1:{port}/x?y=1\": dial tcp 127.0.0.1:{port}: connect: \
                 connection refused"
            )
        );
    }

    #[tokio::test]
    async fn cut_connections_read_as_gos() {
        let port = server(vec![String::new()]).await;
        let error = target(port, "/")
            .get(PATIENCE)
            .await
            .expect_err("no answer");
        assert_eq!(error, format!("Get \"http://127.0.0.1:{port}/\": EOF"));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let reset = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            // What is there and not read resets the connection.
            stream.peek(&mut [0]).await.expect("a request");
        };
        let asked = target(port, "/");
        let (error, ()) = tokio::join!(asked.get(PATIENCE), reset);
        let error = error.expect_err("no answer");
        let to = format!("->127.0.0.1:{port}: read: connection reset by peer");
        assert!(
            error.contains(": read tcp 127.0.0.1:") && error.ends_with(&to),
            "{error}"
        );
    }

    #[test]
    fn ports_are_found_by_name() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 8080}],
        }))
        .expect("a container");
        let of = |value: IntOrString| port(&value, &container);
        assert_eq!(of(IntOrString::String("web".into())), Ok(8080));
        assert_eq!(of(IntOrString::String("81".into())), Ok(81));
        assert_eq!(
            of(IntOrString::Int(0)),
            Err("invalid port number: 0".into())
        );
        assert!(of(IntOrString::String("none".into())).is_err());
    }
}
