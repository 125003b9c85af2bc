//! The status and the conditions of a deployment.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt as _;

use super::{
    decide::Rollout,
    sets::{Counts, Set},
};
use crate::conditions;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const CREATE_FAILED: &str = "ReplicaSetCreateError";

/// How long a rollout may stand still; `None` when there is no limit.
fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(i64::from(seconds)))
}

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    let now = Time(conditions::to_seconds(now));
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
        reason: Some(reason.to_owned()),
        message: Some(message),
    }
}

/// Puts the condition into the status, unless one with its status and reason is there.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    let known = conditions::find(status.conditions.as_ref(), &condition.type_);
    if let Some(known) = known
        && known.status == condition.status
    {
        if known.reason == condition.reason {
            return;
        }
        condition.last_transition_time = known.last_transition_time.clone();
    }
    conditions::put(&mut status.conditions, condition);
}

fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    conditions::find(status.conditions.as_ref(), PROGRESSING)
}

fn has_reason(condition: Option<&DeploymentCondition>, reason: &str) -> bool {
    condition.is_some_and(|condition| condition.reason.as_deref() == Some(reason))
}

/// Notes that the deployment was paused or resumed.
pub(super) fn set_paused(rollout: &mut Rollout<'_>, paused: bool) {
    let known = progressing(&rollout.status);
    if deadline(rollout.deployment).is_none() || has_reason(known, TIMED_OUT) {
        return;
    }
    let (reason, message) = match (paused, has_reason(known, PAUSED)) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => (RESUMED, "Deployment is resumed"),
        _ => return,
    };
    let condition = condition(
        PROGRESSING,
        "Unknown",
        reason,
        message.to_owned(),
        rollout.now,
    );
    set(&mut rollout.status, condition);
}

pub(super) fn found_new_set(rollout: &mut Rollout<'_>, name: &str) {
    if deadline(rollout.deployment).is_some() && progressing(&rollout.status).is_none() {
        let message = format!("Found new replica set \"{name}\"");
        let found = condition(
            PROGRESSING,
            "True",
            "FoundNewReplicaSet",
            message,
            rollout.now,
        );
        set(&mut rollout.status, found);
    }
}

pub(super) fn created_new_set(rollout: &mut Rollout<'_>, name: &str) {
    if deadline(rollout.deployment).is_some() {
        let message = format!("Created new replica set \"{name}\"");
        let created = condition(
            PROGRESSING,
            "True",
            "NewReplicaSetCreated",
            message,
            rollout.now,
        );
        set(&mut rollout.status, created);
    }
}

/// The deployment's status after its new set could not be created.
pub(super) fn create_failed(
    deployment: &Deployment,
    message: &str,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let failed = condition(PROGRESSING, "False", CREATE_FAILED, message.to_owned(), now);
    set(&mut status, failed);
    (deployment.status.as_ref() != Some(&status)).then_some(status)
}

/// Whether every replica is of the new template and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let desired = replicas.unwrap_or(1);
    status.updated_replicas.unwrap_or(0) == desired
        && status.replicas.unwrap_or(0) == desired
        && status.available_replicas.unwrap_or(0) == desired
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// The status that the sets add up to.
pub(super) fn observed(rollout: &Rollout<'_>) -> DeploymentStatus {
    let mut total = Counts::default();
    for set in &rollout.sets {
        let counts = set.status();
        total.replicas += counts.replicas;
        total.ready += counts.ready;
        total.available += counts.available;
    }
    let updated = rollout.new_set().map_or(0, |set| set.status().replicas);
    let bounds = rollout.bounds;
    let mut status = DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: present(total.replicas),
        updated_replicas: present(updated),
        ready_replicas: present(total.ready),
        available_replicas: present(total.available),
        unavailable_replicas: present((rollout.replicas() - total.available).max(0)),
        terminating_replicas: terminating(&rollout.sets),
        collision_count: rollout.status.collision_count,
        conditions: rollout.status.conditions.clone(),
    };
    let available = if total.available >= bounds.desired - bounds.unavailable {
        condition(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".to_owned(),
            rollout.now,
        )
    } else {
        condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".to_owned(),
            rollout.now,
        )
    };
    set(&mut status, available);
    status
}

/// Zero is not written, as upstream's types leave it out.
fn present(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// The pods that are terminating; `None` as long as some set does not say.
fn terminating(sets: &[Set]) -> Option<i32> {
    let mut sum = 0;
    for set in sets {
        let status = set.known.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation);
        match status.and_then(|status| status.terminating_replicas) {
            Some(count) => sum += count,
            None if observed.unwrap_or(0) == 0 => {}
            None => return None,
        }
    }
    Some(sum)
}

/// As [`observed`], with how the rollout gets on.
pub(super) fn of_rollout(rollout: &Rollout<'_>) -> DeploymentStatus {
    let mut status = observed(rollout);
    let deployment = rollout.deployment;
    if deadline(deployment).is_none() {
        conditions::remove(&mut status.conditions, PROGRESSING);
    } else {
        let known = progressing(&rollout.status);
        let done =
            status.replicas == status.updated_replicas && has_reason(known, NEW_SET_AVAILABLE);
        if !done && let Some(condition) = progress(rollout, &status) {
            if condition.reason.as_deref() == Some("ReplicaSetUpdated") {
                conditions::put(&mut status.conditions, condition);
            } else {
                set(&mut status, condition);
            }
        }
    }
    match replica_failure(rollout) {
        Some(failure) => set(&mut status, failure),
        None => conditions::remove(&mut status.conditions, REPLICA_FAILURE),
    }
    status
}

/// The condition that tells of a step forward, of the end, or of none for too long.
fn progress(rollout: &Rollout<'_>, status: &DeploymentStatus) -> Option<DeploymentCondition> {
    let subject = match rollout.new_set() {
        Some(set) => format!("ReplicaSet \"{}\"", set.name()),
        None => format!("Deployment \"{}\"", rollout.deployment.name_any()),
    };
    let now = rollout.now;
    if is_complete(rollout.deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        return Some(condition(
            PROGRESSING,
            "True",
            NEW_SET_AVAILABLE,
            message,
            now,
        ));
    }
    if has_progressed(rollout.deployment.status.as_ref(), status) {
        let message = format!("{subject} is progressing.");
        let mut condition = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(known) = progressing(&rollout.status)
            && known.status == "True"
        {
            condition.last_transition_time = known.last_transition_time.clone();
        }
        return Some(condition);
    }
    if is_timed_out(rollout.deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        return Some(condition(PROGRESSING, "False", TIMED_OUT, message, now));
    }
    None
}

fn has_progressed(known: Option<&DeploymentStatus>, next: &DeploymentStatus) -> bool {
    let none = DeploymentStatus::default();
    let known = known.unwrap_or(&none);
    let old = |status: &DeploymentStatus| {
        status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0)
    };
    next.updated_replicas.unwrap_or(0) > known.updated_replicas.unwrap_or(0)
        || old(next) < old(known)
        || next.ready_replicas.unwrap_or(0) > known.ready_replicas.unwrap_or(0)
        || next.available_replicas.unwrap_or(0) > known.available_replicas.unwrap_or(0)
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let known = progressing(status);
    if has_reason(known, NEW_SET_AVAILABLE) {
        return false;
    }
    has_reason(known, TIMED_OUT) || expires(deployment, known).is_some_and(|at| at < now)
}

/// When the rollout has stood still for too long.
fn expires(deployment: &Deployment, condition: Option<&DeploymentCondition>) -> Option<Timestamp> {
    let since = condition?.last_update_time.as_ref()?.0;
    since.checked_add(deadline(deployment)?).ok()
}

/// After how long to look again at a rollout that may stand still.
pub(super) fn next_check(deployment: &Deployment, now: Timestamp) -> Option<Duration> {
    let status = deployment.status.as_ref()?;
    let known = progressing(status);
    if is_complete(deployment, status) || has_reason(known, TIMED_OUT) {
        return None;
    }
    let left = expires(deployment, known)?.duration_since(now);
    let left = Duration::try_from(left).unwrap_or_default();
    Some(left + Duration::from_secs(1))
}

/// Why pods cannot be created or deleted, as the new set says or else the first that does.
fn replica_failure(rollout: &Rollout<'_>) -> Option<DeploymentCondition> {
    let failure = |set: &Set| -> Option<ReplicaSetCondition> {
        let conditions = set.known.status.as_ref()?.conditions.as_ref();
        conditions::find(conditions, REPLICA_FAILURE).cloned()
    };
    let found = rollout
        .new_set()
        .and_then(failure)
        .or_else(|| rollout.sets.iter().find_map(failure))?;
    Some(DeploymentCondition {
        type_: found.type_,
        status: found.status,
        last_update_time: found.last_transition_time.clone(),
        last_transition_time: found.last_transition_time,
        reason: found.reason,
        message: found.message,
    })
}
