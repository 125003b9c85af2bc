//! Which pods go first when there are too many.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::pods;

/// How dear a pod is to whoever set this; the cheaper go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What decides, most important first; the smallest goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    /// Active pods of the same workload on the same node.
    neighbours: Reverse<usize>,
    ready_for: i64,
    restarts: Reverse<(i32, i32)>,
    age: i64,
    /// Within one order of magnitude of age, anything but age decides.
    uid: String,
}

/// Orders `active` so that those to delete first come first.
///
/// `related` are all pods of the same workload, those of its other replica sets too.
pub(super) fn by_deletion(active: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *on_node.entry(pods::node_name(pod)).or_default() += 1;
    }
    active.sort_by_cached_key(|pod| {
        let neighbours = on_node.get(pods::node_name(pod)).copied().unwrap_or(0);
        rank(pod, neighbours, now)
    });
}

fn rank(pod: &Pod, neighbours: usize, now: Timestamp) -> Rank {
    let ready = pods::is_ready(pod);
    Rank {
        assigned: !pods::node_name(pod).is_empty(),
        phase: match pods::phase(pod) {
            "Unknown" => 1,
            "Running" => 2,
            _ => 0,
        },
        ready,
        cost: deletion_cost(pod),
        neighbours: Reverse(neighbours),
        ready_for: if ready {
            magnitude(pods::ready_since(pod), now)
        } else {
            0
        },
        restarts: Reverse(pods::restarts(pod)),
        age: magnitude(pod.creation_timestamp().map(|time| time.0), now),
        uid: pod.uid().unwrap_or_default(),
    }
}

/// The annotation's value; zero when it is absent or not written as upstream wants it.
fn deletion_cost(pod: &Pod) -> i32 {
    let Some(text) = pod.annotations().get(DELETION_COST) else {
        return 0;
    };
    let well_formed = text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| well_formed).unwrap_or(0)
}

/// The binary order of magnitude of the time since then. What has no time is youngest.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let Some(since) = since else {
        return i64::MIN;
    };
    let nanoseconds = now.duration_since(since).as_nanos();
    if nanoseconds > 0 {
        i64::from(nanoseconds.ilog2())
    } else {
        -1
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, extra: Value) -> Arc<Pod> {
        let mut object = json!({
            "metadata": { "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "containers": [], "nodeName": node },
            "status": { "phase": phase },
        });
        merge(&mut object, extra);
        Arc::new(serde_json::from_value(object).expect("a pod"))
    }

    fn merge(target: &mut Value, patch: Value) {
        match (target, patch) {
            (Value::Object(target), Value::Object(patch)) => {
                for (key, value) in patch {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
            (target, patch) => *target = patch,
        }
    }

    fn ready(since: &str) -> Value {
        json!({ "status": { "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": since },
        ]}})
    }

    /// Pods in the order given must be deleted in that order, whatever order they come in.
    fn assert_order(pods: &[Arc<Pod>], related: &[Arc<Pod>]) {
        let now = "2026-01-02T00:00:00Z".parse().expect("a time");
        let mut shuffled = pods.to_vec();
        shuffled.reverse();
        by_deletion(&mut shuffled, related, now);
        let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        assert_eq!(names(&shuffled), names(pods));
    }

    #[test]
    fn pods_that_have_come_less_far_go_first() {
        let pods = [
            pod("unassigned", "", "Pending", json!({})),
            pod("pending", "n", "Pending", json!({})),
            pod("unknown", "n", "Unknown", json!({})),
            pod("running", "n", "Running", json!({})),
            pod("ready", "n", "Running", ready("2026-01-01T00:00:00Z")),
        ];
        assert_order(&pods, &[]);
    }

    #[test]
    fn cost_then_crowding_then_readiness_then_restarts_then_age_decide() {
        let cost = |cost: &str| {
            json!({ "metadata": { "annotations": {
                "controller.kubernetes.io/pod-deletion-cost": cost } } })
        };
        assert_order(
            &[
                pod("cheap", "n", "Running", cost("-5")),
                pod("plain", "n", "Running", cost("garbage")),
                pod("dear", "n", "Running", cost("100")),
            ],
            &[],
        );
        let crowded = pod("crowded", "busy", "Running", json!({}));
        let alone = pod("alone", "idle", "Running", json!({}));
        let related = [
            crowded.clone(),
            alone.clone(),
            pod("other", "busy", "Running", json!({})),
        ];
        assert_order(&[crowded, alone], &related);
        let restarted = json!({ "status": { "containerStatuses": [
            { "name": "c", "ready": true, "image": "", "imageID": "", "restartCount": 3 },
        ]}});
        assert_order(
            &[
                pod("fresh", "n", "Running", ready("2026-01-01T23:59:00Z")),
                pod("old", "n", "Running", ready("2026-01-01T00:00:00Z")),
            ],
            &[],
        );
        assert_order(
            &[
                pod("restarted", "n", "Running", restarted),
                pod("calm", "n", "Running", json!({})),
            ],
            &[],
        );
        let young = json!({ "metadata": { "creationTimestamp": "2026-01-01T23:59:00Z" } });
        assert_order(
            &[
                pod("young", "n", "Running", young),
                pod("aged", "n", "Running", json!({})),
            ],
            &[],
        );
    }

    #[test]
    fn ages_of_one_magnitude_are_alike() {
        let created = |at: &str| json!({ "metadata": { "creationTimestamp": at } });
        assert_order(
            &[
                pod("a", "n", "Running", created("2026-01-01T00:00:00Z")),
                pod("b", "n", "Running", created("2026-01-01T00:10:00Z")),
            ],
            &[],
        );
    }
}
