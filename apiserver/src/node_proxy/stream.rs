//! `exec`, `attach` and `portforward`: an upgraded connection between the client and the
//! kubelet of the pod's node.

use async_trait::async_trait;
use axum::body::Body;
use coracle_transport::is_upgrade;
use http::{Request, Response, Uri, header};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    NodeProxy, admit,
    options::{StreamOptions, container, ports},
};
use crate::{
    authz::Attributes,
    error::ApiError,
    handler::{Call, Handler},
    query::Query,
};

/// Which subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Exec,
    Attach,
    PortForward,
}

/// Opens sessions.
pub struct Stream {
    proxy: NodeProxy,
    kind: Kind,
}

impl Stream {
    pub fn new(proxy: NodeProxy, kind: Kind) -> Self {
        Stream { proxy, kind }
    }

    /// Where the session is at the kubelet, and the options as admission sees them.
    fn location(&self, pod: &Pod, query: &Query<'_>) -> Result<(String, Value), ApiError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let (path, options_kind) = match self.kind {
            Kind::Exec => ("exec", "PodExecOptions"),
            Kind::Attach => ("attach", "PodAttachOptions"),
            Kind::PortForward => {
                let ports = ports(query)?;
                let options = json!({
                    "apiVersion": "v1", "kind": "PodPortForwardOptions", "ports": ports,
                });
                let mut path = format!("/portForward/{namespace}/{name}");
                if !ports.is_empty() {
                    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                    path.push_str(&format!("?port={}", ports.join("%2C")));
                }
                return Ok((path, options));
            }
        };
        let mut options = StreamOptions::parse(query);
        if self.kind == Kind::Attach {
            options.command.clear();
        }
        let json = options.to_json(options_kind);
        let container = container(pod, &options.container)?;
        let query = options.to_query();
        Ok((
            format!("/{path}/{namespace}/{name}/{container}?{query}"),
            json,
        ))
    }
}

#[async_trait]
impl Handler for Stream {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let (server, context, resource) = (call.server, call.context, call.resource);
        let info = &context.info;
        // A WebSocket is opened by GET, but what it does is no reading.
        if info.verb != "create" {
            let attributes = Attributes::of_request(&context.user, info);
            let create = Attributes {
                verb: "create",
                ..attributes
            };
            server.allow(&create).await?;
        }
        let pod = self
            .proxy
            .0
            .lookup
            .require::<Pod>(&info.namespace, &info.name)
            .await?;
        let query = Query::parse(context.query());
        let (location, options) = self.location(&pod, &query)?;
        admit(server, context, resource, &options).await?;
        let node = node_of(&pod).ok_or_else(|| {
            let message = format!("pod {} does not have a host assigned", info.name);
            ApiError::bad_request(message)
        })?;
        let backend = self.proxy.0.kubelet(node, true).await?;
        if !is_upgrade(context.headers()) {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        let mut request = call.into_request();
        *request.uri_mut() = parse(&location)?;
        forget_credentials(&mut request);
        let forwarded = self.proxy.0.forwarder.forward(&backend, request).await;
        forwarded.map_err(|error| ApiError::internal(format!("error dialing backend: {error}")))
    }
}

/// The node that the pod is on.
pub fn node_of(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref();
    node.filter(|node| !node.is_empty())
}

pub fn parse(location: &str) -> Result<Uri, ApiError> {
    location.parse().map_err(ApiError::internal)
}

/// What the client proved itself with is not for others.
pub fn forget_credentials(request: &mut Request<Body>) {
    request.headers_mut().remove(header::AUTHORIZATION);
}
