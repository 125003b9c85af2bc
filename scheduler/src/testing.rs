//! Short ways to write pods, nodes and a cluster in tests.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use serde_json::{Value, json};

use crate::{
    cache::Cache,
    cluster::{Cluster, Surroundings},
    nominator::Nominator,
    pod::PodInfo,
    selector::{Labels, Selector},
};

/// A pod in the namespace `default` named `pod`, unless `value` says otherwise.
pub(crate) fn pod(value: Value) -> Arc<PodInfo> {
    let mut pod = json!({
        "metadata": {"namespace": "default", "name": "pod", "uid": "uid"},
        "spec": {"containers": [{"name": "c", "image": "image"}]},
    });
    merge(&mut pod, value);
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// A node with room for 4 CPUs, 8 GiB and 110 pods, unless `value` says otherwise.
pub(crate) fn node(name: &str, value: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    merge(&mut node, value);
    Arc::new(serde_json::from_value(node).expect("a node"))
}

/// Lays `from` over `into`, object by object.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A cluster that stands still.
#[derive(Default)]
pub(crate) struct World {
    pub cache: Cache,
    pub nominator: Nominator,
    pub surroundings: Still,
}

#[derive(Default)]
pub(crate) struct Still {
    pub namespaces: HashMap<String, Labels>,
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    pub owners: Option<Selector>,
}

impl Surroundings for Still {
    fn namespace_labels(&self, namespace: &str) -> Option<Labels> {
        self.namespaces.get(namespace).cloned()
    }

    fn namespaces_matching(&self, selector: &Selector) -> Vec<String> {
        self.namespaces
            .iter()
            .filter(|(_, labels)| selector.matches(Some(labels)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn default_selector(&self, _pod: &PodInfo) -> Option<Selector> {
        self.owners.clone()
    }

    fn disruption_budgets(&self) -> Vec<Arc<PodDisruptionBudget>> {
        self.budgets.clone()
    }
}

impl World {
    pub fn new(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let mut world = World::default();
        for node in nodes {
            world.cache.set_node(node);
        }
        world
    }

    /// Adds a pod that runs on `node`.
    pub fn running(&mut self, name: &str, node: &str, mut value: Value) {
        merge(
            &mut value,
            json!({"metadata": {"name": name, "uid": name}, "spec": {"nodeName": node}}),
        );
        self.cache.set_pod(pod(value));
    }

    pub fn cluster(&self) -> Cluster<'_> {
        Cluster {
            cache: &self.cache,
            nominator: &self.nominator,
            surroundings: &self.surroundings,
        }
    }
}
