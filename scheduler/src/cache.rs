//! The nodes and the pods on them, with the pods that are on their way to a node.
//!
//! An *assumed* pod has been given a node but the API does not say so yet; it already takes room.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Node;

use crate::{
    node::NodeInfo,
    pod::{Key, PodInfo},
};

/// Where a pod is.
#[derive(Clone, Debug)]
struct Place {
    node: Arc<str>,
    assumed: bool,
    info: Arc<PodInfo>,
}

/// The nodes and their pods. Has one owner, the scheduling loop, and so no lock.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    nodes: Vec<NodeInfo>,
    index: HashMap<Arc<str>, usize>,
    places: HashMap<Key, Place>,
    /// How many nodes have each image.
    image_nodes: HashMap<String, usize>,
}

impl Cache {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|&index| &self.nodes[index])
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.image_nodes.get(name).copied().unwrap_or(0)
    }

    /// Adds the node or takes over its new version.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let index = match self.index.get(name) {
            Some(&index) => {
                let images = self.nodes[index].images.clone();
                self.count_images(&images, -1);
                self.nodes[index].set_node(node);
                index
            }
            None => {
                let mut info = NodeInfo::new(node);
                // Its pods may have become known before it.
                for place in self.places.values() {
                    if place.node == info.name {
                        info.add_pod(place.info.clone());
                    }
                }
                self.index.insert(info.name.clone(), self.nodes.len());
                self.nodes.push(info);
                self.nodes.len() - 1
            }
        };
        let images = self.nodes[index].images.clone();
        self.count_images(&images, 1);
    }

    /// Removes the node. Its pods are remembered until they are removed themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.index.remove(name) else {
            return;
        };
        let removed = self.nodes.swap_remove(index);
        if let Some(moved) = self.nodes.get(index) {
            self.index.insert(moved.name.clone(), index);
        }
        self.count_images(&removed.images, -1);
    }

    fn count_images(&mut self, images: &HashMap<String, i64>, by: isize) {
        for name in images.keys() {
            let count = self.image_nodes.entry(name.clone()).or_insert(0);
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.image_nodes.remove(name);
            }
        }
    }

    /// Gives the pod a node before the API knows.
    pub fn assume(&mut self, info: Arc<PodInfo>, node: &Arc<str>) {
        self.place(info, node.clone(), true);
    }

    /// The pod as the API has it, bound to a node.
    pub fn set_pod(&mut self, info: Arc<PodInfo>) {
        let node: Arc<str> = match self.node(info.node_name()) {
            Some(node) => node.name.clone(),
            None => info.node_name().into(),
        };
        self.place(info, node, false);
    }

    fn place(&mut self, info: Arc<PodInfo>, node: Arc<str>, assumed: bool) {
        self.remove_pod(&info.key);
        if let Some(&index) = self.index.get(&node) {
            self.nodes[index].add_pod(info.clone());
        }
        let place = Place {
            node,
            assumed,
            info,
        };
        self.places.insert(place.info.key.clone(), place);
    }

    /// Removes the pod from its node and returns it as it was known.
    pub fn remove_pod(&mut self, key: &str) -> Option<Arc<PodInfo>> {
        let place = self.places.remove(key)?;
        if let Some(&index) = self.index.get(&place.node) {
            self.nodes[index].remove_pod(key);
        }
        Some(place.info)
    }

    /// The pod, if it is on a node or assumed to be.
    pub fn pod(&self, key: &str) -> Option<&Arc<PodInfo>> {
        self.places.get(key).map(|place| &place.info)
    }

    /// How many pods are on a node or assumed to be.
    pub fn pods(&self) -> usize {
        self.places.len()
    }

    /// The pods that are on a node or assumed to be.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.places.keys()
    }

    /// Whether the pod is on its way to a node.
    pub fn is_assumed(&self, key: &str) -> bool {
        self.places.get(key).is_some_and(|place| place.assumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn sums_follow_the_pods() {
        let mut cache = Cache::default();
        let on = |name: &str, node: &str, cpu: &str| {
            pod(
                json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [
                    {"name": "c", "resources": {"requests": {"cpu": cpu}}}
                ]}}),
            )
        };
        cache.set_pod(on("early", "n", "1"));
        cache.set_node(node("n", json!({})));
        let cpu = |cache: &Cache| cache.node("n").map(|node| node.requested.milli_cpu);
        assert_eq!(
            cpu(&cache),
            Some(1000),
            "a pod known before its node counts"
        );

        let name = cache.nodes()[0].name.clone();
        cache.assume(on("b", "", "2"), &name);
        assert!(cache.is_assumed("default/b"));
        assert_eq!(cpu(&cache), Some(3000));
        cache.set_pod(on("b", "n", "2"));
        assert!(!cache.is_assumed("default/b"));
        assert_eq!(
            cpu(&cache),
            Some(3000),
            "confirming it does not count it twice"
        );

        cache.remove_node("n");
        assert!(cache.nodes().is_empty());
        cache.remove_pod("default/early");
        cache.set_node(node("n", json!({})));
        assert_eq!(cpu(&cache), Some(2000));
    }

    #[test]
    fn images_are_counted_by_the_nodes_that_have_them() {
        let mut cache = Cache::default();
        let images = json!({"status": {"images": [{"names": ["i:1", "i@sha"], "sizeBytes": 5}]}});
        cache.set_node(node("a", images.clone()));
        cache.set_node(node("b", images));
        assert_eq!(cache.nodes_with_image("i:1"), 2);
        cache.set_node(node("a", json!({})));
        cache.remove_node("b");
        assert_eq!(cache.nodes_with_image("i:1"), 0);
    }
}
