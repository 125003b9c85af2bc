//! `/metrics/cadvisor`: what containers and pods use, under cAdvisor's names.

use std::{fs, sync::Arc};

use coracle_metrics::{Kind, Page};
use k8s_openapi::api::core::v1::Pod;

use super::plain;
use crate::stats::{Measured, Statistics};

/// Measures now.
pub fn cadvisor(page: &mut Page, statistics: &Statistics, pods: &[Arc<Pod>]) {
    machine(page);
    let measured = statistics.measure(pods);
    containers(page, &measured);
    throttling(page, &measured);
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
    for (name, help, value) in [
        (
            "machine_cpu_cores",
            "Processors of the machine, counting threads.",
            cores as f64,
        ),
        (
            "machine_memory_bytes",
            "Bytes of memory that the machine has.",
            crate::stats::machine_memory().unwrap_or(0) as f64,
        ),
    ] {
        page.family(&plain(name, help), Kind::Gauge, &labels, |samples| {
            samples.add(&values.each_ref().map(String::as_str), value);
        });
    }
}

const CONTAINER: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A family: its name, its help, and its figure for those that have one.
type Shown = (&'static str, &'static str, fn(&Measured) -> Option<f64>);

fn show(page: &mut Page, kind: Kind, measured: &[Measured], families: &[Shown]) {
    for (name, help, figure) in families {
        page.family(&plain(name, help), kind, &CONTAINER, |samples| {
            for of in measured {
                if let Some(value) = figure(of) {
                    samples.add(&of.labels(), value);
                }
            }
        });
    }
}

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
    let gauges: [Shown; 9] = [
        (
            "container_memory_usage_bytes",
            "Bytes of memory in use, page cache included.",
            |of| Some(of.usage.memory.as_ref()?.usage as f64),
        ),
        (
            "container_memory_working_set_bytes",
            "Bytes of memory in use that cannot easily be freed.",
            |of| Some(of.usage.memory.as_ref()?.working_set as f64),
        ),
        (
            "container_memory_rss",
            "Bytes of memory that belong to no file.",
            |of| Some(of.usage.memory.as_ref()?.rss as f64),
        ),
        (
            "container_memory_cache",
            "Number of bytes of page cache memory.",
            |of| Some(of.usage.memory.as_ref()?.cache as f64),
        ),
        (
            "container_memory_swap",
            "Container swap usage in bytes.",
            |of| Some(of.usage.memory.as_ref()?.swap as f64),
        ),
        (
            "container_spec_cpu_period",
            "CPU period of the container.",
            |of| Some(of.usage.bandwidth.as_ref()?.period as f64),
        ),
        (
            "container_spec_cpu_quota",
            "CPU quota of the container.",
            |of| Some(of.usage.bandwidth.as_ref()?.quota as f64),
        ),
        (
            "container_spec_memory_limit_bytes",
            "Bytes of memory allowed; 0 without a limit.",
            |of| Some(of.usage.memory.as_ref()?.limit.unwrap_or(0) as f64),
        ),
        (
            "container_start_time_seconds",
            "When it was started, in seconds since 1970.",
            |of| of.started,
        ),
    ];
    show(page, Kind::Gauge, measured, &gauges);
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

/// Of containers and pods whose CPU time is limited.
fn throttling(page: &mut Page, measured: &[Measured]) {
    let figures: [Shown; 3] = [
        (
            "container_cpu_cfs_periods_total",
            "Number of elapsed enforcement period intervals.",
            |of| Some(of.usage.bandwidth.as_ref()?.periods as f64),
        ),
        (
            "container_cpu_cfs_throttled_periods_total",
            "Number of throttled period intervals.",
            |of| Some(of.usage.bandwidth.as_ref()?.throttled as f64),
        ),
        (
            "container_cpu_cfs_throttled_seconds_total",
            "Total time duration the container has been throttled.",
            |of| Some(of.usage.bandwidth.as_ref()?.throttled_nanos as f64 / 1e9),
        ),
    ];
    show(page, Kind::Counter, measured, &figures);
}

fn networks(page: &mut Page, measured: &[Measured]) {
    use crate::stats::network::Interface;
    type Figure = fn(&Interface) -> u64;
    let figures: [(&'static str, &'static str, Figure); 8] = [
        (
            "container_network_receive_bytes_total",
            "Bytes that came in.",
            |of| of.received.bytes,
        ),
        (
            "container_network_receive_errors_total",
            "Packets that came in broken.",
            |of| of.received.errors,
        ),
        (
            "container_network_receive_packets_dropped_total",
            "Packets that came in and were dropped.",
            |of| of.received.dropped,
        ),
        (
            "container_network_receive_packets_total",
            "Packets that came in.",
            |of| of.received.packets,
        ),
        (
            "container_network_transmit_bytes_total",
            "Bytes that went out.",
            |of| of.sent.bytes,
        ),
        (
            "container_network_transmit_errors_total",
            "Packets that failed to go out.",
            |of| of.sent.errors,
        ),
        (
            "container_network_transmit_packets_dropped_total",
            "Packets dropped on their way out.",
            |of| of.sent.dropped,
        ),
        (
            "container_network_transmit_packets_total",
            "Packets that went out.",
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
    for (name, help, figure) in figures {
        page.family(&plain(name, help), Kind::Counter, &labels, |samples| {
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
