//! What stands between kubectl and the node: a stand-in for the API server, and the certificates of
//! their connection.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use coracle_kubelet::server::{Host, MetricsPage, summary::Summary};
use coracle_transport::{
    Backend, ClientCertificates, Forwarder, ServerCertificate, certified_key, parse_certificates,
    parse_private_key, server_config,
};
use http::Uri;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde_json::{Value, json};

/// A kubelet that knows one pod.
#[derive(Default)]
pub struct OnePod(pub Mutex<Arc<Pod>>);

#[async_trait]
impl Host for OnePod {
    fn pods(&self) -> Vec<Arc<Pod>> {
        vec![self.0.lock().clone()]
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        (namespace == "default" && name == "p").then(|| self.0.lock().clone())
    }

    fn sync_loop(&self) -> Result<(), String> {
        Ok(())
    }

    async fn summary(&self, _only_cpu_and_memory: bool) -> Result<Summary, String> {
        Ok(Summary::default())
    }

    async fn metrics(&self, _page: MetricsPage) -> String {
        String::new()
    }

    fn configuration(&self) -> Value {
        json!({})
    }
}

/// What the two ends of the connection between API server and node hold.
pub struct Certificates {
    pub server: rustls::ServerConfig,
    pub client: Arc<ClientConfig>,
    pub stranger: Arc<ClientConfig>,
    pub clients: ClientCertificates,
}

pub fn certificates() -> Certificates {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let sign = |usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (chain, key) = sign(ExtendedKeyUsagePurpose::ServerAuth);
    let serving = certified_key(chain.as_bytes(), key.as_bytes()).unwrap();
    let authorities = parse_certificates(pem.as_bytes()).unwrap();
    let clients = ClientCertificates::new(&authorities).unwrap();
    let server = server_config(Arc::new(ServerCertificate::new(serving)), Some(&clients)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authorities[0].clone()).unwrap();
    let client = || {
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let (chain, key) = sign(ExtendedKeyUsagePurpose::ClientAuth);
    let chain = parse_certificates(chain.as_bytes()).unwrap();
    let key = parse_private_key(key.as_bytes()).unwrap();
    Certificates {
        server,
        client: Arc::new(client().with_client_auth_cert(chain, key).unwrap()),
        stranger: Arc::new(client().with_no_client_auth()),
        clients,
    }
}

/// The API server's stand-in.
#[derive(Clone)]
pub struct Api {
    pub forwarder: Forwarder,
    pub node: Backend,
    pub host: Arc<OnePod>,
}

impl Api {
    pub async fn answer(State(api): State<Api>, mut request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let json = |value: Value| {
            Response::builder()
                .header("content-type", "application/json")
                .body(Body::from(value.to_string()))
                .unwrap()
        };
        let pod = "/api/v1/namespaces/default/pods/p";
        if path == "/api" {
            return json(json!({"kind": "APIVersions", "versions": ["v1"]}));
        }
        if path == "/apis" {
            return json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}));
        }
        if path == "/api/v1" {
            return json(
                json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                    {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
                ]}),
            );
        }
        if path == pod {
            return json(serde_json::to_value(&**api.host.0.lock()).unwrap());
        }
        let Some(subresource) = path.strip_prefix(pod) else {
            return Response::builder()
                .status(404)
                .body(Body::from(path))
                .unwrap();
        };
        let subresource = subresource.trim_matches('/');
        let query = request.uri().query().unwrap_or_default().to_owned();
        *request.uri_mut() = node_path(subresource, &query);
        api.forwarder.forward(&api.node, request).await.unwrap()
    }
}

/// What the API server makes of a subresource.
pub fn node_path(subresource: &str, query: &str) -> Uri {
    let container = query
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("container="))
        .unwrap_or("c");
    let query = query
        .replace("=true", "=1")
        .replace("stdin=", "input=")
        .replace("stdout=", "output=")
        .replace("stderr=", "error=");
    let path = match subresource {
        "log" => format!("/containerLogs/default/p/{container}"),
        "portforward" => "/portForward/default/p".to_owned(),
        other => format!("/{other}/default/p/{container}"),
    };
    format!("{path}?{query}").parse().unwrap()
}
