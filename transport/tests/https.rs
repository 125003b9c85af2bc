//! The listener and the forwarder over real sockets.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use coracle_transport::{
    Backend, ClientCertificates, Forwarder, Peer, ServeOptions, ServerCertificate, certified_key,
    parse_certificates, parse_private_key, serve, server_config,
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::service_fn;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn certificates(&self) -> ClientCertificates {
        let certificates = parse_certificates(self.pem.as_bytes()).unwrap();
        ClientCertificates::new(&certificates).unwrap()
    }

    fn client(&self, identity: Option<(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in parse_certificates(self.pem.as_bytes()).unwrap() {
            roots.add(certificate).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(
                    parse_certificates(chain.as_bytes()).unwrap(),
                    parse_private_key(key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        })
    }
}

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    certificate: Arc<ServerCertificate>,
}

/// Says whether the peer's certificate is believed; echoes what follows an upgrade.
async fn start(authority: &Authority) -> Server {
    let (chain, key) = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = certified_key(chain.as_bytes(), key.as_bytes()).unwrap();
    let certificate = Arc::new(ServerCertificate::new(certificate));
    let clients = authority.certificates();
    let tls = server_config(certificate.clone(), Some(&clients)).unwrap();
    let service = service_fn(move |mut request: Request<Body>| {
        let peer: Peer = request.extensions().get().cloned().unwrap();
        let said = match clients.verify(&peer.certificates) {
            Ok(()) => "believed",
            Err(_) if peer.certificates.is_empty() => "anonymous",
            Err(_) => "not believed",
        };
        let mut response = Response::new(Body::from(said));
        if request.method() == Method::POST {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let stream = TokioIo::new(upgrade.await.unwrap());
                let (mut reader, mut writer) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, "Upgrade".parse().unwrap());
            headers.insert(header::UPGRADE, "echo".parse().unwrap());
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(
        listener,
        Arc::new(tls),
        service,
        ServeOptions::default(),
        shutdown.clone(),
    ));
    Server {
        address,
        shutdown,
        task,
        certificate,
    }
}

impl Server {
    fn backend(&self, config: Arc<ClientConfig>) -> Backend {
        let name = ServerName::try_from("localhost").unwrap();
        Backend {
            address: self.address.to_string(),
            tls: Some((config, name)),
        }
    }

    async fn get(&self, config: Arc<ClientConfig>) -> String {
        let forwarder = Forwarder::new(self.shutdown.clone());
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = forwarder
            .forward(&self.backend(config), request)
            .await
            .unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }
}

#[tokio::test]
async fn client_certificates_are_judged_after_the_handshake() {
    let authority = Authority::new();
    let server = start(&authority).await;
    assert_eq!(server.get(authority.client(None)).await, "anonymous");
    let ours = authority.sign(ExtendedKeyUsagePurpose::ClientAuth);
    assert_eq!(server.get(authority.client(Some(ours))).await, "believed");
    let serving = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
    let answer = server.get(authority.client(Some(serving))).await;
    assert_eq!(answer, "not believed", "it is no certificate for clients");
    // A foreign issuer of the same name: the client sends it, as it matches the hints.
    let foreign = Authority::new().sign(ExtendedKeyUsagePurpose::ClientAuth);
    let answer = server.get(authority.client(Some(foreign))).await;
    assert_eq!(answer, "not believed");
}

#[tokio::test]
async fn an_upgrade_is_piped_through_two_servers() {
    let authority = Authority::new();
    let echo = start(&authority).await;
    let backend = echo.backend(authority.client(None));
    let forwarder = Forwarder::new(CancellationToken::new());
    let front = service_fn({
        let forwarder = forwarder.clone();
        move |request| {
            let (forwarder, backend) = (forwarder.clone(), backend.clone());
            async move { Ok::<_, Infallible>(forwarder.forward(&backend, request).await.unwrap()) }
        }
    });
    let (chain, key) = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = certified_key(chain.as_bytes(), key.as_bytes()).unwrap();
    let tls = server_config(Arc::new(ServerCertificate::new(certificate)), None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let options = ServeOptions::default();
    let task = tokio::spawn(serve(
        listener,
        Arc::new(tls),
        front,
        options,
        shutdown.clone(),
    ));

    let name = ServerName::try_from("localhost").unwrap();
    let front = Backend {
        address,
        tls: Some((authority.client(None), name)),
    };
    let client = Forwarder::new(CancellationToken::new());
    let request = Request::post("/")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "echo")
        .body(Body::empty())
        .unwrap();
    let mut response = client.send(&front, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[header::UPGRADE], "echo");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");

    drop(stream);
    timeout(Duration::from_secs(5), forwarder.drained())
        .await
        .expect("a pipe ends when the client goes");
    shutdown.cancel();
    timeout(Duration::from_secs(5), task)
        .await
        .expect("a drained server ends")
        .unwrap();
}

#[tokio::test]
async fn a_replaced_certificate_is_presented_from_then_on() {
    let authority = Authority::new();
    let server = start(&authority).await;
    assert_eq!(server.get(authority.client(None)).await, "anonymous");
    let other = Authority::new();
    let (chain, key) = other.sign(ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = certified_key(chain.as_bytes(), key.as_bytes()).unwrap();
    server.certificate.replace(certificate);
    assert_eq!(server.get(other.client(None)).await, "anonymous");
    server.shutdown.cancel();
    timeout(Duration::from_secs(5), server.task)
        .await
        .expect("an idle server ends at once")
        .unwrap();
}
