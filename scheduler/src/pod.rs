//! A pod with everything that scheduling asks of it, worked out once.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{
    ContainerPort, Pod, PodAffinityTerm, Toleration, WeightedPodAffinityTerm,
};

use crate::{
    resources::Requests,
    selector::{Labels, Selector},
};

/// `namespace/name`.
pub(crate) type Key = Arc<str>;

pub(crate) fn key(pod: &Pod) -> Key {
    let metadata = &pod.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    format!(
        "{namespace}/{}",
        metadata.name.as_deref().unwrap_or_default()
    )
    .into()
}

/// A port of the host that a pod binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// `0.0.0.0` for all addresses.
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    fn of(port: &ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|port| *port > 0)?;
        let or = |field: &Option<String>, default: &str| match field.as_deref() {
            None | Some("") => default.to_owned(),
            Some(value) => value.to_owned(),
        };
        Some(HostPort {
            ip: or(&port.host_ip, "0.0.0.0"),
            protocol: or(&port.protocol, "TCP"),
            port: number,
        })
    }

    /// Whether both cannot be bound on one host.
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == ANY || other.ip == ANY || self.ip == other.ip)
    }
}

/// Which pods a pod wants near or far, and what near means.
#[derive(Clone, Debug)]
pub(crate) struct AffinityTerm {
    pub namespaces: BTreeSet<String>,
    pub namespace_selector: Selector,
    pub selector: Selector,
    pub topology_key: String,
}

impl AffinityTerm {
    fn parse(term: &PodAffinityTerm, namespace: &str) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        AffinityTerm {
            namespaces,
            namespace_selector: Selector::from_label_selector(term.namespace_selector.as_ref()),
            selector: Selector::from_label_selector(term.label_selector.as_ref()),
            topology_key: term.topology_key.clone(),
        }
    }

    /// `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: Option<&Labels>) -> bool {
        (self.namespaces.contains(pod.namespace())
            || self.namespace_selector.matches(namespace_labels))
            && self.selector.matches(pod.labels())
    }
}

/// A preference; negative weights are never written, anti-affinity is a list of its own.
#[derive(Clone, Debug)]
pub(crate) struct WeightedTerm {
    pub weight: i64,
    pub term: AffinityTerm,
}

/// A pod as the scheduler sees it. Shared by `Arc`, never changed: a new version of the pod is a
/// new `PodInfo`.
#[derive(Debug)]
pub(crate) struct PodInfo {
    pub pod: Arc<Pod>,
    pub key: Key,
    pub priority: i32,
    pub requests: Requests,
    pub host_ports: Vec<HostPort>,
    pub required_affinity: Vec<AffinityTerm>,
    pub required_anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<WeightedTerm>,
    pub preferred_anti_affinity: Vec<WeightedTerm>,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let required = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            let terms = terms.into_iter().flatten();
            terms
                .map(|term| AffinityTerm::parse(term, namespace))
                .collect()
        };
        let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>| -> Vec<WeightedTerm> {
            let terms = terms.into_iter().flatten();
            terms
                .map(|term| WeightedTerm {
                    weight: term.weight.into(),
                    term: AffinityTerm::parse(&term.pod_affinity_term, namespace),
                })
                .collect()
        };
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|spec| spec.affinity.as_ref());
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        PodInfo {
            key: key(&pod),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            requests: Requests::of(&pod),
            host_ports: host_ports(&pod),
            required_affinity: required(near.and_then(|near| {
                near.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })),
            required_anti_affinity: required(far.and_then(|far| {
                far.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })),
            preferred_affinity: preferred(near.and_then(|near| {
                near.preferred_during_scheduling_ignored_during_execution
                    .as_ref()
            })),
            preferred_anti_affinity: preferred(far.and_then(|far| {
                far.preferred_during_scheduling_ignored_during_execution
                    .as_ref()
            })),
            pod,
        }
    }

    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn labels(&self) -> Option<&Labels> {
        self.pod.metadata.labels.as_ref()
    }

    /// The node that it is bound to; empty when it is not.
    pub fn node_name(&self) -> &str {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|spec| spec.node_name.as_deref())
            .unwrap_or_default()
    }

    /// The node that is being cleared for it; empty when none is.
    pub fn nominated_node_name(&self) -> &str {
        let status = self.pod.status.as_ref();
        status
            .and_then(|status| status.nominated_node_name.as_deref())
            .unwrap_or_default()
    }

    pub fn tolerations(&self) -> &[Toleration] {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|spec| spec.tolerations.as_deref())
            .unwrap_or_default()
    }

    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether gates keep it from being scheduled.
    pub fn is_gated(&self) -> bool {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|spec| spec.scheduling_gates.as_ref())
            .is_some_and(|gates| !gates.is_empty())
    }

    pub fn has_affinity(&self) -> bool {
        !(self.required_affinity.is_empty()
            && self.required_anti_affinity.is_empty()
            && self.preferred_affinity.is_empty()
            && self.preferred_anti_affinity.is_empty())
    }
}

/// The ports of the containers and sidecars.
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(HostPort::of)
        .collect()
}

/// Whether the pod has run to its end: it takes no room any more.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
