//! What ReplicaSets and ReplicationControllers have in common.

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
    core::v1::{
        PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
        ReplicationControllerStatus,
    },
};

use super::status::Status;
use crate::{
    labels::{self, Labels},
    objects::Kept,
};

/// A kind that keeps a number of pods.
pub(super) trait Replicated: Kept {
    /// Whether the status says how many pods are terminating.
    const COUNTS_TERMINATING: bool;
    /// What upstream calls the queue of its controller.
    const QUEUE: &str;

    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    fn selects(&self, labels: Option<&Labels>) -> bool;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn status(&self) -> Status;
    fn with_status(&self, status: Status) -> Self;
}

impl Replicated for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;
    const QUEUE: &str = "replicaset";

    fn replicas(&self) -> i32 {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas);
        replicas.unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        let seconds = self.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        seconds.unwrap_or(0)
    }

    fn selects(&self, labels: Option<&Labels>) -> bool {
        let spec = self.spec.as_ref();
        spec.is_some_and(|spec| labels::selects(&spec.selector, labels))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: Status) -> Self {
        ReplicaSet {
            status: Some(status),
            ..self.clone()
        }
    }
}

impl Replicated for ReplicationController {
    const COUNTS_TERMINATING: bool = false;
    const QUEUE: &str = "replicationmanager";

    fn replicas(&self) -> i32 {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas);
        replicas.unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        let seconds = self.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        seconds.unwrap_or(0)
    }

    fn selects(&self, labels: Option<&Labels>) -> bool {
        let spec = self.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|wanted| !wanted.is_empty() && labels::contains(labels, Some(wanted)))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|conditions| {
            let conditions = conditions.into_iter();
            conditions
                .map(|condition| ReplicaSetCondition {
                    last_transition_time: condition.last_transition_time,
                    message: condition.message,
                    reason: condition.reason,
                    status: condition.status,
                    type_: condition.type_,
                })
                .collect()
        });
        ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions,
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let conditions = status.conditions.map(|conditions| {
            let conditions = conditions.into_iter();
            conditions
                .map(|condition| ReplicationControllerCondition {
                    last_transition_time: condition.last_transition_time,
                    message: condition.message,
                    reason: condition.reason,
                    status: condition.status,
                    type_: condition.type_,
                })
                .collect()
        });
        ReplicationController {
            status: Some(ReplicationControllerStatus {
                available_replicas: status.available_replicas,
                conditions,
                fully_labeled_replicas: status.fully_labeled_replicas,
                observed_generation: status.observed_generation,
                ready_replicas: status.ready_replicas,
                replicas: status.replicas,
            }),
            ..self.clone()
        }
    }
}
