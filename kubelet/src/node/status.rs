//! The Node's status, derived from what is known at one moment.
//!
//! Reasons, messages and the order of conditions are upstream's
//! (`pkg/kubelet/nodestatus/setters.go`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_cri::v1::Image;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints,
        NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::machine::{Machine, architecture};
use crate::{Config, runtime::Health};

/// Images reported at most, the biggest first, as upstream.
const MAX_IMAGES: usize = 50;
/// Names reported of an image at most, as upstream.
const MAX_NAMES: usize = 5;

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

/// Everything that the status follows from.
pub struct Facts<'a> {
    pub config: &'a Config,
    pub machine: &'a Machine,
    pub health: &'a Health,
    pub images: &'a [Image],
    pub pressure: Pressure,
    /// The status as it stands: its conditions tell when each last changed.
    pub before: Option<&'a NodeStatus>,
    pub now: Timestamp,
}

/// The labels that every node has, and those that it was given.
pub fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = config.node_labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// What pods may need that not every kubelet can do, sorted. The scheduler goes by it.
const DECLARED_FEATURES: [&str; 1] = ["RestartAllContainersOnContainerExits"];

/// The whole status.
pub fn status(facts: &Facts<'_>) -> NodeStatus {
    let (config, health) = (facts.config, facts.health);
    let mut addresses: Vec<NodeAddress> = config
        .node_ips
        .iter()
        .map(|address| NodeAddress {
            address: address.to_string(),
            type_: "InternalIP".to_owned(),
        })
        .collect();
    addresses.push(NodeAddress {
        address: config.node_name.clone(),
        type_: "Hostname".to_owned(),
    });
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(facts.machine.capacity(config.max_pods)),
        allocatable: Some(facts.machine.allocatable(config.max_pods)),
        conditions: Some(conditions(facts)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: config.port.into(),
            }),
        }),
        features: Some(NodeFeatures {
            supplemental_groups_policy: Some(health.supplemental_groups_policy),
        }),
        images: Some(images(facts.images)),
        node_info: Some(NodeSystemInfo {
            container_runtime_version: format!("{}://{}", health.name, health.version),
            kubelet_version: config.version.clone(),
            // No longer told, but required.
            kube_proxy_version: String::new(),
            ..facts.machine.info()
        }),
        runtime_handlers: (!health.handlers.is_empty()).then(|| handlers(health)),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        ..NodeStatus::default()
    }
}

/// Whether the node was Ready and would not be any more.
pub fn takes_back(before: Option<&NodeStatus>, now: &NodeStatus) -> bool {
    let ready = |status: &NodeStatus| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|known| known.type_ == "Ready" && known.status == "True")
    };
    before.is_some_and(ready) && !ready(now)
}

/// The events that go with the conditions that have changed: reason and message.
pub fn transitions(
    before: Option<&NodeStatus>,
    now: &NodeStatus,
    node: &str,
) -> Vec<(&'static str, String)> {
    let value = |status: Option<&NodeStatus>, name: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let condition = conditions
            .into_iter()
            .flatten()
            .find(|known| known.type_ == name);
        condition.map(|condition| condition.status.clone())
    };
    let mut events = Vec::new();
    for (name, when_true, when_false) in [
        (
            "MemoryPressure",
            "NodeHasInsufficientMemory",
            "NodeHasSufficientMemory",
        ),
        (
            "DiskPressure",
            "NodeHasDiskPressure",
            "NodeHasNoDiskPressure",
        ),
        (
            "PIDPressure",
            "NodeHasInsufficientPID",
            "NodeHasSufficientPID",
        ),
        ("Ready", "NodeReady", "NodeNotReady"),
    ] {
        let (old, new) = (value(before, name), value(Some(now), name));
        if old != new {
            let reason = if new.as_deref() == Some("True") {
                when_true
            } else {
                when_false
            };
            events.push((reason, format!("Node {node} status is now: {reason}")));
        }
    }
    events
}

fn conditions(facts: &Facts<'_>) -> Vec<NodeCondition> {
    let pressure = facts.pressure;
    let mut all: Vec<NodeCondition> = [
        (
            "MemoryPressure",
            pressure.memory,
            [
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ],
            [
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ],
        ),
        (
            "DiskPressure",
            pressure.disk,
            ["KubeletHasDiskPressure", "kubelet has disk pressure"],
            ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        ),
        (
            "PIDPressure",
            pressure.pids,
            [
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
            ],
            [
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ],
        ),
    ]
    .into_iter()
    .map(|(name, holds, when_true, when_false)| {
        let [reason, message] = if holds { when_true } else { when_false };
        condition(facts, name, holds, reason, message.to_owned())
    })
    .collect();
    let problems: Vec<String> = [facts.health.runtime_error(), facts.health.network_error()]
        .into_iter()
        .flatten()
        .collect();
    all.push(match problems.as_slice() {
        [] => condition(
            facts,
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        [problem] => condition(facts, "Ready", false, "KubeletNotReady", problem.clone()),
        several => {
            let message = format!("[{}]", several.join(", "));
            condition(facts, "Ready", false, "KubeletNotReady", message)
        }
    });
    all
}

fn condition(
    facts: &Facts<'_>,
    name: &str,
    holds: bool,
    reason: &str,
    message: String,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let known = facts.before.and_then(|before| before.conditions.as_ref());
    let since = known
        .into_iter()
        .flatten()
        .find(|known| known.type_ == name && known.status == status)
        .and_then(|known| known.last_transition_time.clone());
    NodeCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(facts.now)),
        last_transition_time: since.or(Some(Time(facts.now))),
    }
}

fn images(known: &[Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&Image> = known.iter().collect();
    images.sort_by(|one, other| {
        other
            .size
            .cmp(&one.size)
            .then_with(|| one.id.cmp(&other.id))
    });
    images
        .into_iter()
        .take(MAX_IMAGES)
        .map(|image| {
            let names = image.repo_digests.iter().chain(&image.repo_tags);
            ContainerImage {
                names: Some(names.take(MAX_NAMES).cloned().collect()),
                size_bytes: i64::try_from(image.size).ok(),
            }
        })
        .collect()
}

fn handlers(health: &Health) -> Vec<NodeRuntimeHandler> {
    let mut handlers: Vec<NodeRuntimeHandler> = health
        .handlers
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(handler.recursive_read_only_mounts),
                user_namespaces: Some(handler.user_namespaces),
            }),
        })
        .collect();
    handlers.sort_by(|one, other| one.name.cmp(&other.name));
    handlers
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::Path};

    use super::*;
    use crate::{config::RuntimeSource, runtime::Condition};

    #[test]
    fn only_a_node_that_was_ready_can_cease_to_be() {
        let status = |ready: &str| NodeStatus {
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: ready.to_owned(),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        };
        let (yes, no) = (status("True"), status("False"));
        assert!(takes_back(Some(&yes), &no));
        assert!(!takes_back(Some(&yes), &yes));
        assert!(!takes_back(Some(&no), &no));
        assert!(!takes_back(None, &no));
    }

    fn ready(ready: bool) -> Option<Condition> {
        Some(Condition {
            ready,
            reason: "Why".to_owned(),
            message: "because".to_owned(),
        })
    }

    fn derive(
        health: &Health,
        pressure: Pressure,
        before: Option<&NodeStatus>,
        now: &str,
    ) -> NodeStatus {
        let runtime = RuntimeSource::Endpoint("/run/cri.sock".into());
        let config = Config::new(
            "edge-1",
            IpAddr::from([192, 0, 2, 7]),
            Path::new("/data"),
            runtime,
        );
        status(&Facts {
            config: &config,
            machine: &Machine::default(),
            health,
            images: &[],
            pressure,
            before,
            now: now.parse().unwrap(),
        })
    }

    fn summary(status: &NodeStatus) -> Vec<String> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .map(|condition| {
                format!(
                    "{}={} {} {}",
                    condition.type_,
                    condition.status,
                    condition.reason.as_deref().unwrap_or_default(),
                    condition.last_transition_time.as_ref().unwrap().0,
                )
            })
            .collect()
    }

    #[test]
    fn conditions_change_their_time_only_with_their_value() {
        let mut health = Health {
            name: "containerd".to_owned(),
            version: "1.6.20".to_owned(),
            runtime: ready(true),
            network: ready(false),
            ..Health::default()
        };
        let first = derive(&health, Pressure::default(), None, "2026-01-01T00:00:00Z");
        assert_eq!(
            summary(&first),
            [
                "MemoryPressure=False KubeletHasSufficientMemory 2026-01-01T00:00:00Z",
                "DiskPressure=False KubeletHasNoDiskPressure 2026-01-01T00:00:00Z",
                "PIDPressure=False KubeletHasSufficientPID 2026-01-01T00:00:00Z",
                "Ready=False KubeletNotReady 2026-01-01T00:00:00Z",
            ]
        );
        health.network = ready(true);
        let pressed = Pressure {
            disk: true,
            ..Pressure::default()
        };
        let second = derive(&health, pressed, Some(&first), "2026-01-01T00:01:00Z");
        assert_eq!(
            summary(&second),
            [
                "MemoryPressure=False KubeletHasSufficientMemory 2026-01-01T00:00:00Z",
                "DiskPressure=True KubeletHasDiskPressure 2026-01-01T00:01:00Z",
                "PIDPressure=False KubeletHasSufficientPID 2026-01-01T00:00:00Z",
                "Ready=True KubeletReady 2026-01-01T00:01:00Z",
            ]
        );
        let events: Vec<&str> = transitions(Some(&first), &second, "edge-1")
            .iter()
            .map(|(reason, _)| *reason)
            .collect();
        assert_eq!(events, ["NodeHasDiskPressure", "NodeReady"]);
    }
}
