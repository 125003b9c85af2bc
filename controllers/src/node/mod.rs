//! Nodes: whether they are alive and what follows when they are not, the addresses of their pods,
//! and pods that nobody else looks after.
//!
//! Enter at [`lifecycle`], [`eviction`], [`ipam`], [`pod_gc`] and [`ttl`].

pub(crate) mod eviction;
mod health;
pub(crate) mod ipam;
pub(crate) mod lifecycle;
pub(crate) mod pod_gc;
pub(crate) mod taints;
pub(crate) mod ttl;
mod zones;

use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference};
use kube::ResourceExt as _;

use crate::conditions;

/// What a node says of itself, or what is said for it when it says nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    True,
    False,
    Unknown,
}

fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    let status = node.status.as_ref()?;
    conditions::find(status.conditions.as_ref(), "Ready")
}

fn readiness(condition: &NodeCondition) -> Ready {
    match condition.status.as_str() {
        "True" => Ready::True,
        "False" => Ready::False,
        _ => Ready::Unknown,
    }
}

/// Events about nodes name them without a namespace.
fn reference(node: &Node) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.name_any()),
        uid: node.uid(),
        ..ObjectReference::default()
    }
}
