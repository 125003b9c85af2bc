//! The `kube-dns` Service, and this node's place behind it.

use std::net::IpAddr;

use coracle_client::ensure;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Config;

/// Makes sure of the Service and of an EndpointSlice that leads to `address` from this node.
pub async fn publish(client: &Client, config: &Config, address: IpAddr) -> Result<(), kube::Error> {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let service: Service = object(json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                // Upstream's name, by which `kubectl cluster-info` lists it.
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": config.cluster_dns,
            "clusterIPs": [config.cluster_dns],
            // Each node answers its own pods.
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "targetPort": config.port, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "targetPort": config.port, "protocol": "TCP"},
            ],
        },
    }));
    ensure(client, "kube-system", &service).await?;
    let slice: EndpointSlice = object(json!({
        "metadata": {
            "name": format!("kube-dns-{}", config.node_name),
            "namespace": "kube-system",
            "labels": {
                "kubernetes.io/service-name": "kube-dns",
                "endpointslice.kubernetes.io/managed-by": "coracle-dns",
            },
        },
        "addressType": family,
        "endpoints": [{
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": config.node_name,
        }],
        "ports": [
            {"name": "dns", "port": config.port, "protocol": "UDP"},
            {"name": "dns-tcp", "port": config.port, "protocol": "TCP"},
        ],
    }));
    ensure(client, "kube-system", &slice).await
}

fn object<K: DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).expect("the object is written out above")
}
