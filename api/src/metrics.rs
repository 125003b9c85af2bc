//! `metrics.k8s.io`: what nodes and pods use. The objects are made when they are asked for.
//!
//! Not in the table of built-in kinds: upstream has an add-on serve the group, so a server
//! adds [`kinds`] when it answers for it itself.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ClusterResourceScope, Metadata, NamespaceResourceScope, Resource,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    duration,
    kinds::{Kind, Verb},
    quantity::{Amount, ResourceList},
    strategy::{Behaviour, Column},
    table::{NAME, name},
};

pub const GROUP: &str = "metrics.k8s.io";
pub const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// What the group serves.
pub fn kinds() -> Vec<Arc<Kind>> {
    const VERBS: &[Verb] = &[Verb::Get, Verb::List];
    vec![
        Arc::new(Kind::virtual_cluster::<NodeMetrics>("").verbs(VERBS)),
        Arc::new(Kind::virtual_namespaced::<PodMetrics>("").verbs(VERBS)),
    ]
}

/// The time that figures are of: they tell of `[timestamp - window, timestamp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub timestamp: Timestamp,
    pub window: SignedDuration,
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In billionths of a core, on average over the window.
    pub cpu_nanos: u64,
    /// The working set in bytes.
    pub memory: u64,
}

impl Usage {
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            cpu_nanos: self.cpu_nanos + other.cpu_nanos,
            memory: self.memory + other.memory,
        }
    }

    fn to_list(self) -> ResourceList {
        let cpu = quantity(self.cpu_nanos, 1000, &["n", "u", "m", "", "k", "M"]);
        let memory = if self.memory < 1024 {
            quantity(self.memory, 1000, &["", "k"])
        } else {
            quantity(self.memory, 1024, &["", "Ki", "Mi", "Gi", "Ti"])
        };
        [("cpu", cpu), ("memory", memory)]
            .map(|(name, amount)| (name.to_owned(), amount))
            .into()
    }
}

/// In the largest unit in which the number is whole, as upstream writes it.
fn quantity(mut number: u64, step: u64, units: &[&str]) -> Quantity {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    if number == 0 {
        return Quantity("0".to_owned());
    }
    while number.is_multiple_of(step)
        && let Some(larger) = units.next()
    {
        number /= step;
        unit = larger;
    }
    Quantity(format!("{number}{unit}"))
}

/// What a node uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMetrics {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    timestamp: Option<Time>,
    window: String,
    usage: ResourceList,
}

impl NodeMetrics {
    pub fn new(metadata: ObjectMeta, interval: Interval, usage: Usage) -> Self {
        NodeMetrics {
            api_version: API_VERSION.to_owned(),
            kind: Self::KIND.to_owned(),
            metadata,
            timestamp: Some(Time(whole_second(interval.timestamp))),
            window: duration::to_text(interval.window),
            usage: usage.to_list(),
        }
    }
}

/// What a pod uses, container by container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMetrics {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    timestamp: Option<Time>,
    window: String,
    containers: Vec<ContainerMetrics>,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerMetrics {
    name: String,
    usage: ResourceList,
}

impl PodMetrics {
    pub fn new(metadata: ObjectMeta, interval: Interval, containers: &[(&str, Usage)]) -> Self {
        let containers = containers.iter().map(|(name, usage)| ContainerMetrics {
            name: (*name).to_owned(),
            usage: usage.to_list(),
        });
        PodMetrics {
            api_version: API_VERSION.to_owned(),
            kind: Self::KIND.to_owned(),
            metadata,
            timestamp: Some(Time(whole_second(interval.timestamp))),
            window: duration::to_text(interval.window),
            containers: containers.collect(),
        }
    }
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

macro_rules! resource {
    ($kind:ident, $plural:literal, $scope:ty) => {
        impl Resource for $kind {
            const API_VERSION: &'static str = API_VERSION;
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(NodeMetrics, "nodes", ClusterResourceScope);
resource!(PodMetrics, "pods", NamespaceResourceScope);

const fn figure(name: &'static str, format: &'static str) -> Column {
    Column {
        name,
        column_type: "string",
        format,
        description: "",
        priority: 0,
    }
}

const COLUMNS: &[Column] = &[
    Column {
        description: "Name of the resource",
        ..NAME
    },
    figure("cpu", "quantity"),
    figure("memory", "quantity"),
    figure("Window", "duration"),
];

/// The sum of what the lists say of a resource.
fn sum<'a>(lists: impl Iterator<Item = &'a ResourceList>, resource: &str) -> Value {
    let amounts = lists.filter_map(|list| list.get(resource));
    let total = amounts
        .map(Amount::from)
        .reduce(Amount::plus)
        .unwrap_or_default();
    Value::from(total.to_quantity().0)
}

impl Behaviour for NodeMetrics {
    fn columns() -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let usage = || std::iter::once(&self.usage);
        vec![
            name(&self.metadata),
            sum(usage(), "cpu"),
            sum(usage(), "memory"),
            Value::from(self.window.clone()),
        ]
    }
}

impl Behaviour for PodMetrics {
    fn columns() -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let usage = || self.containers.iter().map(|container| &container.usage);
        vec![
            name(&self.metadata),
            sum(usage(), "cpu"),
            sum(usage(), "memory"),
            Value::from(self.window.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Object as _, codec::protobuf};

    fn interval() -> Interval {
        Interval {
            timestamp: "2026-01-01T00:00:07.25Z".parse().unwrap(),
            window: SignedDuration::from_millis(15_040),
        }
    }

    #[test]
    fn figures_read_as_metrics_servers() {
        let meta = ObjectMeta {
            name: Some("n".to_owned()),
            ..ObjectMeta::default()
        };
        let usage = Usage {
            cpu_nanos: 96_486_473,
            memory: 1_066_512 << 10,
        };
        let node = NodeMetrics::new(meta, interval(), usage);
        assert_eq!(
            node.to_value(),
            json!({ "apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics",
                "metadata": { "name": "n" }, "timestamp": "2026-01-01T00:00:07Z",
                "window": "15.04s", "usage": { "cpu": "96486473n", "memory": "1066512Ki" } })
        );
        for (cpu_nanos, memory, expected) in [
            (0, 0, ["0", "0"]),
            (250_000_000, 512, ["250m", "512"]),
            (2_000_000_000, 2 << 20, ["2", "2Mi"]),
            (1_500, 1025, ["1500n", "1025"]),
        ] {
            let list = Usage { cpu_nanos, memory }.to_list();
            assert_eq!([&*list["cpu"].0, &*list["memory"].0], expected);
        }
    }

    #[test]
    fn pods_are_shown_with_their_sums() {
        let usage = Usage {
            cpu_nanos: 1_500_000,
            memory: 1 << 20,
        };
        let containers = [("a", usage), ("b", usage)];
        let pod = PodMetrics::new(ObjectMeta::default(), interval(), &containers);
        assert_eq!(
            pod.cells(Timestamp::UNIX_EPOCH),
            [json!(""), json!("3m"), json!("2Mi"), json!("15.04s")]
        );
        let message = protobuf::from_json(pod.to_value().to_string().as_bytes()).unwrap();
        let back = protobuf::to_json(&message, "", "").unwrap();
        let back: Value = serde_json::from_slice(&back).unwrap();
        assert_eq!(back["containers"], pod.to_value()["containers"]);
        assert_eq!(back["window"], "15.04s");
    }
}
