//! Whether a node is alive: it renews its Lease or its status, or else is taken for dead after the
//! grace period.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use tokio::time::Instant;

use super::{Ready, readiness, ready_condition};
use crate::conditions;

/// Without a sign of life.
pub(super) const GRACE: Duration = Duration::from_secs(50);
/// The same, for a node that has not said anything yet.
pub(super) const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// What a node that is not heard of any more cannot be known to have.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The last sign of life. Measured by the monotonic clock: the node's own may differ from ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    seen: Instant,
    heartbeat: Option<Option<Timestamp>>,
    renewed: Option<Timestamp>,
}

/// What a look at the node came to.
#[derive(Clone, Debug)]
pub(super) struct Assessment {
    pub health: Health,
    /// As the node's status has it; unknown when it says nothing.
    pub observed: Ready,
    /// As it is now; `None` when the status says nothing and need not yet.
    pub current: Option<Ready>,
    /// The conditions to write.
    pub conditions: Option<Vec<NodeCondition>>,
}

/// Looks at a node. `known` is what the last look came to.
pub(super) fn assess(
    node: &Node,
    lease: Option<&Lease>,
    known: Option<&Health>,
    now: Instant,
    wall: Timestamp,
) -> Assessment {
    let ready = ready_condition(node);
    let heartbeat = ready.map(|ready| ready.last_heartbeat_time.as_ref().map(|time| time.0));
    let renewed = lease
        .and_then(|lease| lease.spec.as_ref())
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    let mut health = match known {
        Some(known) => known.clone(),
        None => Health {
            seen: match ready {
                Some(_) => now,
                None => since_creation(node, now, wall),
            },
            heartbeat,
            renewed: None,
        },
    };
    if health.heartbeat != heartbeat {
        health.heartbeat = heartbeat;
        health.seen = now;
    }
    if renewed.is_some() && renewed > health.renewed {
        health.renewed = renewed;
        health.seen = now;
    }
    let observed = ready.map_or(Ready::Unknown, readiness);
    let grace = if ready.is_some() {
        GRACE
    } else {
        STARTUP_GRACE
    };
    let conditions = (now.duration_since(health.seen) > grace)
        .then(|| unknown(node, wall))
        .filter(|conditions| {
            let known = node
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_ref());
            known != Some(conditions)
        });
    let current = if now.duration_since(health.seen) > grace {
        Some(Ready::Unknown)
    } else {
        ready.map(readiness)
    };
    Assessment {
        health,
        observed,
        current,
        conditions,
    }
}

fn since_creation(node: &Node, now: Instant, wall: Timestamp) -> Instant {
    let created = node.metadata.creation_timestamp.as_ref();
    let age = created.map_or(jiff::SignedDuration::ZERO, |at| wall.duration_since(at.0));
    let age = Duration::try_from(age).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}

/// The node's conditions when nothing is known of it any more.
fn unknown(node: &Node, wall: Timestamp) -> Vec<NodeCondition> {
    let status = node.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let now = Time(conditions::to_seconds(wall));
    for type_ in CONDITIONS {
        match conditions.iter_mut().find(|one| one.type_ == type_) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(now.clone());
            }
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(now.clone()),
            }),
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(conditions: &Value) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "n", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "status": { "conditions": conditions },
        }))
        .expect("a node")
    }

    fn ready(heartbeat: &str) -> Node {
        node(&json!([{ "type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat }]))
    }

    fn lease(renewed: &str) -> Lease {
        serde_json::from_value(json!({ "metadata": {}, "spec": { "renewTime": renewed } }))
            .expect("a lease")
    }

    fn wall() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().expect("a time")
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_lives_by_its_lease_or_by_its_status() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let quiet = ready("2026-01-01T00:59:00Z");
        let old = lease("2026-01-01T00:59:30.000000Z");
        let first = assess(&quiet, Some(&old), None, start, wall());
        assert_eq!(first.current, Some(Ready::True));
        let again = assess(&quiet, Some(&old), Some(&first.health), after(50), wall());
        assert_eq!((again.current, again.conditions), (Some(Ready::True), None));
        // The lease keeps it alive, and so does a new heartbeat.
        let renewed = lease("2026-01-01T01:00:10.000000Z");
        let alive = assess(
            &quiet,
            Some(&renewed),
            Some(&first.health),
            after(51),
            wall(),
        );
        assert_eq!(alive.current, Some(Ready::True));
        let beaten = ready("2026-01-01T01:00:20Z");
        let alive = assess(&beaten, None, Some(&alive.health), after(100), wall());
        assert_eq!(alive.current, Some(Ready::True));

        let dead = assess(&quiet, Some(&old), Some(&first.health), after(51), wall());
        assert_eq!(
            (dead.observed, dead.current),
            (Ready::True, Some(Ready::Unknown))
        );
        let conditions = dead.conditions.expect("conditions to write");
        let told: Vec<String> = conditions
            .iter()
            .map(|condition| {
                format!(
                    "{}={} {}",
                    condition.type_,
                    condition.status,
                    condition.reason.as_deref().unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "Ready=Unknown NodeStatusUnknown",
                "MemoryPressure=Unknown NodeStatusNeverUpdated",
                "DiskPressure=Unknown NodeStatusNeverUpdated",
                "PIDPressure=Unknown NodeStatusNeverUpdated",
            ]
        );
        // Once written, nothing more is to be written.
        let mut marked = quiet;
        if let Some(status) = &mut marked.status {
            status.conditions = Some(conditions);
        }
        let dead = assess(&marked, Some(&old), Some(&dead.health), after(60), wall());
        assert_eq!(
            (dead.current, dead.conditions),
            (Some(Ready::Unknown), None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_never_spoke_is_given_a_longer_start() {
        tokio::time::advance(Duration::from_secs(10_000)).await;
        let start = Instant::now();
        let silent = node(&json!([]));
        let young = "2026-01-01T00:00:59Z".parse().expect("a time");
        let first = assess(&silent, None, None, start, young);
        assert_eq!((first.current, first.conditions), (None, None));
        let later = start + Duration::from_secs(2);
        let dead = assess(&silent, None, Some(&first.health), later, young);
        assert_eq!(dead.current, Some(Ready::Unknown));
        assert_eq!(dead.observed, Ready::Unknown);
        assert_eq!(dead.conditions.map(|conditions| conditions.len()), Some(4));
    }
}
