//! What has to be done to a pod: a pure decision from its specification, what the runtime says,
//! and what probes found. It follows upstream's `computePodActions`
//! (pkg/kubelet/kuberuntime/kuberuntime_manager.go).
//!
//! Enter at [`decide`].

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{
    observed::{Activity, Observed, Seen, hash},
    probe_results::{ProbeKind, ProbeResults},
    spec::{
        ephemeral_containers, init_containers, is_host_network, is_sidecar, main_containers,
        matching_rule, restarts, restarts_on_failure, spec,
    },
};

/// Why a container is killed; it decides the grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    StartupProbe,
    LivenessProbe,
    Other,
}

/// A container to be killed, and what the event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
    pub reason: KillReason,
}

/// A container to be removed because all containers of the pod start anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    pub id: String,
    pub name: String,
    pub running: bool,
}

/// What has to be done, in this order: kill, reset, create the sandbox, start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Stop every container and sandbox.
    pub kill_pod: bool,
    pub kill: Vec<Kill>,
    pub reset: Vec<Reset>,
    pub create_sandbox: bool,
    /// The sandbox in use, or the one that is replaced.
    pub sandbox_id: Option<String>,
    /// The number of the sandbox to be created.
    pub attempt: u32,
    /// Indexes into the lists of the specification.
    pub ephemeral: Vec<usize>,
    pub init: Vec<usize>,
    pub regular: Vec<usize>,
}

/// Whether the pod needs a new sandbox, its number, and the one that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxChange {
    pub needed: bool,
    pub attempt: u32,
    pub sandbox_id: Option<String>,
}

/// Looks at the pod's sandboxes.
pub fn sandbox_change(pod: &Pod, observed: &Observed) -> SandboxChange {
    let Some(newest) = observed.sandboxes.first() else {
        return SandboxChange {
            needed: true,
            attempt: 0,
            sandbox_id: None,
        };
    };
    let id = Some(newest.id.clone());
    let ready = observed
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.ready)
        .count();
    let host_network = is_host_network(pod);
    let (needed, sandbox_id) = if ready > 1 || !newest.ready {
        (true, id)
    } else if newest.host_network != host_network {
        (true, None)
    } else if !host_network && newest.ips.is_empty() {
        (true, id)
    } else {
        (false, id)
    };
    SandboxChange {
        needed,
        attempt: newest.attempt + u32::from(needed),
        sandbox_id,
    }
}

/// Decides what has to be done.
pub fn decide(pod: &Pod, observed: &Observed, probes: &ProbeResults) -> Actions {
    let spec = spec(pod);
    let change = sandbox_change(pod, observed);
    let mut actions = Actions {
        kill_pod: change.needed,
        create_sandbox: change.needed,
        sandbox_id: change.sandbox_id,
        attempt: change.attempt,
        ..Actions::default()
    };
    if must_restart_all(spec, observed) {
        actions.kill_pod = false;
        actions.create_sandbox = false;
        actions.reset = resets(spec, observed);
        return actions;
    }
    if change.needed {
        begin(spec, observed, &mut actions);
        return actions;
    }
    for (index, container) in ephemeral_containers(spec).iter().enumerate() {
        if observed.container(&container.name).is_none() {
            actions.ephemeral.push(index);
        }
    }
    let initialized = decide_init(pod, spec, observed, probes, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }
    decide_regular(pod, spec, observed, probes, &mut actions);
    actions
}

/// Whether a container has ended in a way that restarts all of them.
pub fn must_restart_all(spec: &PodSpec, observed: &Observed) -> bool {
    main_containers(spec).any(|(_, container)| {
        observed
            .container(&container.name)
            .is_some_and(|seen| asks_restart_of_all(container, seen))
    })
}

fn asks_restart_of_all(container: &Container, seen: &Seen) -> bool {
    seen.activity == Activity::Exited
        && matching_rule(container, seen.exit_code)
            .is_some_and(|rule| rule.action == "RestartAllContainers")
}

/// Every container goes, the one that asked for it last: while it is there, the rest is too.
fn resets(spec: &PodSpec, observed: &Observed) -> Vec<Reset> {
    let mut targets = Vec::new();
    let mut sources = Vec::new();
    let regular_first = spec.containers.iter().chain(init_containers(spec));
    for container in regular_first {
        for seen in &observed.containers {
            if seen.name == container.name {
                let list = if asks_restart_of_all(container, seen) {
                    &mut sources
                } else {
                    &mut targets
                };
                list.push(Reset {
                    id: seen.id.clone(),
                    name: seen.name.clone(),
                    running: seen.activity != Activity::Exited,
                });
            }
        }
    }
    targets.append(&mut sources);
    targets
}

/// The pod needs a sandbox: what starts in it.
fn begin(spec: &PodSpec, observed: &Observed, actions: &mut Actions) {
    if !restarts_on_failure(spec) && actions.attempt != 0 && !observed.containers.is_empty() {
        // A pod that never restarts and loses its sandbox has run.
        actions.create_sandbox = false;
        return;
    }
    let done = |container: &Container| {
        let policy = container
            .restart_policy
            .as_deref()
            .or(spec.restart_policy.as_deref());
        policy == Some("OnFailure")
            && observed
                .container(&container.name)
                .is_some_and(|seen| seen.activity == Activity::Exited && seen.exit_code == 0)
    };
    let regular: Vec<usize> = (0..spec.containers.len())
        .filter(|&index| !done(&spec.containers[index]))
        .collect();
    if regular.is_empty() && any_regular_created(spec, observed) {
        actions.create_sandbox = false;
        return;
    }
    if init_containers(spec).is_empty() {
        actions.regular = regular;
    } else {
        actions.init = vec![0];
    }
}

/// Whether the pod got as far as its regular containers.
pub fn any_regular_created(spec: &PodSpec, observed: &Observed) -> bool {
    spec.containers.iter().any(|container| {
        observed
            .container(&container.name)
            .is_some_and(|seen| seen.activity != Activity::Unknown)
    })
}

/// Whether a container that does not run is started.
pub fn is_to_be_started(pod: &Pod, container: &Container, observed: &Observed) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match observed.container(&container.name) {
        None => true,
        Some(seen) => match seen.activity {
            Activity::Running => false,
            Activity::Unknown | Activity::Created => true,
            Activity::Exited => restarts(container, spec(pod), seen.exit_code),
        },
    }
}

fn unknown_kill(seen: &Seen, prefix: &str) -> Kill {
    Kill {
        id: seen.id.clone(),
        name: seen.name.clone(),
        message: format!("{prefix} is in \"unknown\" state, try killing it before restart"),
        reason: KillReason::Other,
    }
}

/// Init containers, the last first: what is to be started is found behind the last one that got
/// anywhere. Tells whether the regular containers may start.
fn decide_init(
    pod: &Pod,
    spec: &PodSpec,
    observed: &Observed,
    probes: &ProbeResults,
    actions: &mut Actions,
) -> bool {
    let containers = init_containers(spec);
    if containers.is_empty() {
        return true;
    }
    let mut initialized = spec.containers.iter().any(|container| {
        observed
            .container(&container.name)
            .is_some_and(|seen| matches!(seen.activity, Activity::Created | Activity::Running))
    });
    let mut passed = initialized;
    for (index, container) in containers.iter().enumerate().rev() {
        let sidecar = is_sidecar(container);
        let Some(seen) = observed.container(&container.name) else {
            if passed && sidecar {
                actions.init.push(index);
            }
            continue;
        };
        if passed && !sidecar {
            continue;
        }
        let last = index + 1 == containers.len();
        let done = match seen.activity {
            Activity::Running if sidecar => decide_sidecar(container, seen, index, probes, actions),
            Activity::Exited if !sidecar && seen.exit_code == 0 => true,
            Activity::Running => false,
            Activity::Created => {
                actions.init.push(index);
                false
            }
            Activity::Exited => {
                if !sidecar && !is_to_be_started(pod, container, observed) {
                    actions.kill_pod = true;
                    actions.init.clear();
                    return false;
                }
                actions.init.push(index);
                false
            }
            Activity::Unknown => {
                let again = sidecar
                    || container
                        .restart_policy
                        .as_deref()
                        .map_or(restarts_on_failure(spec), |policy| policy != "Never");
                if !again {
                    actions.kill_pod = true;
                    actions.init.clear();
                    return false;
                }
                actions.kill.push(unknown_kill(seen, "Init container"));
                actions.init.push(index);
                false
            }
        };
        if done && last {
            initialized = true;
        } else if done && !passed {
            actions.init.push(index + 1);
        }
        passed = true;
    }
    if !passed {
        actions.init.push(0);
    }
    actions.init.sort_unstable();
    actions.init.dedup();
    initialized
}

/// A running sidecar: whether what comes after it may start.
fn decide_sidecar(
    container: &Container,
    seen: &Seen,
    index: usize,
    probes: &ProbeResults,
    actions: &mut Actions,
) -> bool {
    let name = &container.name;
    let mut restart = |message: String, reason| {
        actions.kill.push(Kill {
            id: seen.id.clone(),
            name: name.clone(),
            message,
            reason,
        });
        actions.init.push(index);
    };
    if container.startup_probe.is_some() {
        match probes.get(&seen.id, ProbeKind::Startup) {
            Some(true) => {}
            Some(false) => {
                restart(
                    format!("Init container {name} failed startup probe"),
                    KillReason::StartupProbe,
                );
                return false;
            }
            None => return false,
        }
    }
    if seen.hash != hash(container) {
        restart(
            format!("Init container {name} definition changed"),
            KillReason::Other,
        );
    } else if container.liveness_probe.is_some()
        && probes.get(&seen.id, ProbeKind::Liveness) == Some(false)
    {
        restart(
            format!("Init container {name} failed liveness probe"),
            KillReason::LivenessProbe,
        );
    }
    true
}

fn decide_regular(
    pod: &Pod,
    spec: &PodSpec,
    observed: &Observed,
    probes: &ProbeResults,
    actions: &mut Actions,
) {
    let mut kept = 0;
    for (index, container) in spec.containers.iter().enumerate() {
        let seen = observed
            .container(&container.name)
            .filter(|seen| seen.activity == Activity::Running);
        let Some(seen) = seen else {
            if is_to_be_started(pod, container, observed) {
                actions.regular.push(index);
                if let Some(seen) = observed.container(&container.name)
                    && seen.activity == Activity::Unknown
                {
                    actions.kill.push(unknown_kill(seen, "Container"));
                }
            }
            continue;
        };
        let name = &container.name;
        let policy = container.restart_policy.as_deref();
        let mut restart = policy.map_or(restarts_on_failure(spec), |policy| policy != "Never");
        let (mut message, reason) = if seen.hash != hash(container) {
            restart = true;
            (
                format!("Container {name} definition changed"),
                KillReason::Other,
            )
        } else if probes.get(&seen.id, ProbeKind::Liveness) == Some(false) {
            (
                format!("Container {name} failed liveness probe"),
                KillReason::LivenessProbe,
            )
        } else if probes.get(&seen.id, ProbeKind::Startup) == Some(false) {
            (
                format!("Container {name} failed startup probe"),
                KillReason::StartupProbe,
            )
        } else {
            kept += 1;
            continue;
        };
        if restart {
            message.push_str(", will be restarted");
            actions.regular.push(index);
        }
        actions.kill.push(Kill {
            id: seen.id.clone(),
            name: name.clone(),
            message,
            reason,
        });
    }
    if kept == 0 && actions.regular.is_empty() {
        actions.kill_pod = true;
        actions.init.clear();
    }
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
