//! A pod that names its node runs there or nowhere.

use std::sync::Arc;

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::NodeInfo,
    pod::PodInfo,
};

const NAME: &str = "NodeName";

pub(crate) struct NodeName;

#[derive(Clone)]
struct Named(Arc<PodInfo>);

impl Filter for Named {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if *node.name != *self.0.node_name() {
            return Err(Rejection::unresolvable(
                NAME,
                "node(s) didn't match the requested node name",
            ));
        }
        Ok(())
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, _cluster: &Cluster<'_>) -> Prepared {
        if pod.node_name().is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Named(pod.clone())))
    }

    fn may_help(&self, _pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        matches!(event, Event::NodeAdded(_))
    }
}
