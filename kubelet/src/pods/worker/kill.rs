//! Ending containers: hook, signal, and the signal that cannot be ignored (upstream's
//! `killContainer`).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_client::EventType;
use futures::future::join_all;
use k8s_cri::v1::{StopContainerRequest, StopPodSandboxRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tonic::Request;

use crate::pods::{
    actions::KillReason,
    errors::{describe, is_not_found},
    hooks,
    observed::Seen,
    services::{RUNTIME_TIMEOUT, Services},
    spec::{ContainerKind, find_container, init_containers, is_sidecar, spec},
};

/// A container has at least so many seconds between the first signal and the last.
const MINIMUM_GRACE: i64 = 2;

/// A container that is to end.
#[derive(Clone, Debug)]
pub struct Victim {
    pub id: String,
    pub name: String,
    /// What the event says; the usual when empty.
    pub message: String,
    pub reason: KillReason,
}

impl From<&Seen> for Victim {
    fn from(seen: &Seen) -> Self {
        Victim {
            id: seen.id.clone(),
            name: seen.name.clone(),
            message: String::new(),
            reason: KillReason::Other,
        }
    }
}

/// The pod whose containers end.
#[derive(Clone)]
pub struct Of {
    pub services: Arc<Services>,
    pub pod: Arc<Pod>,
    pub pod_ip: String,
}

/// Ends one container. `grace` overrides the seconds that the pod gives it.
///
/// # Errors
/// What the runtime says.
pub async fn container(of: &Of, victim: &Victim, grace: Option<i64>) -> Result<(), String> {
    kill(of, victim, grace, None).await
}

/// Ends containers side by side, sidecars after those that rely on them, and then the sandboxes.
///
/// # Errors
/// Tells the first error; everything was tried.
pub async fn pod(
    of: &Of,
    victims: &[Victim],
    sandboxes: &[String],
    grace: Option<i64>,
) -> Result<(), String> {
    let order = Order::new(&of.pod, victims);
    let killed = victims
        .iter()
        .map(|victim| kill(of, victim, grace, Some(&order)));
    let mut result = join_all(killed)
        .await
        .into_iter()
        .collect::<Result<(), _>>();
    let stopped = join_all(sandboxes.iter().map(|id| stop_sandbox(&of.services, id))).await;
    for stopped in stopped {
        result = result.and(stopped);
    }
    result
}

/// Stops a sandbox and what is left in it.
pub async fn stop_sandbox(services: &Services, id: &str) -> Result<(), String> {
    let mut request = Request::new(StopPodSandboxRequest {
        pod_sandbox_id: id.to_owned(),
    });
    request.set_timeout(RUNTIME_TIMEOUT);
    match services.cri.runtime.clone().stop_pod_sandbox(request).await {
        Err(status) if !is_not_found(&status) => Err(describe(&status)),
        _ => Ok(()),
    }
}

async fn kill(
    of: &Of,
    victim: &Victim,
    grace: Option<i64>,
    order: Option<&Order>,
) -> Result<(), String> {
    let services = &of.services;
    let found = find_container(spec(&of.pod), &victim.name);
    let kind = found
        .as_ref()
        .map_or(ContainerKind::Regular, |(kind, _)| *kind);
    let message = match victim.message.as_str() {
        "" => format!("Stopping container {}", victim.name),
        message => message.to_owned(),
    };
    let name = (kind, victim.name.as_str());
    services.container_event(&of.pod, name, EventType::Normal, "Killing", &message);
    let container = found.map(|(_, container)| container);
    let mut left = grace.unwrap_or_else(|| own_grace(&of.pod, container.as_ref(), victim.reason));
    if let Some(container) = &container {
        left -= pre_stop(of, victim, (kind, container), left).await;
    }
    if let Some(order) = order.filter(|_| left > 0) {
        left -= order.wait(&victim.name, left).await;
    }
    let left = left.max(MINIMUM_GRACE);
    let mut request = Request::new(StopContainerRequest {
        container_id: victim.id.clone(),
        timeout: left,
    });
    request.set_timeout(RUNTIME_TIMEOUT + Duration::from_secs(left.unsigned_abs()));
    let stopped = services.cri.runtime.clone().stop_container(request).await;
    if let Some(order) = order {
        order.ended(&victim.name);
    }
    match stopped {
        Err(status) if !is_not_found(&status) => Err(describe(&status)),
        _ => Ok(()),
    }
}

/// The seconds that the pod gives a container to end.
fn own_grace(pod: &Pod, container: Option<&Container>, reason: KillReason) -> i64 {
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        return grace;
    }
    let of_pod = spec(pod).termination_grace_period_seconds;
    let probe = container.and_then(|container| match reason {
        KillReason::StartupProbe => container.startup_probe.as_ref(),
        KillReason::LivenessProbe => container.liveness_probe.as_ref(),
        KillReason::Other => None,
    });
    let of_probe = probe.and_then(|probe| probe.termination_grace_period_seconds);
    of_probe.or(of_pod).unwrap_or(MINIMUM_GRACE)
}

/// Runs the hook before the end; returns the seconds that it took.
async fn pre_stop(
    of: &Of,
    victim: &Victim,
    container: (ContainerKind, &Container),
    grace: i64,
) -> i64 {
    let (kind, container) = container;
    let lifecycle = container.lifecycle.as_ref();
    let Some(hook) = lifecycle
        .and_then(|it| it.pre_stop.as_ref())
        .filter(|_| grace > 0)
    else {
        return 0;
    };
    let began = Instant::now();
    let run = hooks::Of {
        pod: &of.pod,
        container,
        container_id: &victim.id,
        pod_ip: &of.pod_ip,
    };
    let limit = Duration::from_secs(grace.unsigned_abs());
    let run = tokio::time::timeout(limit, hooks::run(&of.services.cri, &run, hook));
    if let Ok(Err(error)) = run.await {
        tracing::debug!(container = victim.name, error, "a preStop hook failed");
        let name = (kind, victim.name.as_str());
        let (warning, reason) = (EventType::Warning, "FailedPreStopHook");
        of.services
            .container_event(&of.pod, name, warning, reason, "PreStopHook failed");
    }
    i64::try_from(began.elapsed().as_secs()).unwrap_or(grace)
}

/// In which order containers get their signal: regular ones at once, each sidecar when
/// everything that was started after it has ended.
struct Order {
    ended: BTreeMap<String, watch::Sender<bool>>,
    after: BTreeMap<String, Vec<String>>,
}

impl Order {
    fn new(pod: &Pod, victims: &[Victim]) -> Self {
        let spec = spec(pod);
        let running = |name: &String| victims.iter().any(|victim| &victim.name == name);
        let mut later: Vec<String> = spec
            .containers
            .iter()
            .map(|container| container.name.clone())
            .filter(running)
            .collect();
        let mut after = BTreeMap::new();
        for container in init_containers(spec).iter().rev() {
            if is_sidecar(container) && running(&container.name) {
                after.insert(container.name.clone(), later.clone());
                later.push(container.name.clone());
            }
        }
        let ended = victims
            .iter()
            .map(|victim| (victim.name.clone(), watch::channel(false).0))
            .collect();
        Order { ended, after }
    }

    /// Waits for a container's turn, at most so many seconds; returns how many it took.
    async fn wait(&self, name: &str, most: i64) -> i64 {
        let began = Instant::now();
        let others = self.after.get(name).into_iter().flatten();
        let others = others.filter_map(|other| self.ended.get(other));
        let all = join_all(others.map(|ended| async move {
            let mut ended = ended.subscribe();
            // The sender lives as long as this.
            let _ = ended.wait_for(|&ended| ended).await;
        }));
        let limit = Duration::from_secs(most.unsigned_abs());
        // When time is up, it is everybody's turn.
        let _ = tokio::time::timeout(limit, all).await;
        i64::try_from(began.elapsed().as_secs()).unwrap_or(most)
    }

    fn ended(&self, name: &str) {
        if let Some(ended) = self.ended.get(name) {
            ended.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sidecars_end_after_what_relies_on_them() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "one", "restartPolicy": "Always"},
                {"name": "setup"},
                {"name": "two", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "main"}, {"name": "gone"}],
        }}))
        .expect("a pod");
        let victims: Vec<Victim> = ["one", "two", "main"]
            .iter()
            .map(|name| Victim {
                id: String::new(),
                name: (*name).to_owned(),
                message: String::new(),
                reason: KillReason::Other,
            })
            .collect();
        let order = Order::new(&pod, &victims);
        assert_eq!(order.after["two"], ["main"]);
        assert_eq!(order.after["one"], ["main", "two"]);
        assert!(!order.after.contains_key("main"));
    }

    #[test]
    fn the_grace_period_is_the_most_specific_one() {
        let pod = |deletion: Option<i64>| {
            let mut pod: Pod = serde_json::from_value(json!({"spec": {
                "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "c", "livenessProbe": {"terminationGracePeriodSeconds": 5}}],
            }}))
            .expect("a pod");
            pod.metadata.deletion_grace_period_seconds = deletion;
            pod
        };
        let cases = [
            (None, KillReason::Other, 30),
            (None, KillReason::LivenessProbe, 5),
            (None, KillReason::StartupProbe, 30),
            (Some(1), KillReason::LivenessProbe, 1),
        ];
        for (deletion, reason, expected) in cases {
            let pod = pod(deletion);
            let container = &spec(&pod).containers[0];
            assert_eq!(own_grace(&pod, Some(container), reason), expected);
        }
    }
}
