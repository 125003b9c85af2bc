//! The pages of metrics: `/metrics`, `/metrics/cadvisor` and `/metrics/probes`.
//!
//! What is counted as it happens is in [`crate::metrics`]; the rest is read off here when somebody
//! asks.

use std::{fs, sync::Arc};

use coracle_metrics::{Description, Kind, Page, Stability};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    cgroups::Cgroups,
    metrics::{FAMILIES, PROBE_FAMILIES},
    pods::status::is_terminal,
    server::summary::{FsStats, Summary},
    stats::{Measured, Statistics},
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

/// `/metrics/cadvisor`: what containers use, under cAdvisor's names.
pub fn cadvisor(page: &mut Page, statistics: &Statistics, pods: &[Arc<Pod>]) {
    machine(page);
    let measured = statistics.measure(pods);
    containers(page, &measured);
    networks(page, &measured);
}

fn machine(page: &mut Page) {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let labels = ["boot_id", "machine_id", "system_uuid"];
    let values = [
        read("/proc/sys/kernel/random/boot_id"),
        read("/etc/machine-id"),
        read("/sys/class/dmi/id/product_uuid"),
    ];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (description, value) in [
        (
            plain(
                "machine_cpu_cores",
                "Processors of the machine, counting threads.",
            ),
            cores as f64,
        ),
        (
            plain(
                "machine_memory_bytes",
                "Bytes of memory that the machine has.",
            ),
            crate::stats::machine_memory().unwrap_or(0) as f64,
        ),
    ] {
        page.family(&description, Kind::Gauge, &labels, |samples| {
            samples.add(&values.each_ref().map(String::as_str), value);
        });
    }
}

const CONTAINER: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

fn containers(page: &mut Page, measured: &[Measured]) {
    let cpu = plain(
        "container_cpu_usage_seconds_total",
        "Processor time used so far, in seconds.",
    );
    let labels = [
        "container",
        "cpu",
        "id",
        "image",
        "name",
        "namespace",
        "pod",
    ];
    page.family(&cpu, Kind::Counter, &labels, |samples| {
        for of in measured {
            let [container, id, image, name, namespace, pod] = of.labels();
            if let Some(nanos) = of.usage.cpu_nanos {
                let values = [container, "total", id, image, name, namespace, pod];
                samples.add(&values, nanos as f64 / 1e9);
            }
        }
    });
    type Figure = fn(&Measured) -> Option<f64>;
    let gauges: [(Description, Figure); 5] = [
        (
            plain(
                "container_memory_usage_bytes",
                "Bytes of memory in use, page cache included.",
            ),
            |of| Some(of.usage.memory.as_ref()?.usage as f64),
        ),
        (
            plain(
                "container_memory_working_set_bytes",
                "Bytes of memory in use that cannot easily be freed.",
            ),
            |of| Some(of.usage.memory.as_ref()?.working_set as f64),
        ),
        (
            plain(
                "container_memory_rss",
                "Bytes of memory that belong to no file.",
            ),
            |of| Some(of.usage.memory.as_ref()?.rss as f64),
        ),
        (
            plain(
                "container_spec_memory_limit_bytes",
                "Bytes of memory allowed; 0 without a limit.",
            ),
            |of| Some(of.usage.memory.as_ref()?.limit.unwrap_or(0) as f64),
        ),
        (
            plain(
                "container_start_time_seconds",
                "When it was started, in seconds since 1970.",
            ),
            |of| of.started,
        ),
    ];
    for (description, figure) in gauges {
        page.family(&description, Kind::Gauge, &CONTAINER, |samples| {
            for of in measured {
                if let Some(value) = figure(of) {
                    samples.add(&of.labels(), value);
                }
            }
        });
    }
    let last = plain(
        "container_last_seen",
        "When it was last measured, in seconds since 1970.",
    );
    let now = jiff::Timestamp::now().as_second() as f64;
    page.family(&last, Kind::Gauge, &CONTAINER, |samples| {
        for of in measured {
            samples.add(&of.labels(), now);
        }
    });
    let faults = plain(
        "container_memory_failures_total",
        "Page faults so far, by type.",
    );
    let labels = [
        "container",
        "failure_type",
        "id",
        "image",
        "name",
        "namespace",
        "pod",
        "scope",
    ];
    page.family(&faults, Kind::Counter, &labels, |samples| {
        for of in measured {
            let [container, id, image, name, namespace, pod] = of.labels();
            let Some(memory) = &of.usage.memory else {
                continue;
            };
            for (fault, count) in [
                ("pgfault", memory.page_faults),
                ("pgmajfault", memory.major_page_faults),
            ] {
                let values = [
                    container,
                    fault,
                    id,
                    image,
                    name,
                    namespace,
                    pod,
                    "hierarchy",
                ];
                samples.add(&values, count as f64);
            }
        }
    });
}

fn networks(page: &mut Page, measured: &[Measured]) {
    use crate::stats::network::Interface;
    type Figure = fn(&Interface) -> u64;
    let figures: [(Description, Figure); 8] = [
        (
            plain(
                "container_network_receive_bytes_total",
                "Bytes that came in.",
            ),
            |of| of.received.bytes,
        ),
        (
            plain(
                "container_network_receive_errors_total",
                "Packets that came in broken.",
            ),
            |of| of.received.errors,
        ),
        (
            plain(
                "container_network_receive_packets_dropped_total",
                "Packets that came in and were dropped.",
            ),
            |of| of.received.dropped,
        ),
        (
            plain(
                "container_network_receive_packets_total",
                "Packets that came in.",
            ),
            |of| of.received.packets,
        ),
        (
            plain(
                "container_network_transmit_bytes_total",
                "Bytes that went out.",
            ),
            |of| of.sent.bytes,
        ),
        (
            plain(
                "container_network_transmit_errors_total",
                "Packets that failed to go out.",
            ),
            |of| of.sent.errors,
        ),
        (
            plain(
                "container_network_transmit_packets_dropped_total",
                "Packets dropped on their way out.",
            ),
            |of| of.sent.dropped,
        ),
        (
            plain(
                "container_network_transmit_packets_total",
                "Packets that went out.",
            ),
            |of| of.sent.packets,
        ),
    ];
    let labels = [
        "container",
        "id",
        "image",
        "interface",
        "name",
        "namespace",
        "pod",
    ];
    for (description, figure) in figures {
        page.family(&description, Kind::Counter, &labels, |samples| {
            for of in measured {
                let [container, id, image, name, namespace, pod] = of.labels();
                for interface in &of.interfaces {
                    let values = [container, id, image, &interface.name, name, namespace, pod];
                    samples.add(&values, figure(interface) as f64);
                }
            }
        });
    }
}
