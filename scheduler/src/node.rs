//! A node with the pods on it and the sums over them.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::{
    pod::{HostPort, PodInfo},
    resources::{self, NonZero, Resources},
    selector::Labels,
};

/// What a node has to give.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capacity {
    pub resources: Resources,
    pub pods: usize,
}

impl Capacity {
    pub fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let Some(allocatable) = status.and_then(|status| status.allocatable.as_ref()) else {
            return Capacity::default();
        };
        Capacity {
            resources: Resources::of(allocatable),
            pods: resources::allowed_pods(allocatable),
        }
    }
}

/// What the scheduler knows of a node. The sums are kept up to date as pods come and go.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub node: Arc<Node>,
    pub name: Arc<str>,
    pub pods: Vec<Arc<PodInfo>>,
    /// Those of `pods` with any pod affinity or anti-affinity.
    pub with_affinity: Vec<Arc<PodInfo>>,
    pub capacity: Capacity,
    pub requested: Resources,
    pub non_zero_requested: NonZero,
    /// Sizes in bytes of the images that the node has, by each of their names.
    pub images: Arc<HashMap<String, i64>>,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = NodeInfo {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            pods: Vec::new(),
            with_affinity: Vec::new(),
            capacity: Capacity::default(),
            requested: Resources::default(),
            non_zero_requested: NonZero::default(),
            images: Arc::default(),
            node: Arc::default(),
        };
        info.set_node(node);
        info
    }

    /// Takes over a new version of the node; the pods stay.
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.capacity = Capacity::of(&node);
        let status = node.status.as_ref();
        let images = status.and_then(|status| status.images.as_ref());
        self.images = images
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                let names = image.names.iter().flatten();
                names.map(move |name| (name.clone(), size))
            })
            .collect::<HashMap<_, _>>()
            .into();
        self.node = node;
    }

    pub fn labels(&self) -> Option<&Labels> {
        self.node.metadata.labels.as_ref()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        label(&self.node, key)
    }

    pub fn taints(&self) -> &[Taint] {
        taints(&self.node)
    }

    pub fn is_unschedulable(&self) -> bool {
        is_unschedulable(&self.node)
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests.resources);
        self.non_zero_requested.milli_cpu += pod.requests.non_zero.milli_cpu;
        self.non_zero_requested.memory += pod.requests.non_zero.memory;
        if pod.has_affinity() {
            self.with_affinity.push(pod.clone());
        }
        self.pods.push(pod);
    }

    /// Whether the pod was there.
    pub fn remove_pod(&mut self, key: &str) -> bool {
        let Some(index) = self.pods.iter().position(|pod| &*pod.key == key) else {
            return false;
        };
        let pod = self.pods.swap_remove(index);
        self.requested.subtract(&pod.requests.resources);
        self.non_zero_requested.milli_cpu -= pod.requests.non_zero.milli_cpu;
        self.non_zero_requested.memory -= pod.requests.non_zero.memory;
        if pod.has_affinity() {
            self.with_affinity.retain(|pod| &*pod.key != key);
        }
        true
    }

    /// Whether a pod on the node holds a port that conflicts.
    pub fn port_is_taken(&self, port: &HostPort) -> bool {
        self.pods
            .iter()
            .flat_map(|pod| &pod.host_ports)
            .any(|taken| taken.conflicts_with(port))
    }
}

pub(crate) fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let labels = node.metadata.labels.as_ref()?;
    labels.get(key).map(String::as_str)
}

pub(crate) fn taints(node: &Node) -> &[Taint] {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default()
}

/// What the node's kubelet says that it can do, sorted.
pub(crate) fn declared_features(node: &Node) -> &[String] {
    let status = node.status.as_ref();
    let features = status.and_then(|status| status.declared_features.as_deref());
    features.unwrap_or_default()
}

pub(crate) fn is_unschedulable(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
}
