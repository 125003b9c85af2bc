//! The `proxy` subresources: HTTP requests passed on to pods, Services and nodes.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use axum::body::Body;
use coracle_transport::{Backend, Peer, is_upgrade};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Node, Pod, Service};
use serde_json::json;

use super::{
    NodeProxy, admit,
    html::{self, Links},
    kubelet::address_of,
    stream::{forget_credentials, parse},
    target::{Target, is_allowed, join, tls_backend},
};
use crate::{
    error::ApiError,
    handler::{Call, Handler},
};

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxied to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pod,
    Service,
    Node,
}

impl Kind {
    fn options(self) -> &'static str {
        match self {
            Kind::Pod => "PodProxyOptions",
            Kind::Service => "ServiceProxyOptions",
            Kind::Node => "NodeProxyOptions",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Pod => "pod",
            Kind::Service => "service",
            Kind::Node => "node",
        }
    }
}

/// Passes HTTP requests on.
pub struct Proxy {
    proxy: NodeProxy,
    kind: Kind,
}

impl Proxy {
    pub fn new(proxy: NodeProxy, kind: Kind) -> Self {
        Proxy { proxy, kind }
    }

    async fn backend(&self, namespace: &str, id: &str) -> Result<Backend, ApiError> {
        let target = Target::parse(id).ok_or_else(|| {
            let kind = self.kind.name();
            ApiError::bad_request(format!("invalid {kind} request {id:?}"))
        })?;
        match self.kind {
            Kind::Pod => self.pod(namespace, target).await,
            Kind::Service => self.service(namespace, target, id).await,
            Kind::Node => self.node(target).await,
        }
    }

    async fn pod(&self, namespace: &str, target: Target<'_>) -> Result<Backend, ApiError> {
        let lookup = &self.proxy.0.lookup;
        let pod = lookup.require::<Pod>(namespace, target.name).await?;
        let port = if target.port.is_empty() {
            first_port(&pod).unwrap_or(if target.https { 443 } else { 80 })
        } else {
            port_number(target.port)?
        };
        let address = pod_ip(&pod);
        if !is_allowed(address) {
            return Err(ApiError::bad_request("address not allowed"));
        }
        self.anyone(address, port, target.https)
    }

    async fn service(
        &self,
        namespace: &str,
        target: Target<'_>,
        id: &str,
    ) -> Result<Backend, ApiError> {
        let lookup = &self.proxy.0.lookup;
        let name = target.name;
        let mut port = target.port.to_owned();
        if let Ok(number) = target.port.parse::<i32>() {
            let service = lookup.require::<Service>(namespace, name).await?;
            let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
            let found = ports.into_iter().flatten().find(|port| port.port == number);
            let found = found.ok_or_else(|| {
                let message = format!("no service port {number} found for service {name:?}");
                ApiError::service_unavailable(message)
            })?;
            port = found.name.clone().unwrap_or_default();
        }
        let endpoints = lookup.require::<Endpoints>(namespace, name).await?;
        let subsets = endpoints.subsets.as_deref().unwrap_or_default();
        let none = |of: &str| {
            ApiError::service_unavailable(format!("no endpoints available for service {of:?}"))
        };
        if subsets.is_empty() {
            return Err(none(name));
        }
        let mut usable = Vec::new();
        for subset in subsets {
            let ports = subset.ports.as_deref().unwrap_or_default();
            let of_name = ports
                .iter()
                .find(|of| of.name.as_deref().unwrap_or_default() == port);
            let Some(port) = of_name.and_then(|port| u16::try_from(port.port).ok()) else {
                continue;
            };
            for address in subset.addresses.iter().flatten() {
                if self.is_pod(address).await? {
                    usable.push((address.ip.as_str(), port));
                }
            }
        }
        if usable.is_empty() {
            return Err(none(id));
        }
        let turn = self.proxy.0.turn.fetch_add(1, Ordering::Relaxed);
        let (address, port) = usable[turn % usable.len()];
        self.anyone(address, port, target.https)
    }

    /// Endpoints that anybody may write must not lead to where only this server can go.
    async fn is_pod(&self, address: &EndpointAddress) -> Result<bool, ApiError> {
        let Some(reference) = &address.target_ref else {
            return Ok(false);
        };
        if reference.kind.as_deref() != Some("Pod") {
            return Ok(false);
        }
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        let pod = self.proxy.0.lookup.get::<Pod>(namespace, name).await?;
        Ok(pod.is_some_and(|pod| {
            let status = pod.status.as_ref();
            let ips = status.and_then(|status| status.pod_ips.as_deref());
            let mut ips = ips.unwrap_or_default().iter();
            ips.any(|ip| ip.ip == address.ip) || pod_ip(&pod) == address.ip
        }) && is_allowed(&address.ip))
    }

    async fn node(&self, target: Target<'_>) -> Result<Backend, ApiError> {
        let inner = &self.proxy.0;
        let node = inner.lookup.require::<Node>("", target.name).await?;
        let kubelet = address_of(&node)?;
        if kubelet.host.parse::<std::net::IpAddr>().is_ok() && !is_allowed(&kubelet.host) {
            return Err(ApiError::bad_request("address not allowed"));
        }
        if target.port.is_empty() || target.port == kubelet.port.to_string() {
            return tls_backend(&kubelet.host, kubelet.port, &inner.tls.kubelets);
        }
        self.anyone(&kubelet.host, port_number(target.port)?, target.https)
    }

    fn anyone(&self, host: &str, port: u16, https: bool) -> Result<Backend, ApiError> {
        if https {
            tls_backend(host, port, &self.proxy.0.tls.anyone)
        } else {
            Ok(Backend {
                address: join(host, port),
                tls: None,
            })
        }
    }
}

#[async_trait]
impl Handler for Proxy {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let (server, context, resource) = (call.server, call.context, call.resource);
        let info = &context.info;
        let rest = format!("/{}", info.rest);
        let options = json!({
            "apiVersion": "v1", "kind": self.kind.options(), "path": rest,
        });
        admit(server, context, resource, &options).await?;
        let backend = self.backend(&info.namespace, &info.name).await?;
        let path = context.parts.uri.path();
        let upgrade = is_upgrade(context.headers());
        let reading = matches!(context.parts.method, Method::GET | Method::HEAD);
        if info.rest.is_empty() && !path.ends_with('/') && reading && !upgrade {
            return Ok(redirect(&context.parts.uri));
        }
        let prefix = path
            .strip_suffix(&info.rest)
            .unwrap_or(path)
            .trim_end_matches('/')
            .to_owned();
        let query = context.parts.uri.query();
        let location = match query {
            Some(query) => format!("{rest}?{query}"),
            None => rest.clone(),
        };
        let authority = context.parts.uri.authority().cloned();
        let mut request = call.into_request();
        *request.uri_mut() = parse(&location)?;
        forget_credentials(&mut request);
        // HTTP/2 has the host in the URI.
        if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        let peer = request.extensions().get::<Peer>().cloned();
        let headers = request.headers_mut();
        if let Ok(uri) = HeaderValue::from_str(&format!("{prefix}{rest}")) {
            headers.insert(FORWARDED_URI, uri);
        }
        if let Some(peer) = peer {
            add_forwarded_for(headers, &peer.address.ip().to_string());
        }
        let host = headers.get(header::HOST).cloned();
        let forwarded = self.proxy.0.forwarder.forward(&backend, request).await;
        let response = forwarded.map_err(|error| {
            if upgrade {
                ApiError::internal(format!("error dialing backend: {error}"))
            } else {
                let message = format!("error trying to reach service: {error}");
                ApiError::service_unavailable(message)
            }
        })?;
        let links = Links {
            prefix,
            backend: backend.address.clone(),
            request_host: host
                .and_then(|host| host.to_str().ok().map(str::to_owned))
                .unwrap_or_default(),
        };
        html::rewrite(response, &links).await
    }
}

/// Relative links only work below a slash.
fn redirect(uri: &Uri) -> Response<Body> {
    let location = match uri.query() {
        Some(query) => format!("{}/?{query}", uri.path()),
        None => format!("{}/", uri.path()),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn add_forwarded_for(headers: &mut HeaderMap, address: &str) {
    let before = headers
        .get(&FORWARDED_FOR)
        .and_then(|value| value.to_str().ok());
    let value = match before {
        Some(before) => format!("{before}, {address}"),
        None => address.to_owned(),
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn pod_ip(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    let first = status
        .and_then(|status| status.pod_ips.as_ref()?.first())
        .map(|ip| ip.ip.as_str());
    first
        .or_else(|| status?.pod_ip.as_deref())
        .unwrap_or_default()
}

/// The first port that a container of the pod names.
fn first_port(pod: &Pod) -> Option<u16> {
    let containers = &pod.spec.as_ref()?.containers;
    let port = containers
        .iter()
        .find_map(|container| container.ports.as_ref()?.first())?;
    u16::try_from(port.container_port).ok()
}

fn port_number(port: &str) -> Result<u16, ApiError> {
    port.parse().map_err(|_| {
        let message =
            format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port");
        ApiError::service_unavailable(message)
    })
}
