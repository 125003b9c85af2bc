//! `/metrics/resource`: what metrics-server scrapes, in Prometheus' text format.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::summary::{ContainerStats, CpuStats, MemoryStats, PodStats, Summary, SwapStats};

/// Nanoseconds of a second.
const NANOS: f64 = 1e9;

#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    help: &'static str,
    metric_type: &'static str,
}

const NODE_CPU: Family = Family {
    name: "node_cpu_usage_seconds_total",
    help: "[STABLE] Processor time that the node has used, in seconds",
    metric_type: "counter",
};
const NODE_MEMORY: Family = Family {
    name: "node_memory_working_set_bytes",
    help: "[STABLE] Bytes of memory that the node uses and cannot easily free",
    metric_type: "gauge",
};
const NODE_SWAP: Family = Family {
    name: "node_swap_usage_bytes",
    help: "[ALPHA] Bytes of swap that the node uses",
    metric_type: "gauge",
};
const CONTAINER_START: Family = Family {
    name: "container_start_time_seconds",
    help: "[STABLE] When a container was started, in seconds since 1970",
    metric_type: "gauge",
};
const CONTAINER_CPU: Family = Family {
    name: "container_cpu_usage_seconds_total",
    help: "[STABLE] Processor time that a container has used, in seconds",
    metric_type: "counter",
};
const CONTAINER_MEMORY: Family = Family {
    name: "container_memory_working_set_bytes",
    help: "[STABLE] Bytes of memory that a container uses and cannot easily free",
    metric_type: "gauge",
};
const CONTAINER_SWAP: Family = Family {
    name: "container_swap_usage_bytes",
    help: "[ALPHA] Bytes of swap that a container uses",
    metric_type: "gauge",
};
const POD_CPU: Family = Family {
    name: "pod_cpu_usage_seconds_total",
    help: "[STABLE] Processor time that a pod has used, in seconds",
    metric_type: "counter",
};
const POD_MEMORY: Family = Family {
    name: "pod_memory_working_set_bytes",
    help: "[STABLE] Bytes of memory that a pod uses and cannot easily free",
    metric_type: "gauge",
};
const POD_SWAP: Family = Family {
    name: "pod_swap_usage_bytes",
    help: "[ALPHA] Bytes of swap that a pod uses",
    metric_type: "gauge",
};
const SCRAPE_ERRORS: [Family; 2] = [
    Family {
        name: "resource_scrape_error",
        help: "[STABLE] 1 when something could not be measured, else 0",
        metric_type: "gauge",
    },
    Family {
        name: "scrape_error",
        help: "[ALPHA] (Deprecated since 1.29.0) 1 when something could not be measured, else 0",
        metric_type: "gauge",
    },
];

/// A value, and when it was measured if that is known.
struct Sample {
    labels: String,
    value: f64,
    at: Option<Timestamp>,
}

/// Renders the page; `summary` is `None` when it could not be had.
pub fn render(summary: Option<&Summary>) -> String {
    let mut page = String::new();
    if let Some(summary) = summary {
        render_containers(&mut page, summary);
        render_node(&mut page, summary);
        render_pods(&mut page, summary);
    }
    let failed = if summary.is_none() { 1.0 } else { 0.0 };
    for family in SCRAPE_ERRORS {
        let sample = Sample {
            labels: String::new(),
            value: failed,
            at: None,
        };
        write_family(&mut page, family, std::iter::once(sample));
    }
    page
}

fn render_containers(page: &mut String, summary: &Summary) {
    let containers = || {
        summary.pods.iter().flat_map(|pod| {
            let containers = pod.containers.iter();
            containers.map(move |container| (pod, container))
        })
    };
    let labels = |pod: &PodStats, container: &ContainerStats| {
        let (name, pod) = (&container.name, &pod.pod_ref);
        format!(
            "{{container={name:?},namespace={:?},pod={:?}}}",
            pod.namespace, pod.name
        )
    };
    let cpus = containers()
        .filter_map(|(pod, container)| cpu(container.cpu.as_ref(), labels(pod, container)));
    write_family(page, CONTAINER_CPU, cpus);
    let memories = containers()
        .filter_map(|(pod, container)| memory(container.memory.as_ref(), labels(pod, container)));
    write_family(page, CONTAINER_MEMORY, memories);
    let starts = containers().filter_map(|(pod, container)| {
        let start = container.start_time.as_nanosecond() as f64 / NANOS;
        (start > 0.0).then(|| Sample {
            labels: labels(pod, container),
            value: start,
            at: None,
        })
    });
    write_family(page, CONTAINER_START, starts);
    let swaps = containers()
        .filter_map(|(pod, container)| swap(container.swap.as_ref(), labels(pod, container)));
    write_family(page, CONTAINER_SWAP, swaps);
}

fn render_node(page: &mut String, summary: &Summary) {
    let node = &summary.node;
    let none = String::new;
    write_family(page, NODE_CPU, cpu(node.cpu.as_ref(), none()));
    write_family(page, NODE_MEMORY, memory(node.memory.as_ref(), none()));
    write_family(page, NODE_SWAP, swap(node.swap.as_ref(), none()));
}

fn render_pods(page: &mut String, summary: &Summary) {
    let pods = || summary.pods.iter();
    let labels = |pod: &PodStats| {
        let pod = &pod.pod_ref;
        format!("{{namespace={:?},pod={:?}}}", pod.namespace, pod.name)
    };
    let cpus = pods().filter_map(|pod| cpu(pod.cpu.as_ref(), labels(pod)));
    write_family(page, POD_CPU, cpus);
    let memories = pods().filter_map(|pod| memory(pod.memory.as_ref(), labels(pod)));
    write_family(page, POD_MEMORY, memories);
    let swaps = pods().filter_map(|pod| swap(pod.swap.as_ref(), labels(pod)));
    write_family(page, POD_SWAP, swaps);
}

fn cpu(stats: Option<&CpuStats>, labels: String) -> Option<Sample> {
    let stats = stats?;
    Some(Sample {
        labels,
        value: stats.usage_core_nano_seconds? as f64 / NANOS,
        at: Some(stats.time),
    })
}

fn memory(stats: Option<&MemoryStats>, labels: String) -> Option<Sample> {
    let stats = stats?;
    Some(Sample {
        labels,
        value: stats.working_set_bytes? as f64,
        at: Some(stats.time),
    })
}

fn swap(stats: Option<&SwapStats>, labels: String) -> Option<Sample> {
    let stats = stats?;
    Some(Sample {
        labels,
        value: stats.swap_usage_bytes? as f64,
        at: Some(stats.time),
    })
}

/// A family without samples is left out.
fn write_family(page: &mut String, family: Family, samples: impl IntoIterator<Item = Sample>) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    let Family {
        name,
        help,
        metric_type,
    } = family;
    // Writing to a string cannot fail.
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {metric_type}");
    for sample in samples {
        let _ = write!(page, "{name}{} {}", sample.labels, sample.value);
        if let Some(at) = sample.at {
            let _ = write!(page, " {}", at.as_millisecond());
        }
        page.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::{super::summary::PodReference, *};

    #[test]
    fn pages_read_as_upstreams() {
        let at: Timestamp = "2020-01-01T00:00:01Z".parse().unwrap();
        let mut summary = Summary::default();
        summary.node.cpu = Some(CpuStats {
            time: at,
            usage_core_nano_seconds: Some(2_500_000_000),
            ..CpuStats::default()
        });
        summary.pods.push(PodStats {
            pod_ref: PodReference {
                name: "web".to_owned(),
                namespace: "default".to_owned(),
                uid: String::new(),
            },
            containers: vec![ContainerStats {
                name: "app".to_owned(),
                memory: Some(MemoryStats {
                    time: at,
                    working_set_bytes: Some(4096),
                    ..MemoryStats::default()
                }),
                ..ContainerStats::default()
            }],
            ..PodStats::default()
        });
        let page = render(Some(&summary));
        for line in [
            "# TYPE node_cpu_usage_seconds_total counter",
            "node_cpu_usage_seconds_total 2.5 1577836801000",
            "container_memory_working_set_bytes{container=\"app\",namespace=\"default\",pod=\"web\"} 4096 1577836801000",
            "resource_scrape_error 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        assert!(!page.contains("swap"));
        assert!(render(None).ends_with("\nscrape_error 1\n"));
    }
}
