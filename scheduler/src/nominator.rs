//! Pods for which room is being made on a node by preemption, and which nobody of lower priority
//! may take.

use std::{collections::HashMap, sync::Arc};

use crate::pod::{Key, PodInfo};

#[derive(Debug, Default)]
pub(crate) struct Nominator {
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
    node_of: HashMap<Key, String>,
}

impl Nominator {
    /// Nominates the pod to run on the node; an earlier nomination ends.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.key);
        if node.is_empty() {
            return;
        }
        self.node_of.insert(pod.key.clone(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().push(pod);
    }

    /// Takes over a new version of the pod: the API's nomination if it has one, otherwise the
    /// one that the API does not know yet.
    pub fn update(&mut self, old: &PodInfo, new: &Arc<PodInfo>) {
        let known = self.node_of.get(&new.key).cloned();
        let told = new.nominated_node_name();
        let node = match known {
            Some(known) if told.is_empty() && old.nominated_node_name().is_empty() => known,
            _ => told.to_owned(),
        };
        self.set(new.clone(), &node);
    }

    pub fn remove(&mut self, key: &str) {
        let Some(node) = self.node_of.remove(key) else {
            return;
        };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|pod| &*pod.key != key);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// The pods nominated to run on the node.
    pub fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node
            .get(node)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::json;

    #[test]
    fn a_nomination_lasts_until_the_api_says_otherwise() {
        let mut nominator = Nominator::default();
        let plain = pod(json!({}));
        let told = |node: &str| pod(json!({"status": {"nominatedNodeName": node}}));
        nominator.set(plain.clone(), "a");
        nominator.update(&plain, &plain);
        assert_eq!(nominator.on("a").len(), 1, "the API does not know yet");
        nominator.update(&plain, &told("a"));
        nominator.update(&told("a"), &told("b"));
        assert_eq!((nominator.on("a").len(), nominator.on("b").len()), (0, 1));
        nominator.update(&told("b"), &plain);
        assert_eq!(nominator.on("b").len(), 0);
    }
}
