//! Where a node's kubelet listens.

use async_trait::async_trait;
use axum::body::Body;
use coracle_transport::Backend;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::core::v1::Node;

use super::{Inner, NodeProxy, target::tls_backend};
use crate::{error::ApiError, resource_metrics::Source};

/// The kinds of address by which nodes are reached, the best first.
const PREFERRED: [&str; 5] = [
    "InternalIP",
    "ExternalIP",
    "Hostname",
    "InternalDNS",
    "ExternalDNS",
];
const DEFAULT_PORT: u16 = 10250;

/// A kubelet's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletAddress {
    pub host: String,
    pub port: u16,
}

/// Where the kubelet of the node says that it listens.
pub fn address_of(node: &Node) -> Result<KubeletAddress, ApiError> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let addresses = addresses.unwrap_or_default();
    let host = PREFERRED
        .iter()
        .find_map(|kind| addresses.iter().find(|address| address.type_ == *kind))
        .map(|address| address.address.clone())
        .ok_or_else(|| {
            let message = format!("no preferred addresses found; known addresses: {addresses:?}");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
        })?;
    let port = status
        .and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|&port| port > 0)
        .unwrap_or(DEFAULT_PORT);
    Ok(KubeletAddress { host, port })
}

impl Inner {
    /// The kubelet of a node.
    pub async fn kubelet(&self, node: &str, verify: bool) -> Result<Backend, ApiError> {
        let node = self.lookup.require::<Node>("", node).await?;
        let address = address_of(&node)?;
        let config = if verify {
            &self.tls.kubelets
        } else {
            &self.tls.unverified_kubelets
        };
        tls_backend(&address.host, address.port, config)
    }
}

/// What is read of a page of metrics at most: of a node with a thousand containers, and more.
const MAX_PAGE_BYTES: usize = 16 << 20;

#[async_trait]
impl Source for NodeProxy {
    async fn page(&self, node: &str) -> Result<String, String> {
        let backend = self.0.kubelet(node, true).await;
        let backend = backend.map_err(|error| error.to_string())?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/metrics/resource");
        let sent = self.0.forwarder.send(&backend, request).await;
        let answer = sent.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the kubelet answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_PAGE_BYTES)
            .collect()
            .await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        String::from_utf8(body.into()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_best_address_and_the_port_that_the_node_reports() {
        let address = |status| {
            let node = json!({"metadata": {"name": "n"}, "status": status});
            let node: Node = serde_json::from_value(node).unwrap();
            address_of(&node).map(|found| (found.host, found.port)).ok()
        };
        let both = json!([
            {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"},
        ]);
        assert_eq!(
            address(
                json!({"addresses": both, "daemonEndpoints": {"kubeletEndpoint": {"Port": 99}}})
            ),
            Some(("10.0.0.1".to_owned(), 99))
        );
        assert_eq!(
            address(json!({"addresses": [{"type": "Hostname", "address": "n"}]})),
            Some(("n".to_owned(), 10250))
        );
        assert_eq!(address(json!({})), None);
    }
}
