//! The pages of metrics: `/metrics`, `/metrics/cadvisor` and `/metrics/probes`.
//!
//! What is counted as it happens is in [`crate::metrics`]; the rest is read off here when somebody
//! asks.

mod cadvisor;

use std::sync::Arc;

use coracle_metrics::{Description, Kind, Page, Stability};
use k8s_openapi::api::core::v1::Pod;

pub use cadvisor::cadvisor;

use crate::{
    cgroups::Cgroups,
    metrics::{FAMILIES, PROBE_FAMILIES},
    pods::status::is_terminal,
    server::summary::{FsStats, Summary},
};

const fn alpha(name: &'static str, help: &'static str) -> Description {
    Description {
        name,
        stability: Stability::Alpha,
        help,
    }
}

const fn plain(name: &'static str, help: &'static str) -> Description {
    Description {
        name,
        stability: Stability::None,
        help,
    }
}

/// `/metrics/probes`
pub fn probes(page: &mut Page) {
    page.add(PROBE_FAMILIES);
}

/// The kubelet's part of `/metrics`.
pub fn kubelet(page: &mut Page, node: &str) {
    page.add(FAMILIES);
    let name = alpha("kubelet_node_name", "1, with the name of the node.");
    page.family(&name, Kind::Gauge, &["node"], |samples| {
        samples.add(&[node], 1.0)
    });
    let version = alpha(
        "kubelet_cgroup_version",
        "Version of the node's control groups: 1 or 2.",
    );
    page.family(&version, Kind::Gauge, &[], |samples| {
        samples.add(&[], if Cgroups::detect().is_v2() { 2.0 } else { 1.0 });
    });
    // The kubelet's own way to the API needs no certificate, which never expires.
    let ttl = alpha(
        "kubelet_certificate_manager_client_ttl_seconds",
        "Seconds for which the client certificate is still good; below zero once expired, +Inf without one.",
    );
    page.family(&ttl, Kind::Gauge, &[], |samples| {
        samples.add(&[], f64::INFINITY)
    });
}

/// How many pods and containers there are.
pub fn pods(page: &mut Page, pods: &[Arc<Pod>]) {
    let statuses = || pods.iter().filter_map(|pod| pod.status.as_ref());
    let ended = |pod: &&Arc<Pod>| {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        phase.is_some_and(is_terminal)
    };
    let (mut running, mut exited, mut created) = (0, 0, 0);
    let mut sandboxes = 0;
    for status in statuses() {
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let mut any = false;
        for state in lists
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|it| it.state.as_ref())
        {
            if state.running.is_some() {
                (running, any) = (running + 1, true);
            } else if state.terminated.is_some() {
                exited += 1;
            } else {
                created += 1;
            }
        }
        sandboxes += usize::from(any);
    }
    let gauge = |page: &mut Page, description, value: usize| {
        page.family(&description, Kind::Gauge, &[], |samples| {
            samples.add(&[], value as f64)
        });
    };
    gauge(
        page,
        alpha("kubelet_running_pods", "Pods whose sandbox runs."),
        sandboxes,
    );
    let containers = alpha("kubelet_running_containers", "Containers by state.");
    page.family(&containers, Kind::Gauge, &["container_state"], |samples| {
        for (state, count) in [
            ("created", created),
            ("exited", exited),
            ("running", running),
        ] {
            samples.add(&[state], f64::from(count));
        }
    });
    let active = pods.iter().filter(|pod| !ended(pod)).count();
    for (description, count) in [
        (
            alpha(
                "kubelet_active_pods",
                "Pods that take room on the node; static ones are not from the API server.",
            ),
            active,
        ),
        (
            alpha(
                "kubelet_desired_pods",
                "Pods that the node is told to run; static ones are not from the API server.",
            ),
            pods.len(),
        ),
    ] {
        page.family(&description, Kind::Gauge, &["static"], |samples| {
            samples.add(&["false"], count as f64);
        });
    }
}

/// `kubelet_volume_stats_*`: of volumes that are claims.
pub fn volumes(page: &mut Page, summary: &Summary) {
    type Figure = fn(&FsStats) -> Option<u64>;
    let figures: [(Description, Figure); 6] = [
        (
            alpha(
                "kubelet_volume_stats_available_bytes",
                "Bytes free in a volume.",
            ),
            |fs| fs.available_bytes,
        ),
        (
            alpha(
                "kubelet_volume_stats_capacity_bytes",
                "Bytes that a volume can hold.",
            ),
            |fs| fs.capacity_bytes,
        ),
        (
            alpha(
                "kubelet_volume_stats_inodes",
                "Inodes that a volume can hold.",
            ),
            |fs| fs.inodes,
        ),
        (
            alpha(
                "kubelet_volume_stats_inodes_free",
                "Inodes free in a volume.",
            ),
            |fs| fs.inodes_free,
        ),
        (
            alpha(
                "kubelet_volume_stats_inodes_used",
                "Inodes in use in a volume.",
            ),
            |fs| fs.inodes_used,
        ),
        (
            alpha(
                "kubelet_volume_stats_used_bytes",
                "Bytes in use in a volume.",
            ),
            |fs| fs.used_bytes,
        ),
    ];
    let mut claims: Vec<_> = summary
        .pods
        .iter()
        .flat_map(|pod| &pod.volume)
        .filter_map(|volume| Some((volume.pvc_ref.as_ref()?, &volume.fs)))
        .collect();
    claims.sort_by_key(|(claim, _)| (&claim.namespace, &claim.name));
    // Several pods may share one.
    claims.dedup_by_key(|(claim, _)| (&claim.namespace, &claim.name));
    let labels = ["namespace", "persistentvolumeclaim"];
    for (description, figure) in figures {
        page.family(&description, Kind::Gauge, &labels, |samples| {
            for (claim, fs) in &claims {
                if let Some(value) = figure(fs) {
                    samples.add(&[&claim.namespace, &claim.name], value as f64);
                }
            }
        });
    }
    let logs = alpha(
        "kubelet_container_log_filesystem_used_bytes",
        "Bytes that the logs of a container take.",
    );
    let labels = ["container", "namespace", "pod", "uid"];
    page.family(&logs, Kind::Gauge, &labels, |samples| {
        for pod in &summary.pods {
            let of = &pod.pod_ref;
            for container in &pod.containers {
                let logs = container.logs.as_ref();
                if let Some(used) = logs.and_then(|logs| logs.used_bytes) {
                    samples.add(
                        &[&container.name, &of.namespace, &of.name, &of.uid],
                        used as f64,
                    );
                }
            }
        }
    });
}
