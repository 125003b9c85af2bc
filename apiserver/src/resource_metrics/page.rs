//! Reads a kubelet's `/metrics/resource`: Prometheus' text, of which four families matter.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What a node tells of itself and its containers at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub node: Point,
    /// By namespace and name of the pod, then by container.
    pub pods: BTreeMap<(String, String), BTreeMap<String, Point>>,
}

/// What is known of a node or a container.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When `cpu_seconds` was read.
    pub at: Timestamp,
    /// CPU time since the start.
    pub cpu_seconds: Option<f64>,
    /// The working set in bytes.
    pub memory: Option<f64>,
    /// In seconds since the epoch.
    pub started: Option<f64>,
}

/// Reads a page. `now` is when what says no time was read; lines of no interest are skipped.
pub fn parse(text: &str, now: Timestamp) -> Page {
    let mut page = Page::default();
    for sample in text.lines().filter_map(|line| sample(line, now)) {
        let point = match sample.name {
            "node_cpu_usage_seconds_total" | "node_memory_working_set_bytes" => &mut page.node,
            "container_cpu_usage_seconds_total"
            | "container_memory_working_set_bytes"
            | "container_start_time_seconds" => {
                let label = |name| sample.label(name).map(str::to_owned);
                let (Some(namespace), Some(pod), Some(container)) =
                    (label("namespace"), label("pod"), label("container"))
                else {
                    continue;
                };
                let pod = page.pods.entry((namespace, pod)).or_default();
                pod.entry(container).or_default()
            }
            _ => continue,
        };
        if sample.name.ends_with("_start_time_seconds") {
            point.started = Some(sample.value);
        } else if sample.name.ends_with("_working_set_bytes") {
            point.memory = Some(sample.value);
        } else {
            point.cpu_seconds = Some(sample.value);
            point.at = sample.at;
        }
    }
    page
}

struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
    at: Timestamp,
}

/// `name{label="value",…} value milliseconds`; the values of labels are names of Kubernetes'
/// objects, in which nothing is escaped.
fn sample(line: &str, now: Timestamp) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.split_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let mut words = rest.split_whitespace();
    let value: f64 = words.next()?.parse().ok()?;
    let at = words.next().and_then(|text| text.parse().ok());
    let at = at.and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok());
    Some(Sample {
        name,
        labels,
        value,
        at: at.unwrap_or(now),
    })
}

impl Sample<'_> {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.split(',').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then(|| value.trim_matches('"'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_page_is_read() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let page = parse(
            "# HELP node_cpu_usage_seconds_total [STABLE] Cumulative\n\
             node_cpu_usage_seconds_total 2.5 1577836801000\n\
             node_memory_working_set_bytes 1.5e6\n\
             container_cpu_usage_seconds_total{container=\"app\",namespace=\"default\",pod=\"web\"} 1 1577836802000\n\
             container_memory_working_set_bytes{container=\"app\",namespace=\"default\",pod=\"web\"} 4096\n\
             container_start_time_seconds{container=\"app\",namespace=\"default\",pod=\"web\"} 1577836800.5\n\
             pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web\"} 2\n\
             not a sample\n",
            now,
        );
        assert_eq!(page.node.at.as_millisecond(), 1_577_836_801_000);
        assert_eq!(page.node.cpu_seconds, Some(2.5));
        assert_eq!(page.node.memory, Some(1_500_000.0));
        let pod = &page.pods[&("default".to_owned(), "web".to_owned())];
        assert_eq!(pod.len(), 1);
        let app = pod["app"];
        assert_eq!(app.at.as_millisecond(), 1_577_836_802_000);
        assert_eq!((app.cpu_seconds, app.memory), (Some(1.0), Some(4096.0)));
        assert_eq!(app.started, Some(1_577_836_800.5));
    }
}
