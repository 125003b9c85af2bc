//! Requests passed on to a kubelet and a pod that say what they got.

use std::{
    convert::Infallible,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use axum::body::Body;
use coracle_transport::{
    ClientCertificates, ClientIdentity, ServeOptions, ServerCertificate, certified_key,
    parse_certificates, serve, server_config,
};
use http::{Method, Request, Response, StatusCode, header};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::service_fn;

use super::{NodeProxy, NodeTls, target::is_allowed};
use crate::{
    Config, Lookup, Plugins,
    handler::Handlers,
    testing::{Answer, TestServer},
};

struct Fixture {
    server: TestServer,
    _shutdown: DropGuard,
}

/// Says what was asked, or fails as the path says.
async fn echo(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().to_string();
    let code = match path.as_str() {
        path if path.contains("/waiting") => StatusCode::BAD_REQUEST,
        path if path.contains("/gone") => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    let credentials = request.headers().contains_key(header::AUTHORIZATION);
    let body = if path == "/page" {
        "<a href=\"/x\">".to_owned()
    } else {
        format!("{} {path} {credentials}", request.method())
    };
    let response = Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "text/html");
    Ok(response.body(Body::from(body)).unwrap())
}

impl Fixture {
    async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let sign = |usage| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let key = key.serialize_pem();
            certified_key(certificate.pem().as_bytes(), key.as_bytes()).unwrap()
        };
        let authorities = parse_certificates(pem.as_bytes()).unwrap();
        let clients = ClientCertificates::new(&authorities).unwrap();
        let serving = ServerCertificate::new(sign(ExtendedKeyUsagePurpose::ServerAuth));
        let tls = server_config(Arc::new(serving), Some(&clients)).unwrap();
        let shutdown = CancellationToken::new();
        let kubelet = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = kubelet.local_addr().unwrap().port();
        let options = ServeOptions::default();
        let echo = service_fn(echo);
        tokio::spawn(serve(
            kubelet,
            Arc::new(tls),
            echo,
            options,
            shutdown.clone(),
        ));
        let identity = ClientIdentity::new(sign(ExtendedKeyUsagePurpose::ClientAuth));
        let tls = NodeTls::new(&authorities, Arc::new(identity)).unwrap();
        let ends = shutdown.clone();
        let server = TestServer::with(Config::default(), |registry| {
            let proxy = NodeProxy::new(Lookup::new(registry.clone()), tls, ends);
            Plugins {
                handlers: Handlers::new(proxy.handlers()),
                ..Plugins::default()
            }
        })
        .await;
        let fixture = Fixture {
            server,
            _shutdown: shutdown.drop_guard(),
        };
        let node = json!({
            "metadata": {"name": "n"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            },
        });
        fixture.create("/api/v1/nodes", &node).await;
        fixture.pod("p", &["a"], json!({})).await;
        fixture.pod("waiting", &["a", "b"], json!({})).await;
        fixture
    }

    /// Creates the object and then its status.
    async fn create(&self, path: &str, object: &Value) {
        let answer = self.server.post(path, object).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
        let mut created = answer.json();
        created["status"] = object["status"].clone();
        let name = object["metadata"]["name"].as_str().unwrap();
        let answer = self
            .server
            .put(&format!("{path}/{name}/status"), &created)
            .await;
        assert!(answer.code.is_success(), "{}", answer.message());
    }

    async fn pod(&self, name: &str, containers: &[&str], status: Value) {
        let containers: Vec<Value> = containers
            .iter()
            .map(|name| json!({"name": name, "image": "i"}))
            .collect();
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": containers, "nodeName": "n"},
            "status": status,
        });
        self.create("/api/v1/namespaces/default/pods", &pod).await;
    }

    async fn get(&self, path: &str) -> Answer {
        self.server.get(path).await
    }

    async fn text(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        (answer.code.as_u16(), text)
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn logs_come_from_the_kubelet_of_the_pods_node() {
    let fixture = Fixture::start().await;
    let answer = fixture
        .get(&format!("{PODS}/p/log?tailLines=5&container="))
        .await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain");
    assert_eq!(
        answer.body,
        "GET /containerLogs/default/p/a?tailLines=5 false"
    );
    let answer = fixture.get(&format!("{PODS}/waiting/log")).await;
    assert_eq!(
        answer.message(),
        "a container name must be specified for pod waiting, choose one of: [a b]"
    );
    // What the kubelet refuses keeps its text.
    let answer = fixture
        .get(&format!("{PODS}/waiting/log?container=b"))
        .await;
    assert_eq!(answer.code, 400);
    assert!(
        answer
            .message()
            .starts_with("GET /containerLogs/default/waiting/b"),
        "{}",
        answer.message()
    );
    let answer = fixture.get(&format!("{PODS}/none/log")).await;
    assert_eq!(answer.message(), "pods \"none\" not found");
    let answer = fixture.get(&format!("{PODS}/p/log?tailLines=-1")).await;
    assert_eq!(answer.code, 422);
}

#[tokio::test]
async fn sessions_need_an_upgrade_and_a_container() {
    let fixture = Fixture::start().await;
    let send = async |path: &str| {
        let path = format!("{PODS}/{path}");
        let answer = fixture.server.send(Method::POST, &path, &Value::Null).await;
        (answer.code.as_u16(), answer.message())
    };
    assert_eq!(
        send("p/exec?command=ls&stdout=true").await,
        (400, "Upgrade request required".to_owned())
    );
    assert_eq!(
        send("p/attach?container=x").await,
        (400, "container x is not valid for pod p".to_owned())
    );
    // An upgrade that the kubelet does not make is answered with what it says.
    let request = Request::post(format!("{PODS}/p/exec?command=a+b&stdout=true&stdin=true"))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header(header::AUTHORIZATION, "Bearer secret")
        .body(Body::empty())
        .unwrap();
    let answer = fixture.server.request(request).await;
    assert_eq!(
        answer.body,
        "POST /exec/default/p/a?input=1&output=1&command=a+b false"
    );
    let request = Request::get(format!("{PODS}/p/portforward?ports=80,81"))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .body(Body::empty())
        .unwrap();
    let answer = fixture.server.request(request).await;
    assert_eq!(answer.body, "GET /portForward/default/p?port=80%2C81 false");
}

/// An address of this machine that requests may be passed on to.
fn own_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("10.255.255.255:1").ok()?;
    let address = socket.local_addr().ok()?;
    is_allowed(&address.ip().to_string()).then_some(address)
}

#[tokio::test]
async fn pods_and_services_are_proxied_to() {
    let fixture = Fixture::start().await;
    assert_eq!(
        fixture.get("/api/v1/nodes/n/proxy/healthz").await.message(),
        "address not allowed",
        "it is the loopback's"
    );
    let Some(address) = own_address() else {
        return;
    };
    let listener = TcpListener::bind((address.ip(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new().fallback_service(service_fn(echo));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let ip = address.ip().to_string();
    let status = json!({"podIP": ip, "podIPs": [{"ip": ip}]});
    fixture.pod("web", &["a"], status).await;

    let proxy = format!("{PODS}/web:{port}/proxy");
    assert_eq!(
        fixture.text(&format!("{proxy}/a%20b/?x=1")).await,
        (200, "GET /a%20b/?x=1 false".to_owned())
    );
    assert_eq!(
        fixture.text(&format!("{proxy}/page")).await,
        (200, format!("<a href=\"{proxy}/x\">"))
    );
    let answer = fixture.get(&format!("{proxy}?x=1")).await;
    assert_eq!(answer.code, 301);
    assert_eq!(answer.headers[header::LOCATION], format!("{proxy}/?x=1"));
    let answer = fixture
        .server
        .send(Method::OPTIONS, &proxy, &Value::Null)
        .await;
    assert_eq!(answer.code, 200);
    assert_eq!(&*answer.body, b"OPTIONS / false");
    let answer = fixture.get(&format!("{PODS}/web:1/proxy/")).await;
    assert_eq!(answer.code, 503);
    assert!(
        answer
            .message()
            .contains("error trying to reach service: dial tcp")
            && answer.message().contains("connect: connection refused"),
        "{}",
        answer.message()
    );

    let endpoints = json!({
        "metadata": {"name": "s"},
        "subsets": [{
            "addresses": [{"ip": ip, "targetRef": {"kind": "Pod", "namespace": "default", "name": "web"}}],
            "ports": [{"name": "http", "port": port}],
        }],
    });
    let answer = fixture
        .server
        .post("/api/v1/namespaces/default/endpoints", &endpoints)
        .await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(
        fixture.text(&format!("{services}/s:http/proxy/x")).await,
        (200, "GET /x false".to_owned())
    );
    let answer = fixture.get(&format!("{services}/s:other/proxy/x")).await;
    assert_eq!(
        answer.message(),
        "no endpoints available for service \"s:other\""
    );
}
