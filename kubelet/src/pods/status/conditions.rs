//! The conditions of a pod (upstream's pkg/kubelet/status/generate.go).

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Facts, phase::is_terminal};
use crate::pods::{
    actions::{must_restart_all, sandbox_change},
    spec::{init_containers, is_sidecar, main_containers, may_restart_all, spec},
};

pub const READY: &str = "Ready";
pub const CONTAINERS_READY: &str = "ContainersReady";
pub const INITIALIZED: &str = "Initialized";
pub const SCHEDULED: &str = "PodScheduled";
pub const READY_TO_START: &str = "PodReadyToStartContainers";
pub const ALL_CONTAINERS_RESTARTING: &str = "AllContainersRestarting";
pub const RESIZE_PENDING: &str = "PodResizePending";
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Written by the kubelet and by others.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Whether only the kubelet writes the condition.
pub fn is_ours(condition_type: &str) -> bool {
    matches!(
        condition_type,
        READY
            | CONTAINERS_READY
            | INITIALIZED
            | SCHEDULED
            | READY_TO_START
            | ALL_CONTAINERS_RESTARTING
            | RESIZE_PENDING
            | RESIZE_IN_PROGRESS
    )
}

pub fn find<'a>(status: &'a PodStatus, condition_type: &str) -> Option<&'a PodCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == condition_type)
}

/// Whether the status has that condition and it is true.
pub fn is_true(status: &PodStatus, condition_type: &str) -> bool {
    find(status, condition_type).is_some_and(|condition| condition.status == "True")
}

/// A condition before it is known when it changed and which generation it is about.
struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Verdict {
            status: true,
            reason: "",
            message: String::new(),
        }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Verdict {
            status: false,
            reason,
            message,
        }
    }

    fn condition(self, condition_type: &str, facts: &Facts<'_>) -> PodCondition {
        let status = if self.status { "True" } else { "False" };
        let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let before = find(facts.old, condition_type).filter(|before| before.status == status);
        PodCondition {
            type_: condition_type.to_owned(),
            status: status.to_owned(),
            reason: optional(self.reason),
            message: optional(&self.message),
            observed_generation: facts.pod.metadata.generation,
            last_probe_time: None,
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or(Some(Time(facts.now))),
        }
    }
}

/// Fills in the conditions; everything else of the status stands already.
pub fn fill(facts: &Facts<'_>, restarting: bool, status: &mut PodStatus) {
    let reported = facts.pod.status.as_ref();
    let mut conditions: Vec<PodCondition> = reported
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    conditions.retain(|condition| !is_ours(&condition.type_));
    if let Some(disruption) = find(facts.old, DISRUPTION_TARGET) {
        conditions.retain(|condition| condition.type_ != DISRUPTION_TARGET);
        conditions.push(disruption.clone());
    }
    let ready_to_start = match sandbox_change(facts.pod, facts.observed).needed {
        true => Verdict::no("", String::new()),
        false => Verdict::yes(),
    };
    conditions.push(ready_to_start.condition(READY_TO_START, facts));
    conditions.push(initialized(facts, status).condition(INITIALIZED, facts));
    conditions.push(ready(facts.pod, status, &conditions).condition(READY, facts));
    conditions.push(containers_ready(facts.pod, status).condition(CONTAINERS_READY, facts));
    conditions.push(Verdict::yes().condition(SCHEDULED, facts));
    resize(facts, &mut conditions);
    if may_restart_all(spec(facts.pod)) {
        let verdict = all_containers_restarting(facts, restarting, status);
        let mut condition = verdict.condition(ALL_CONTAINERS_RESTARTING, facts);
        condition.observed_generation = None;
        conditions.push(condition);
    }
    status.conditions = Some(conditions);
}

/// A resize shows as long as it waits or is under way.
fn resize(facts: &Facts<'_>, conditions: &mut Vec<PodCondition>) {
    let verdict = |reason, message: &str| Verdict {
        status: true,
        reason,
        message: message.to_owned(),
    };
    if let Some(pending) = &facts.resize.pending {
        let verdict = verdict("Deferred", &pending.message);
        let mut condition = verdict.condition(RESIZE_PENDING, facts);
        condition.observed_generation = pending.generation;
        conditions.push(condition);
    }
    if let Some(in_progress) = &facts.resize.in_progress {
        let verdict = match &in_progress.error {
            Some(error) => verdict("Error", error),
            None => verdict("", ""),
        };
        let mut condition = verdict.condition(RESIZE_IN_PROGRESS, facts);
        condition.observed_generation = in_progress.generation;
        conditions.push(condition);
    }
}

fn all_statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
}

fn phase(status: &PodStatus) -> &str {
    status.phase.as_deref().unwrap_or_default()
}

/// Upstream prints lists as Go does: `[a b]`.
fn listed(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn names(parts: [(&str, &[&str]); 2]) -> String {
    parts
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("containers with {what} status: {}", listed(names)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    if all_statuses(status).next().is_none() {
        return Verdict::no("UnknownContainerStatuses", String::new());
    }
    let mut unknown = Vec::new();
    let mut unready = Vec::new();
    let counted = main_containers(spec(pod)).filter(|(kind, container)| {
        *kind == crate::pods::spec::ContainerKind::Regular || is_sidecar(container)
    });
    for (_, container) in counted {
        match all_statuses(status).find(|it| it.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(found) if !found.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match phase(status) {
        "Succeeded" if unknown.is_empty() => {
            return Verdict::no("PodCompleted", String::new());
        }
        "Failed" => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let message = names([("unknown", &unknown), ("unready", &unready)]);
    if message.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ContainersNotReady", message)
    }
}

fn ready(pod: &Pod, status: &PodStatus, conditions: &[PodCondition]) -> Verdict {
    let containers = containers_ready(pod, status);
    if !containers.status {
        return containers;
    }
    let messages: Vec<String> = spec(pod)
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match conditions.iter().find(|it| &it.type_ == name) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {name:?} does not exist."
                )),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if messages.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", messages.join(", "))
    }
}

/// Whether conditions of others have changed so that the pod's own `Ready` is out of date.
pub fn ready_needs_update(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    if spec(pod).readiness_gates.iter().flatten().next().is_none() {
        return false;
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let verdict = ready(pod, status, conditions);
    find(status, READY).is_some_and(|current| {
        (current.status == "True") != verdict.status
            || current.message.as_deref().unwrap_or_default() != verdict.message
    })
}

fn initialized(facts: &Facts<'_>, status: &PodStatus) -> Verdict {
    let spec = spec(facts.pod);
    let mut unknown = Vec::new();
    let mut incomplete = Vec::new();
    for container in init_containers(spec) {
        match all_statuses(status).find(|it| it.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(found) => {
                let done = match is_sidecar(container) {
                    true => found.started == Some(true),
                    false => found.ready,
                };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if phase(status) == "Succeeded" && unknown.is_empty() {
        return Verdict {
            reason: "PodCompleted",
            ..Verdict::yes()
        };
    }
    let started = status.container_statuses.iter().flatten().any(|container| {
        container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    let message = names([("unknown", &unknown), ("incomplete", &incomplete)]);
    if started || message.is_empty() || is_true(facts.old, INITIALIZED) {
        return Verdict::yes();
    }
    Verdict::no("ContainersNotInitialized", message)
}

fn all_containers_restarting(facts: &Facts<'_>, restarting: bool, status: &PodStatus) -> Verdict {
    let spec = spec(facts.pod);
    match phase(status) {
        "Succeeded" => Verdict::no("PodCompleted", String::new()),
        "Failed" => Verdict::no("PodFailed", String::new()),
        _ if !restarting => Verdict::no("", String::new()),
        _ => {
            let cleaned_up = main_containers(spec)
                .all(|(_, container)| facts.observed.container(&container.name).is_none());
            if cleaned_up && !must_restart_all(spec, facts.observed) {
                return Verdict::no("", String::new());
            }
            Verdict {
                status: true,
                reason: "RestartAllContainersStarted",
                message: "container exited with restart policy rule".to_owned(),
            }
        }
    }
}

/// A pod that will never run again is not ready, whatever its containers last said.
pub fn fail_ready(facts_pod: &Pod, status: &mut PodStatus, now: jiff::Timestamp) {
    let phase = phase(status).to_owned();
    if !is_terminal(&phase) || !(is_true(status, READY) || is_true(status, CONTAINERS_READY)) {
        return;
    }
    let reason = match phase.as_str() {
        "Failed" => "PodFailed",
        _ => "PodCompleted",
    };
    for condition in status.conditions.iter_mut().flatten() {
        if matches!(condition.type_.as_str(), READY | CONTAINERS_READY) {
            if condition.status != "False" {
                condition.last_transition_time = Some(Time(now));
            }
            condition.status = "False".to_owned();
            condition.reason = Some(reason.to_owned());
            condition.message = None;
            condition.observed_generation = facts_pod.metadata.generation;
        }
    }
}
