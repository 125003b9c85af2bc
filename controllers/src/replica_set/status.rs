//! The status of a ReplicaSet or ReplicationController.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::kind::Replicated;
use crate::{Error, conditions, labels, pods};

/// Both kinds' status, in the shape of one.
pub(super) type Status = ReplicaSetStatus;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The pods there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub active: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
}

pub(super) fn count<K: Replicated>(
    set: &K,
    active: &[Arc<Pod>],
    terminating: usize,
    now: Timestamp,
) -> Count {
    let wanted = set
        .template()
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.as_ref());
    let mut count = Count {
        active: number(active.len()),
        terminating: number(terminating),
        ..Count::default()
    };
    for pod in active {
        count.fully_labeled += i32::from(labels::contains(pod.metadata.labels.as_ref(), wanted));
        count.ready += i32::from(pods::is_ready(pod));
        count.available += i32::from(pods::is_available(pod, set.min_ready_seconds(), now));
    }
    count
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The status to write; `None` when it stands already.
pub(super) fn next<K: Replicated>(
    set: &K,
    count: Count,
    outcome: &Result<(), Error>,
    now: Timestamp,
) -> Option<Status> {
    let known = set.status();
    let mut conditions = known.conditions.clone();
    let failing = conditions::find(known.conditions.as_ref(), REPLICA_FAILURE).is_some();
    match outcome {
        Err(error) if !failing => {
            let reason = match count.active.cmp(&set.replicas()) {
                std::cmp::Ordering::Less => Some("FailedCreate"),
                std::cmp::Ordering::Greater => Some("FailedDelete"),
                std::cmp::Ordering::Equal => None,
            };
            let condition = ReplicaSetCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(conditions::to_seconds(now))),
                reason: reason.map(str::to_owned),
                message: Some(error.to_string()),
            };
            conditions::put(&mut conditions, condition);
        }
        Ok(()) if failing => conditions::remove(&mut conditions, REPLICA_FAILURE),
        _ => {}
    }
    let next = Status {
        replicas: count.active,
        fully_labeled_replicas: Some(count.fully_labeled),
        ready_replicas: Some(count.ready),
        available_replicas: Some(count.available),
        terminating_replicas: K::COUNTS_TERMINATING.then_some(count.terminating),
        observed_generation: set.meta().generation,
        conditions,
    };
    (!same(&known, &next)).then_some(next)
}

/// An absent count is zero.
fn same(known: &Status, next: &Status) -> bool {
    known.replicas == next.replicas
        && known.fully_labeled_replicas.unwrap_or(0) == next.fully_labeled_replicas.unwrap_or(0)
        && known.ready_replicas.unwrap_or(0) == next.ready_replicas.unwrap_or(0)
        && known.available_replicas.unwrap_or(0) == next.available_replicas.unwrap_or(0)
        && known.terminating_replicas == next.terminating_replicas
        && known.observed_generation == next.observed_generation
        && known.conditions == next.conditions
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    use super::*;

    fn set(replicas: i32, status: &serde_json::Value) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "generation": 2 },
            "spec": {
                "replicas": replicas,
                "minReadySeconds": 10,
                "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web", "tier": "front" } } },
            },
            "status": status,
        }))
        .expect("a replica set")
    }

    fn pod(tier: &str, ready_since: Option<&str>) -> Arc<Pod> {
        let conditions = ready_since.map(
            |since| json!([{ "type": "Ready", "status": "True", "lastTransitionTime": since }]),
        );
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "p", "labels": { "app": "web", "tier": tier } },
                "status": { "conditions": conditions },
            }))
            .expect("a pod"),
        )
    }

    #[test]
    fn pods_are_counted_by_labels_readiness_and_how_long_they_are_ready() {
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        let active = [
            pod("front", Some("2026-01-01T00:00:00Z")),
            pod("front", Some("2026-01-01T00:00:55Z")),
            pod("back", None),
        ];
        let count = count(&set(3, &json!(null)), &active, 1, now);
        assert_eq!(
            count,
            Count {
                active: 3,
                fully_labeled: 2,
                ready: 2,
                available: 1,
                terminating: 1
            }
        );
        assert_eq!(
            pods::next_available(&active, 10, now),
            Some(std::time::Duration::from_secs(5))
        );
    }

    #[test]
    fn a_failure_shows_as_a_condition_until_it_is_over() {
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        let refused = Err(Error::Refused("exceeded quota".to_owned()));
        let count = Count::default();
        let failed = next(&set(1, &json!(null)), count, &refused, now).expect("a change");
        assert_eq!(
            serde_json::to_value(&failed.conditions).expect("JSON"),
            json!([{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                "message": "exceeded quota", "lastTransitionTime": "2026-01-01T00:01:00Z" }])
        );
        let failing = set(1, &serde_json::to_value(&failed).expect("JSON"));
        assert_eq!(next(&failing, count, &refused, now), None);
        let mended = next(&failing, count, &Ok(()), now).expect("a change");
        assert_eq!(mended.conditions, None);
        assert_eq!(mended.observed_generation, Some(2));
    }
}
