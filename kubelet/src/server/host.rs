//! What the node's endpoints ask the rest of the kubelet.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::summary::Summary;

/// Which of the kubelet's own metrics are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsPage {
    /// `/metrics`
    Kubelet,
    /// `/metrics/cadvisor`
    Cadvisor,
    /// `/metrics/probes`
    Probes,
}

/// The kubelet behind its endpoints.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// The pods bound to this node, with the status that the kubelet knows.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// One of [`Host::pods`].
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;

    /// Whether pods are being synchronised; what is wrong otherwise.
    fn sync_loop(&self) -> Result<(), String>;

    /// Resource usage of node, pods and containers. `only_cpu_and_memory` is cheaper, and
    /// fresh rather than cached.
    async fn summary(&self, only_cpu_and_memory: bool) -> Result<Summary, String>;

    /// A page of metrics in Prometheus' text format.
    async fn metrics(&self, page: MetricsPage) -> String;

    /// The `KubeletConfiguration` in use.
    fn configuration(&self) -> Value;
}
