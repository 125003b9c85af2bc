//! `PodTopologyLabels`: a pod that gets a node gets the labels that say where the node is.

use std::collections::BTreeMap;

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::api::core::v1::{Binding, Node, Pod};

use super::{Admission, Attributes, Operation};
use crate::{Lister, Registry, error::ApiError};

const LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// The plugin.
pub struct PodTopologyLabels(Lister<Node>);

impl PodTopologyLabels {
    pub fn new(registry: &Registry) -> Self {
        PodTopologyLabels(registry.lister())
    }

    fn copy(&self, node: &str, labels: &mut Option<BTreeMap<String, String>>) {
        let node = self.0.get("", node);
        let of_node = node.as_ref().and_then(|node| node.metadata.labels.as_ref());
        let copied = of_node
            .into_iter()
            .flatten()
            .filter(|(key, _)| LABELS.contains(&key.as_str()));
        for (key, value) in copied {
            let labels = labels.get_or_insert_default();
            labels.insert(key.clone(), value.clone());
        }
    }
}

#[async_trait]
impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create
            && attributes.kind.group.is_empty()
            && attributes.kind.resource == "pods"
            && matches!(attributes.subresource, "" | "binding")
    }

    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(object) = object.map(Object::as_any_mut) else {
            return Ok(());
        };
        if let Some(pod) = object.downcast_mut::<Pod>() {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            if let Some(node) = node.filter(|node| !node.is_empty()) {
                self.copy(node, &mut pod.metadata.labels);
            }
        } else if let Some(binding) = object.downcast_mut::<Binding>()
            && binding.target.kind.as_deref() == Some("Node")
        {
            let node = binding.target.name.as_deref().unwrap_or_default();
            self.copy(node, &mut binding.metadata.labels);
        }
        Ok(())
    }
}
