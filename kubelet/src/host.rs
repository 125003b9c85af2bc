//! What the node's HTTPS endpoints ask the kubelet.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    Config,
    pods::manager::Manager,
    runtime::HealthWatch,
    server::{Host, MetricsPage, summary::Summary},
    stats::Statistics,
};

/// The kubelet as its endpoints see it: there from the beginning, with something to tell once the
/// kubelet runs.
pub struct NodeHost {
    config: Config,
    running: ArcSwapOption<Running>,
}

/// The parts of a running kubelet that are asked.
pub struct Running {
    pub manager: Arc<Manager>,
    pub health: HealthWatch,
    pub statistics: Arc<Statistics>,
}

impl NodeHost {
    pub fn new(config: Config) -> Self {
        NodeHost {
            config,
            running: ArcSwapOption::empty(),
        }
    }

    /// The kubelet runs from now on, or it does not any more.
    pub fn set(&self, running: Option<Running>) {
        self.running.store(running.map(Arc::new));
    }
}

#[async_trait]
impl Host for NodeHost {
    fn pods(&self) -> Vec<Arc<Pod>> {
        let running = self.running.load();
        running
            .as_ref()
            .map(|running| running.manager.pods())
            .unwrap_or_default()
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.running.load().as_ref()?.manager.pod(namespace, name)
    }

    fn sync_loop(&self) -> Result<(), String> {
        match self.running.load().as_ref() {
            None => Err("the kubelet is starting".to_owned()),
            Some(running) => running.health.get().runtime_error().map_or(Ok(()), Err),
        }
    }

    async fn summary(&self, only_cpu_and_memory: bool) -> Result<Summary, String> {
        let Some(running) = self.running.load_full() else {
            return Err("the kubelet is starting".to_owned());
        };
        let summary = tokio::task::spawn_blocking(move || {
            let pods = running.manager.pods();
            running.statistics.summary(&pods, only_cpu_and_memory)
        });
        summary.await.map_err(|error| error.to_string())
    }

    fn metrics(&self, _page: MetricsPage) -> String {
        String::new()
    }

    fn configuration(&self) -> Value {
        let config = &self.config;
        json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "clusterDNS": config.cluster_dns,
            "clusterDomain": config.cluster_domain,
            "maxPods": config.max_pods,
            "port": config.port,
            "cgroupDriver": "cgroupfs",
            "serializeImagePulls": config.serialize_image_pulls,
            "containerLogMaxFiles": config.container_log_max_files,
            "seccompDefault": config.seccomp_default,
            "imageGCHighThresholdPercent": config.image_gc.high_threshold_percent,
            "imageGCLowThresholdPercent": config.image_gc.low_threshold_percent,
            "nodeStatusReportFrequency": format!("{}s", config.node_status_update_frequency.as_secs()),
            "nodeLeaseDurationSeconds": config.node_lease_duration.as_secs(),
        })
    }
}
