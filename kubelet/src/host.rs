//! What the node's HTTPS endpoints ask the kubelet.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use coracle_metrics::Page;
use k8s_cri::v1::ListContainerStatsRequest;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    Config,
    cri::Cri,
    pages,
    pods::manager::Manager,
    runtime::HealthWatch,
    server::{Host, MetricsPage, summary::Summary},
    stats::{Disks, Statistics},
    volumes::Volumes,
};

/// The kubelet as its endpoints see it: there from the beginning, with something to tell once the
/// kubelet runs.
pub struct NodeHost {
    config: Config,
    /// What else of the process the page of metrics shows.
    others: Mutex<Vec<fn(&mut Page)>>,
    running: ArcSwapOption<Running>,
}

/// The parts of a running kubelet that are asked.
pub struct Running {
    pub manager: Arc<Manager>,
    pub health: HealthWatch,
    pub statistics: Arc<Statistics>,
    pub cri: Cri,
    pub volumes: Volumes,
}

impl Running {
    /// Reads the figures; blocks a thread of its own meanwhile.
    async fn summary(self: Arc<Self>, only_cpu_and_memory: bool) -> Result<Summary, String> {
        let disks = match only_cpu_and_memory {
            true => None,
            false => Some(Disks {
                volumes: self.volumes.mounted(),
                layers: layers(&self.cri).await,
            }),
        };
        let summary = tokio::task::spawn_blocking(move || {
            let pods = self.manager.pods();
            self.statistics.summary(&pods, disks.as_ref())
        });
        summary.await.map_err(|error| error.to_string())
    }
}

/// What the writable layers of containers take, as far as the runtime knows.
async fn layers(cri: &Cri) -> HashMap<String, (u64, u64)> {
    let request = ListContainerStatsRequest::default();
    let listed = cri.runtime.clone().list_container_stats(request).await;
    let stats = listed.map(|listed| listed.into_inner().stats);
    let stats = stats.unwrap_or_default().into_iter();
    stats
        .filter_map(|stats| {
            let layer = stats.writable_layer?;
            let bytes = layer.used_bytes.map_or(0, |used| used.value);
            let files = layer.inodes_used.map_or(0, |used| used.value);
            Some((stats.attributes?.id, (bytes, files)))
        })
        .collect()
}

impl NodeHost {
    pub fn new(config: Config) -> Self {
        NodeHost {
            config,
            others: Mutex::default(),
            running: ArcSwapOption::empty(),
        }
    }

    /// Has the page of metrics show more.
    pub fn show(&self, other: fn(&mut Page)) {
        self.others.lock().push(other);
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
        running.summary(only_cpu_and_memory).await
    }

    async fn metrics(&self, page: MetricsPage) -> String {
        let running = self.running.load_full();
        let mut shown = Page::default();
        match page {
            MetricsPage::Probes => pages::probes(&mut shown),
            MetricsPage::Cadvisor => {
                if let Some(running) = running {
                    let measured = tokio::task::spawn_blocking(move || {
                        let mut shown = Page::default();
                        let pods = running.manager.pods();
                        pages::cadvisor(&mut shown, &running.statistics, &pods);
                        shown
                    });
                    shown = measured.await.unwrap_or_default();
                }
            }
            MetricsPage::Kubelet => {
                pages::kubelet(&mut shown, &self.config.node_name);
                if let Some(running) = running {
                    pages::pods(&mut shown, &running.manager.pods());
                    if let Ok(summary) = running.summary(false).await {
                        pages::volumes(&mut shown, &summary);
                    }
                }
                shown.add(coracle_client::metrics());
                coracle_metrics::process(&mut shown);
                coracle_metrics::version(&mut shown, coracle_api::VERSION);
                let others = self.others.lock().clone();
                for other in others {
                    other(&mut shown);
                }
                shown.show_registered();
            }
        }
        shown.render()
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
