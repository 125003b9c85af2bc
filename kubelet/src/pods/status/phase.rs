//! The phase of a pod, from the states of its containers (upstream's `getPhase`).

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus};

use super::{Facts, containers::RESTARTING_ALL};
use crate::pods::spec::{init_containers, is_sidecar, restarts, spec};

/// Whether a pod in that phase never runs again.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// What a container's status says about where it is.
enum Stage<'a> {
    Unknown,
    Waiting,
    Running(&'a ContainerStatus),
    /// Ended, or waiting to run again after it ended.
    Ended {
        exit_code: i32,
        waiting: bool,
        restarting_all: bool,
    },
}

fn stage<'a>(statuses: Option<&'a Vec<ContainerStatus>>, name: &str) -> Stage<'a> {
    let status = statuses.and_then(|list| list.iter().find(|status| status.name == name));
    let Some(status) = status else {
        return Stage::Unknown;
    };
    let Some(state) = &status.state else {
        return Stage::Unknown;
    };
    if state.running.is_some() {
        return Stage::Running(status);
    }
    let waiting = state.waiting.is_some();
    let last = status.last_state.as_ref();
    let ended = match &state.terminated {
        Some(ended) => Some(ended),
        None if waiting => last.and_then(|last| last.terminated.as_ref()),
        None => return Stage::Unknown,
    };
    match ended {
        Some(ended) => Stage::Ended {
            exit_code: ended.exit_code,
            waiting,
            restarting_all: ended.reason.as_deref() == Some(RESTARTING_ALL),
        },
        None => Stage::Waiting,
    }
}

#[derive(Default)]
struct Count {
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
    unknown: usize,
}

/// Where the init containers are.
struct Init {
    failed_for_good: bool,
    pending: bool,
    sidecars_pending: bool,
}

/// The phase by what `status` says about the containers.
pub fn of(facts: &Facts<'_>, status: &PodStatus) -> String {
    let spec = spec(facts.pod);
    let mut count = Count::default();
    let init = init(spec, status, &mut count);
    if init.failed_for_good {
        return "Failed".to_owned();
    }
    for container in &spec.containers {
        add(spec, container, status, &mut count);
    }
    let started = facts.observed.active_sandbox().is_some_and(|sandbox| {
        facts.observed.containers.iter().any(|seen| {
            seen.sandbox_id == sandbox.id && spec.containers.iter().any(|it| it.name == seen.name)
        })
    });
    decide(&count, &init, started, facts.terminal).to_owned()
}

fn decide(count: &Count, init: &Init, started: bool, terminal: bool) -> &'static str {
    if init.pending || (init.sidecars_pending && !started) || count.waiting > 0 {
        return "Pending";
    }
    if count.running > 0 && count.unknown == 0 {
        return "Running";
    }
    if count.running == 0 && count.stopped > 0 && count.unknown == 0 {
        let all_succeeded = count.stopped == count.succeeded;
        if !terminal && count.stopped != count.stopped_for_good {
            return "Running";
        }
        return if all_succeeded { "Succeeded" } else { "Failed" };
    }
    "Pending"
}

fn init(spec: &PodSpec, status: &PodStatus, count: &mut Count) -> Init {
    let mut init = Init {
        failed_for_good: false,
        pending: false,
        sidecars_pending: false,
    };
    for container in init_containers(spec) {
        let stage = stage(status.init_container_statuses.as_ref(), &container.name);
        if is_sidecar(container) {
            match stage {
                Stage::Running(status) => {
                    count.running += 1;
                    init.sidecars_pending |= status.started != Some(true);
                }
                Stage::Waiting => {
                    count.waiting += 1;
                    init.sidecars_pending = true;
                }
                Stage::Unknown => {
                    count.unknown += 1;
                    init.sidecars_pending = true;
                }
                Stage::Ended { .. } => {}
            }
            continue;
        }
        match stage {
            Stage::Ended {
                exit_code,
                restarting_all,
                ..
            } => {
                init.failed_for_good |=
                    exit_code != 0 && !restarting_all && !restarts(container, spec, exit_code);
            }
            Stage::Running(_) | Stage::Waiting | Stage::Unknown => init.pending = true,
        }
    }
    init
}

fn add(spec: &PodSpec, container: &Container, status: &PodStatus, count: &mut Count) {
    match stage(status.container_statuses.as_ref(), &container.name) {
        Stage::Unknown => count.unknown += 1,
        Stage::Waiting => count.waiting += 1,
        Stage::Running(_) => count.running += 1,
        Stage::Ended {
            exit_code,
            waiting,
            restarting_all,
        } => {
            count.stopped += 1;
            if !restarting_all && !restarts(container, spec, exit_code) {
                count.stopped_for_good += 1;
            }
            if exit_code == 0 && !waiting {
                count.succeeded += 1;
            }
        }
    }
}
