//! Cordoned nodes take only pods that tolerate it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::{self, NodeInfo},
    pod::PodInfo,
    taints,
};

const NAME: &str = "NodeUnschedulable";

pub(crate) struct NodeUnschedulable;

#[derive(Clone)]
struct Intolerant;

impl Filter for Intolerant {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.is_unschedulable() {
            return Err(Rejection::unresolvable(NAME, "node(s) were unschedulable"));
        }
        Ok(())
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, _cluster: &Cluster<'_>) -> Prepared {
        if tolerates_cordon(pod.tolerations()) {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Intolerant))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        match event {
            Event::NodeAdded(node) => !node::is_unschedulable(node),
            Event::NodeUpdated { old, new, .. } => {
                node::is_unschedulable(old) && !node::is_unschedulable(new)
            }
            Event::PodUpdated { new, changes, .. } => {
                changes.tolerations && new.uid() == pod.uid() && tolerates_cordon(new.tolerations())
            }
            _ => false,
        }
    }
}

fn tolerates_cordon(tolerations: &[Toleration]) -> bool {
    let cordon = Taint {
        key: taints::UNSCHEDULABLE.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    !tolerations.is_empty() && taints::any_tolerates(tolerations, &cordon)
}
