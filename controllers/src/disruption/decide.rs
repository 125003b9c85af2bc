//! How many pods of a budget may be disrupted.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodCondition, PodStatus},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
};

use crate::{
    conditions, labels,
    percent::{self, Round},
    pods,
};

/// A pod that was evicted counts as gone for this long, even while it is still there.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
/// A pod that was to be disrupted and is still there after this long, is not.
const STALE: SignedDuration = SignedDuration::from_secs(120);

const ALLOWED: &str = "DisruptionAllowed";
const TARGET: &str = "DisruptionTarget";

pub(super) fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    budget.metadata.namespace == pod.metadata.namespace
        && selector.is_some_and(|selector| labels::selects(selector, pod.metadata.labels.as_ref()))
}

/// How many pods there should be, and how many of them healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub pods: i32,
    pub healthy: i32,
}

/// Whether it takes the sizes of the pods' controllers to tell what is expected.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// `scale` is the sum of the controllers' sizes, `there` the number of pods.
pub(super) fn expected(
    budget: &PodDisruptionBudget,
    scale: i32,
    there: usize,
) -> Result<Expected, String> {
    let Some(spec) = &budget.spec else {
        return Ok(Expected::default());
    };
    let scaled = |value: &IntOrString| {
        percent::scaled(value, scale, Round::Up).ok_or_else(|| {
            "invalid value for IntOrString: invalid type: string is not a percentage".to_owned()
        })
    };
    let pods = i32::try_from(there).unwrap_or(i32::MAX);
    Ok(match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => Expected {
            pods: scale,
            healthy: (scale - scaled(unavailable)?).max(0),
        },
        (None, Some(IntOrString::Int(available))) => Expected {
            pods,
            healthy: *available,
        },
        (None, Some(available)) => Expected {
            pods: scale,
            healthy: scaled(available)?,
        },
        (None, None) => Expected::default(),
    })
}

/// The pods that were evicted a moment ago, those that have waited too long, and when to look again.
pub(super) struct Disrupted {
    pub pods: BTreeMap<String, Time>,
    pub overdue: Vec<Arc<Pod>>,
    pub again: Option<Duration>,
}

pub(super) fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Disrupted {
    let mut found = Disrupted {
        pods: BTreeMap::new(),
        overdue: Vec::new(),
        again: None,
    };
    let known = budget.status.as_ref();
    let known = known.and_then(|status| status.disrupted_pods.as_ref());
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let since = known.and_then(|known| known.get(name));
        let Some(since) = since.filter(|_| pod.metadata.deletion_timestamp.is_none()) else {
            continue;
        };
        let left = since
            .0
            .checked_add(DELETION_TIMEOUT)
            .map(|end| end.duration_since(now))
            .unwrap_or_default();
        match Duration::try_from(left) {
            Ok(left) => {
                found.again = Some(found.again.map_or(left, |known| known.min(left)));
                found.pods.insert(name.to_owned(), since.clone());
            }
            Err(_) => found.overdue.push(pod.clone()),
        }
    }
    found
}

fn is_healthy(pod: &Pod, disrupted: &BTreeMap<String, Time>) -> bool {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && !disrupted.contains_key(name)
        && pods::is_ready(pod)
}

/// The status to write; `None` when it stands already.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: Expected,
    disrupted: BTreeMap<String, Time>,
    now: Timestamp,
) -> Option<PodDisruptionBudgetStatus> {
    let known = budget.status.clone().unwrap_or_default();
    let healthy = pods
        .iter()
        .filter(|pod| is_healthy(pod, &disrupted))
        .count();
    let current = i32::try_from(healthy).unwrap_or(i32::MAX);
    let spare = (current - expected.healthy).max(0);
    let allowed = if expected.pods > 0 { spare } else { 0 };
    let generation = budget.metadata.generation;
    let (status, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let mut next = PodDisruptionBudgetStatus {
        current_healthy: Some(current),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: generation,
        conditions: known.conditions.clone(),
    };
    set_allowed(&mut next, status, reason, "", now);
    (next != known).then_some(next)
}

/// The status when it cannot be told what is allowed: nothing is. `None` when it says so already.
pub(super) fn failed(
    budget: &PodDisruptionBudget,
    message: &str,
    now: Timestamp,
) -> Option<PodDisruptionBudgetStatus> {
    let known = budget.status.clone().unwrap_or_default();
    let mut next = known.clone();
    next.disruptions_allowed = Some(0);
    set_allowed(&mut next, "False", "SyncFailed", message, now);
    (next != known).then_some(next)
}

fn set_allowed(
    target: &mut PodDisruptionBudgetStatus,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let known = conditions::find(target.conditions.as_ref(), ALLOWED);
    let since = known
        .filter(|known| known.status == status)
        .map(|known| known.last_transition_time.clone());
    let condition = Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: target.observed_generation,
        last_transition_time: since.unwrap_or(Time(conditions::to_seconds(now))),
    };
    conditions::put(&mut target.conditions, condition);
}

/// How long the condition that says the pod is about to be disrupted may still hold; `None` when
/// it does not hold, or the pod has ended or is about to.
pub(super) fn target_left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.metadata.deletion_timestamp.is_some() || pods::is_terminal(pod) {
        return None;
    }
    let condition = pods::condition(pod, TARGET)?;
    if condition.status != "True" || condition.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = condition.last_transition_time.as_ref();
    let since = since.map_or(Timestamp::UNIX_EPOCH, |since| since.0);
    let end = since.checked_add(STALE).ok()?;
    Some(Duration::try_from(end.duration_since(now)).unwrap_or_default())
}

/// The pod's status, in which it is not about to be disrupted any more.
pub(super) fn spared(pod: &Pod, now: Timestamp) -> PodStatus {
    let mut status = pod.status.clone().unwrap_or_default();
    let condition = PodCondition {
        type_: TARGET.to_owned(),
        status: "False".to_owned(),
        observed_generation: pod.metadata.generation,
        last_transition_time: Some(Time(conditions::to_seconds(now))),
        ..PodCondition::default()
    };
    conditions::put(&mut status.conditions, condition);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().expect("a time")
    }

    fn budget(spec: &Value, status: &Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": { "name": "b", "namespace": "ns", "generation": 3 },
            "spec": spec, "status": status,
        }))
        .expect("a budget")
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "ns" },
                "status": { "phase": "Running",
                    "conditions": [{ "type": "Ready", "status": status }] },
            }))
            .expect("a pod"),
        )
    }

    #[test]
    fn expectations_come_from_pods_or_from_their_controllers() {
        let of = |spec: Value| {
            let budget = budget(&spec, &Value::Null);
            let found = expected(&budget, 10, 7).expect("a number");
            (needs_scale(&budget), found.pods, found.healthy)
        };
        assert_eq!(of(json!({ "minAvailable": 5 })), (false, 7, 5));
        assert_eq!(of(json!({ "minAvailable": "25%" })), (true, 10, 3));
        assert_eq!(of(json!({ "maxUnavailable": 3 })), (true, 10, 7));
        assert_eq!(of(json!({ "maxUnavailable": "25%" })), (true, 10, 7));
        assert_eq!(of(json!({ "maxUnavailable": 30 })), (true, 10, 0));
        assert_eq!(of(json!({})), (false, 0, 0));
    }

    #[test]
    fn healthy_pods_above_what_is_wanted_may_go() {
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let of = |healthy, pods_there: &[Arc<Pod>]| {
            let expected = Expected { pods: 3, healthy };
            let budget = budget(&json!({}), &Value::Null);
            let next = status(&budget, pods_there, expected, BTreeMap::new(), now());
            let next = next.expect("a status");
            let condition = &next.conditions.as_ref().expect("a condition")[0];
            assert_eq!(condition.observed_generation, Some(3));
            (
                next.disruptions_allowed.unwrap_or(0),
                condition.reason.clone(),
            )
        };
        assert_eq!(of(1, &pods), (1, "SufficientPods".to_owned()));
        assert_eq!(of(2, &pods), (0, "InsufficientPods".to_owned()));
        assert_eq!(of(5, &pods), (0, "InsufficientPods".to_owned()));
    }

    #[test]
    fn what_was_evicted_a_moment_ago_does_not_count() {
        let known = json!({ "disruptedPods": {
            "a": "2026-01-01T00:59:00Z", "b": "2026-01-01T00:50:00Z", "z": "2026-01-01T00:59:00Z",
        }, "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 });
        let mut budget = budget(&json!({}), &known);
        let pods = [pod("a", true), pod("b", true), pod("c", true)];
        let found = disrupted(&budget, &pods, now());
        assert_eq!(found.pods.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(found.overdue.len(), 1);
        assert_eq!(found.again, Some(Duration::from_secs(60)));
        let expected = Expected {
            pods: 3,
            healthy: 1,
        };
        let next = status(&budget, &pods, expected, found.pods.clone(), now());
        let next = next.expect("a status");
        assert_eq!(
            (next.current_healthy, next.disruptions_allowed),
            (Some(2), Some(1))
        );
        budget.status = Some(next);
        assert_eq!(status(&budget, &pods, expected, found.pods, now()), None);
    }

    #[test]
    fn a_failure_allows_nothing_and_is_told_once() {
        let mut budget = budget(&json!({}), &Value::Null);
        let next = failed(&budget, "why", now()).expect("a status");
        let condition = &next.conditions.as_ref().expect("a condition")[0];
        assert_eq!(
            (condition.reason.as_str(), condition.message.as_str()),
            ("SyncFailed", "why")
        );
        budget.status = Some(next);
        assert_eq!(failed(&budget, "why", now()), None);
    }

    #[test]
    fn a_disruption_that_does_not_come_is_called_off() {
        let targeted = |since: &str, reason: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "p" },
                "status": { "phase": "Running", "conditions": [{ "type": "DisruptionTarget",
                    "status": "True", "reason": reason, "lastTransitionTime": since }] },
            }))
            .expect("a pod")
        };
        let recent = targeted("2026-01-01T00:59:00Z", "PreemptionByScheduler");
        assert_eq!(target_left(&recent, now()), Some(Duration::from_secs(60)));
        let old = targeted("2026-01-01T00:00:00Z", "PreemptionByScheduler");
        assert_eq!(target_left(&old, now()), Some(Duration::ZERO));
        let kubelet = targeted("2026-01-01T00:00:00Z", "TerminationByKubelet");
        assert_eq!(target_left(&kubelet, now()), None);
        let spared = Pod {
            status: Some(spared(&old, now())),
            ..old
        };
        assert_eq!(target_left(&spared, now()), None);
    }
}
