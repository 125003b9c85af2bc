//! The last status of a pod whose containers are gone: none of them is left running or waiting
//! (upstream's `TerminatePod`).

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};

use super::phase::is_terminal;
use crate::pods::spec::{init_containers, is_sidecar, spec};

/// Brings the status to an end.
pub fn finish(pod: &Pod, status: &mut PodStatus) {
    if has_initialized(pod, status) {
        for container in status.container_statuses.iter_mut().flatten() {
            end(container);
        }
    }
    let statuses = status.init_container_statuses.as_deref_mut();
    let statuses = statuses.unwrap_or_default();
    let begun = |status: &ContainerStatus| {
        let waits = status.state.as_ref().is_some_and(|it| it.waiting.is_some());
        !waits || has_ended_before(status)
    };
    let last = statuses.iter().rposition(begun).unwrap_or(0);
    for container in statuses.iter_mut().take(last + 1) {
        end(container);
    }
    if !status.phase.as_deref().is_some_and(is_terminal) {
        status.phase = Some("Failed".to_owned());
    }
}

fn end(container: &mut ContainerStatus) {
    if container
        .state
        .as_ref()
        .is_some_and(|it| it.terminated.is_some())
    {
        return;
    }
    container.state = Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            exit_code: 137,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    });
}

fn has_ended_before(status: &ContainerStatus) -> bool {
    status
        .last_state
        .as_ref()
        .is_some_and(|it| it.terminated.is_some())
}

/// Whether the pod got past its init containers.
fn has_initialized(pod: &Pod, status: &PodStatus) -> bool {
    let containers = init_containers(spec(pod));
    let Some(last) = containers.last() else {
        return true;
    };
    let begun = status.container_statuses.iter().flatten().any(|container| {
        let waits = container
            .state
            .as_ref()
            .is_some_and(|it| it.waiting.is_some());
        has_ended_before(container) || !waits
    });
    let mut statuses = status.init_container_statuses.iter().flatten();
    let last_status = statuses.rfind(|it| it.name == last.name);
    begun
        || last_status.is_some_and(|status| {
            let ended_well = |state: &Option<ContainerState>| {
                let ended = state.as_ref().and_then(|state| state.terminated.as_ref());
                ended.is_some_and(|ended| ended.exit_code == 0)
            };
            match is_sidecar(last) {
                true => {
                    status.started == Some(true)
                        && status.state.as_ref().is_some_and(|it| it.running.is_some())
                }
                false => ended_well(&status.state) || ended_well(&status.last_state),
            }
        })
}
