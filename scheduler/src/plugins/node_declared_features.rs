//! Some of what a pod may ask for not every kubelet can do; those that can say so.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::{self, NodeInfo},
    pod::PodInfo,
};

const NAME: &str = "NodeDeclaredFeatures";
const RESTART_ALL: &str = "RestartAllContainersOnContainerExits";
const HOST_NETWORK_USERS: &str = "UserNamespacesHostNetworkSupport";

pub(crate) struct NodeDeclaredFeatures;

#[derive(Clone)]
struct Needed(Arc<[&'static str]>);

/// What a kubelet has to be able to do for the pod.
fn needed(pod: &Pod) -> Vec<&'static str> {
    let mut needed = Vec::new();
    let Some(spec) = &pod.spec else {
        return needed;
    };
    let init = spec.init_containers.iter().flatten();
    let restarts_all = |container: &Container| {
        let mut rules = container.restart_policy_rules.iter().flatten();
        rules.any(|rule| rule.action == "RestartAllContainers")
    };
    if spec.containers.iter().chain(init).any(restarts_all) {
        needed.push(RESTART_ALL);
    }
    if spec.host_network == Some(true) && spec.host_users == Some(false) {
        needed.push(HOST_NETWORK_USERS);
    }
    needed
}

impl Filter for Needed {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let declared = node::declared_features(&node.node);
        let has = |needed: &&str| declared.iter().any(|declared| declared == needed);
        if self.0.iter().all(has) {
            return Ok(());
        }
        let why = "node(s) didn't match Pod's required features";
        Err(Rejection::unresolvable(NAME, why))
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, _cluster: &Cluster<'_>) -> Prepared {
        match needed(&pod.pod) {
            needed if needed.is_empty() => Prepared::Skip,
            needed => Prepared::Check(Box::new(Needed(needed.into()))),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::NodeUpdated { changes, .. } => changes.features,
            Event::PodUpdated { old, new, .. } => {
                new.uid() == pod.uid() && needed(&old.pod) != needed(&new.pod)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, node, pod};

    #[test]
    fn kubelets_have_to_know_how_to_restart_all_containers() {
        let declaring = json!({ "status": { "declaredFeatures": ["A", RESTART_ALL] } });
        let world = World::new([node("new", declaring), node("old", json!({}))]);
        let rule = json!({ "action": "RestartAllContainers",
            "exitCodes": { "operator": "In", "values": [1] } });
        let container = json!({ "name": "c", "restartPolicyRules": [rule] });
        let needing = pod(json!({ "spec": { "containers": [container] } }));
        let prepared = NodeDeclaredFeatures.prepare(&needing, &world.cluster());
        let Prepared::Check(filter) = prepared else {
            panic!("nodes have to be looked at");
        };
        let fits = |name: &str| filter.check(world.cache.node(name).unwrap()).is_ok();
        assert_eq!(["new", "old"].map(fits), [true, false]);
        let any = NodeDeclaredFeatures.prepare(&pod(json!({})), &world.cluster());
        assert!(matches!(any, Prepared::Skip));
    }
}
