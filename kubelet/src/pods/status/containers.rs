//! The statuses of containers (upstream's `convertToAPIContainerStatuses`).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, PodStatus,
        ResourceRequirements, VolumeMount, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Facts, settle};
use crate::pods::{
    actions::{any_regular_created, is_to_be_started},
    observed::{Activity, Seen},
    probe_results::ProbeKind,
    spec::{ephemeral_as_container, ephemeral_containers, init_containers, is_sidecar, spec},
};

/// The reason in a status while all containers are restarted by a rule.
pub const RESTARTING_ALL: &str = "RestartingAllContainers";
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
/// The exit code of a container whose own is not known.
const UNKNOWN_EXIT_CODE: i32 = 137;

/// Fills in the three lists.
pub fn fill(facts: &Facts<'_>, restarting: bool, status: &mut PodStatus) {
    let spec = spec(facts.pod);
    let ephemeral: Vec<Container> = ephemeral_containers(spec)
        .iter()
        .map(ephemeral_as_container)
        .collect();
    let old = facts.old;
    let list = |containers: &[Container], old: &Option<Vec<ContainerStatus>>, init: bool| {
        let old = old.as_deref().unwrap_or_default();
        let list = of_list(facts, containers, old, init, restarting);
        (!list.is_empty()).then_some(list)
    };
    status.init_container_statuses =
        list(init_containers(spec), &old.init_container_statuses, true);
    status.container_statuses = list(&spec.containers, &old.container_statuses, false);
    status.ephemeral_container_statuses =
        list(&ephemeral, &old.ephemeral_container_statuses, false);
    for list in [
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ] {
        list.iter_mut()
            .for_each(|list| list.sort_by(|a, b| a.name.cmp(&b.name)));
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: optional(reason),
            message: optional(message),
        }),
        ..ContainerState::default()
    }
}

fn terminated(reason: &str, message: &str, exit_code: i32) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            exit_code,
            // Upstream writes the zero time here, which the API shows as null.
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn is_terminated(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| state.terminated.is_some())
}

fn is_running(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| state.running.is_some())
}

fn is_waiting(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| state.waiting.is_some())
}

fn of_list(
    facts: &Facts<'_>,
    containers: &[Container],
    old: &[ContainerStatus],
    init: bool,
    restarting: bool,
) -> Vec<ContainerStatus> {
    let old: BTreeMap<&str, &ContainerStatus> = old
        .iter()
        .map(|status| (status.name.as_str(), status))
        .collect();
    containers
        .iter()
        .map(|container| {
            let old = old.get(container.name.as_str()).copied();
            let mut of_name = facts
                .observed
                .containers
                .iter()
                .filter(|seen| seen.name == container.name);
            let mut status = match of_name.next() {
                None => unseen(facts, container, old, restarting),
                Some(newest) => {
                    let mut status = seen(facts, container, newest, old, restarting);
                    if let Some(previous) = of_name.next() {
                        let last = seen(facts, container, previous, old, restarting);
                        status.last_state = last.state;
                    }
                    status
                }
            };
            why_waiting(facts, container, init, &mut status);
            if !init {
                hide_start(facts, container, old, &mut status);
            }
            status
        })
        .collect()
}

/// Why a container waits that was never seen.
fn being_created(facts: &Facts<'_>) -> &'static str {
    match init_containers(spec(facts.pod)).is_empty() {
        true => "ContainerCreating",
        false => "PodInitializing",
    }
}

/// Shows a container that has just started as one that is being created; see [`settle`].
fn hide_start(
    facts: &Facts<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    status: &mut ContainerStatus,
) {
    let shown = old.is_some_and(|old| is_running(old.state.as_ref()));
    let newest = facts.observed.container(&container.name);
    if container.stdin == Some(true)
        && !shown
        && newest.is_some_and(|seen| settle::shown_at(seen, facts.now).is_some())
    {
        status.state = Some(waiting(being_created(facts), ""));
    }
}

/// The status of a container that the runtime does not know.
fn unseen(
    facts: &Facts<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    restarting: bool,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(being_created(facts), "")),
        volume_mounts: volume_mounts(facts, container),
        ..ContainerStatus::default()
    };
    let Some(old) = old else {
        return status;
    };
    let removed = "The container is removed because RestartAllContainers in place";
    if restarting && !is_waiting(old.state.as_ref()) {
        status.state = Some(waiting(RESTARTING_ALL, removed));
        status.last_state = Some(terminated(RESTARTING_ALL, removed, UNKNOWN_EXIT_CODE));
        status.restart_count = old.restart_count + 1;
        return status;
    }
    if is_terminated(old.state.as_ref()) {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state.clone_from(&old.last_state);
    if is_running(old.state.as_ref()) && !is_terminated(status.last_state.as_ref()) {
        let message = "The container could not be located when the pod was deleted.  \
                       The container used to be Running";
        status.last_state = Some(terminated(STATUS_UNKNOWN, message, UNKNOWN_EXIT_CODE));
        if facts.pod.metadata.deletion_timestamp.is_none() {
            status.restart_count += 1;
        }
    }
    status
}

/// The status of a container as the runtime knows it.
fn seen(
    facts: &Facts<'_>,
    container: &Container,
    seen: &Seen,
    old: Option<&ContainerStatus>,
    restarting: bool,
) -> ContainerStatus {
    let id = seen.full_id(facts.runtime_name);
    let mut status = ContainerStatus {
        name: seen.name.clone(),
        restart_count: seen.restart_count,
        image: seen.image.clone(),
        image_id: seen.image_ref.clone(),
        volume_mounts: volume_mounts(facts, container),
        resources: resources(facts, container, seen),
        allocated_resources: container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.clone()),
        user: seen.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.supplemental_groups.clone())
                    .filter(|groups| !groups.is_empty()),
            }),
        }),
        ..ContainerStatus::default()
    };
    if let Some(old) = old {
        status.restart_count = status.restart_count.max(old.restart_count);
        if old.container_id.as_ref() != Some(&id) && is_terminated(old.state.as_ref()) {
            status.last_state.clone_from(&old.state);
        } else if is_terminated(old.last_state.as_ref()) {
            status.last_state.clone_from(&old.last_state);
        }
    }
    let time = |time: Option<jiff::Timestamp>| time.map(Time);
    status.state = Some(match seen.activity {
        Activity::Running => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: time(seen.started_at),
            }),
            ..ContainerState::default()
        },
        Activity::Exited => ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(id.clone()),
                exit_code: seen.exit_code,
                reason: Some(seen.reason.clone()).filter(|reason| !reason.is_empty()),
                message: Some(seen.message.clone()).filter(|message| !message.is_empty()),
                started_at: time(seen.started_at),
                finished_at: time(seen.finished_at),
                signal: None,
            }),
            ..ContainerState::default()
        },
        Activity::Unknown if old.is_some_and(|old| is_running(old.state.as_ref())) => {
            let reason = match restarting {
                true => RESTARTING_ALL,
                false => STATUS_UNKNOWN,
            };
            let message = "The container could not be located when the pod was terminated";
            status.restart_count = old.map_or(0, |old| old.restart_count) + 1;
            terminated(reason, message, UNKNOWN_EXIT_CODE)
        }
        Activity::Created | Activity::Unknown => waiting("", ""),
    });
    status.container_id = Some(id);
    status
}

/// What a running container has, which may not be yet what it was given.
fn resources(
    facts: &Facts<'_>,
    container: &Container,
    seen: &Seen,
) -> Option<ResourceRequirements> {
    let own = container.resources.as_ref();
    match facts.resize.actuated.get(&seen.id) {
        Some(has) if seen.activity == Activity::Running => Some(has.in_resources(own)),
        _ => own.cloned(),
    }
}

/// Puts in why a container that is to run does not.
fn why_waiting(facts: &Facts<'_>, container: &Container, init: bool, status: &mut ContainerStatus) {
    let observed = facts.observed;
    let newest = observed.container(&container.name);
    if init {
        if newest.is_some_and(|seen| seen.activity == Activity::Exited && seen.exit_code == 0) {
            return;
        }
        let passed = newest.is_none()
            && any_regular_created(spec(facts.pod), observed)
            && !is_sidecar(container);
        if passed && is_waiting(status.state.as_ref()) {
            let message = "Unable to get init container status from container runtime and pod \
                           has been initialized, treat it as exited normally";
            status.state = Some(terminated("Completed", message, 0));
            return;
        }
    }
    if !is_to_be_started(facts.pod, container, observed) {
        return;
    }
    let Some(why) = facts.waiting.get(&container.name) else {
        return;
    };
    if is_terminated(status.state.as_ref()) {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(&why.reason, &why.message));
}

fn volume_mounts(facts: &Facts<'_>, container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?.iter();
    let list: Vec<_> = mounts
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only.filter(|&read_only| read_only),
            recursive_read_only: recursive_read_only(facts, mount),
            volume_status: None,
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

fn recursive_read_only(facts: &Facts<'_>, mount: &VolumeMount) -> Option<String> {
    if mount.read_only != Some(true) {
        return None;
    }
    let asked = matches!(
        mount.recursive_read_only.as_deref(),
        Some("IfPossible" | "Enabled")
    );
    let enabled = asked && facts.recursive_read_only_mounts;
    Some(if enabled { "Enabled" } else { "Disabled" }.to_owned())
}

/// Fills in what probes decide: whether containers have started and are ready.
pub fn fill_probes(facts: &Facts<'_>, status: &mut PodStatus) {
    let spec = spec(facts.pod);
    for status in status.container_statuses.iter_mut().flatten() {
        let container = spec.containers.iter().find(|it| it.name == status.name);
        if let Some(container) = container {
            let old = old_of(facts.old.container_statuses.as_ref(), status);
            started_and_ready(facts, container, old, status);
        }
    }
    for status in status.init_container_statuses.iter_mut().flatten() {
        let container = init_containers(spec)
            .iter()
            .find(|it| it.name == status.name);
        let Some(container) = container else {
            continue;
        };
        let old = old_of(facts.old.init_container_statuses.as_ref(), status);
        started_and_ready(facts, container, old, status);
        if !is_sidecar(container) {
            status.ready = status
                .state
                .as_ref()
                .and_then(|state| state.terminated.as_ref())
                .is_some_and(|ended| ended.exit_code == 0);
        }
    }
}

/// The status before of the same container, not of one that it has replaced.
fn old_of<'a>(
    old: Option<&'a Vec<ContainerStatus>>,
    status: &ContainerStatus,
) -> Option<&'a ContainerStatus> {
    old?.iter()
        .find(|old| old.name == status.name && old.container_id == status.container_id)
}

fn started_and_ready(
    facts: &Facts<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    status: &mut ContainerStatus,
) {
    let newest = facts.observed.container(&container.name);
    let running = newest.filter(|_| is_running(status.state.as_ref()));
    let Some(seen) = running else {
        status.started = Some(false);
        status.ready = false;
        return;
    };
    let found = |kind| facts.probes.get(&seen.id, kind);
    let started = found(ProbeKind::Startup).unwrap_or_else(|| {
        container.startup_probe.is_none() || old.is_some_and(|old| old.started == Some(true))
    });
    status.started = Some(started);
    if !started {
        status.ready = false;
        return;
    }
    status.ready = found(ProbeKind::Readiness).unwrap_or_else(|| {
        let ran_before = seen
            .started_at
            .is_some_and(|started_at| started_at < facts.kubelet_started);
        container.readiness_probe.is_none() || (ran_before && old.is_some_and(|old| old.ready))
    });
}
