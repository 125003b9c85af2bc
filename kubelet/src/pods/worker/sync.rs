//! An active pod: bringing what runs in line with the specification (upstream's `SyncPod`).

use std::{sync::Arc, time::Duration};

use coracle_client::EventType;
use jiff::Timestamp;
use k8s_cri::v1::PodSandboxConfig;
use tokio::time::Instant;

use super::{
    Next, Stage, Worker, retry_after,
    start::{self, Start, Target},
    until_then,
};
use crate::pods::{
    actions::{Actions, decide},
    backoff::{self, Verdict},
    inbox::Eviction,
    observe,
    observed::Activity,
    resize::Compute,
    spec::{
        ContainerKind, describe, ephemeral_as_container, ephemeral_containers, init_containers,
        is_host_network, is_sidecar, spec, uid,
    },
    status::{self, Failure, Waiting},
};

/// Before a container that did not start for another reason than its image is tried again.
const START_RETRY: Duration = Duration::from_secs(10);

/// What a container is and where it stands in the specification.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: ContainerKind,
    index: usize,
}

/// What came of an attempt to start a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Started,
    Failed,
    /// It has to wait.
    Postponed,
    /// Something else has to be done first.
    Interrupted,
}

impl Worker {
    pub(super) async fn sync(&mut self) -> Next {
        self.publish();
        if self.is_to_end() || self.has_ended() {
            self.stage = Stage::Terminating;
            return Next::Again;
        }
        let deadline = self.deadline();
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.exceed_deadline();
            return Next::Again;
        }
        let health = self.services.health();
        if !health.usable() {
            return Next::WaitForRuntime(deadline);
        }
        if let Some(error) = health
            .network_error()
            .filter(|_| !is_host_network(&self.pod))
        {
            let message = format!("network is not ready: {error}");
            let warning = EventType::Warning;
            self.services
                .pod_event(&self.pod, warning, "NetworkNotReady", &message);
            return Next::WaitForRuntime(deadline);
        }
        if let Err(retry_at) = self.prepare().await {
            return Next::Wait(earlier(deadline, Some(retry_at)));
        }
        let mut actions = decide(&self.pod, &self.observed, &self.probe_results);
        if !actions.kill_pod && !actions.create_sandbox && actions.reset.is_empty() {
            Box::pin(self.resize(&mut actions)).await;
        }
        match Box::pin(self.carry_out(actions)).await {
            Some(next) => next,
            None => {
                let retry_at = self.retry_at.values().min().copied();
                let until = earlier(retry_at, self.resize_at);
                Next::Wait(earlier(deadline, earlier(until, self.status_changes_at())))
            }
        }
    }

    /// When the pod has been active for longer than it may.
    fn deadline(&self) -> Option<Instant> {
        let seconds = spec(&self.pod).active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        let at = start + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Some(Instant::now() + until_then(at))
    }

    /// When the status has to be derived anew although nothing has happened.
    fn status_changes_at(&self) -> Option<Instant> {
        let at = status::changes_at(&self.pod, &self.observed, Timestamp::now())?;
        // Timestamps are rounded down to milliseconds: not to wake up just before.
        Some(Instant::now() + until_then(at) + Duration::from_millis(1))
    }

    fn exceed_deadline(&mut self) {
        let reason = "DeadlineExceeded";
        let message = "Pod was active on the node longer than the specified deadline";
        self.services
            .pod_event(&self.pod, EventType::Normal, reason, message);
        self.eviction = Some(Eviction {
            failure: Failure {
                reason: reason.to_owned(),
                message: message.to_owned(),
            },
            grace: None,
        });
    }

    /// Makes ready what containers need: their volumes and the pod's control group. The error is
    /// the time of the next attempt.
    async fn prepare(&mut self) -> Result<(), Instant> {
        if self.group.is_none()
            && let Err(error) = self.limit_group(self.wanted_limits()).await
        {
            let message = format!("unable to ensure pod container exists: {error}");
            let reason = "FailedCreatePodContainer";
            self.services
                .pod_event(&self.pod, EventType::Warning, reason, &message);
            return Err(retry_after(&mut self.set_up_failures));
        }
        self.volumes.refer(&self.pod);
        let addresses = self.addresses();
        let node = self.services.node.borrow().clone();
        let around = crate::volumes::Around {
            addresses: &addresses,
            allocatable: &node.allocatable,
        };
        let Err(failures) = self.volumes.set_up(&self.pod, &around).await else {
            self.set_up_failures = 0;
            return Ok(());
        };
        for failure in failures {
            let message = failure.message();
            let warning = EventType::Warning;
            self.services
                .pod_event(&self.pod, warning, "FailedMount", &message);
        }
        Err(retry_after(&mut self.set_up_failures))
    }

    /// Does what was decided. `None` when there is nothing to do but wait.
    async fn carry_out(&mut self, actions: Actions) -> Option<Next> {
        if actions.create_sandbox && actions.sandbox_id.is_some() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.services
                .pod_event(&self.pod, EventType::Normal, "SandboxChanged", message);
        }
        if actions.kill_pod {
            if let Some(next) = self.kill_everything(actions.create_sandbox).await {
                return Some(next);
            }
        } else if let Some(next) = self.kill_some(&actions).await {
            return Some(next);
        }
        if !actions.reset.is_empty() {
            self.reset(&actions).await;
            return Some(Next::Again);
        }
        let mut changed = actions.kill_pod && !self.observed.sandboxes.is_empty();
        changed |= !actions.kill.is_empty();
        if actions.create_sandbox {
            changed = true;
            if let Err(next) = self.create_sandbox(&actions).await {
                return Some(next);
            }
        }
        match Box::pin(self.start_all(&actions)).await {
            Attempt::Started => Some(Next::Again),
            Attempt::Interrupted => Some(Next::Again),
            Attempt::Failed | Attempt::Postponed => changed.then_some(Next::Again),
        }
    }

    async fn create_sandbox(&mut self, actions: &Actions) -> Result<(), Next> {
        let (services, pod) = (self.services.clone(), self.pod.clone());
        let created = match start::sandbox_config(&services, &pod, actions.attempt) {
            Ok(config) => {
                let work = start::run_sandbox(&services, &pod, config);
                // It is not left half made when the pod is to end meanwhile.
                self.during(work, |_| false).await
            }
            Err(error) => Some(Err(error)),
        };
        let observed = match created {
            None => return Err(Next::Again),
            Some(Ok(id)) => observe::sandbox(&services.cri, &id)
                .await
                .map_err(|status| {
                    self.looked = false;
                    let reason = "FailedPodSandBoxStatus";
                    format!(
                        "{reason}: Unable to get pod sandbox status: {}",
                        crate::pods::errors::describe(&status)
                    )
                }),
            Some(Err(error)) => Err(error),
        };
        match observed {
            Ok(sandbox) => {
                self.sandbox_failures = 0;
                if let Some(sandbox) = sandbox {
                    self.observed.put_sandbox(sandbox);
                }
                Ok(())
            }
            Err(error) => {
                let (reason, message) = match error.strip_prefix("FailedPodSandBoxStatus: ") {
                    Some(message) => ("FailedPodSandBoxStatus", message.to_owned()),
                    None => (
                        "FailedCreatePodSandBox",
                        format!("Failed to create pod sandbox: {error}"),
                    ),
                };
                self.services
                    .pod_event(&self.pod, EventType::Warning, reason, &message);
                Err(Next::Wait(Some(retry_after(&mut self.sandbox_failures))))
            }
        }
    }

    async fn start_all(&mut self, actions: &Actions) -> Attempt {
        let ephemeral = places(ContainerKind::Ephemeral, &actions.ephemeral);
        let init = places(ContainerKind::Init, &actions.init);
        let regular = places(ContainerKind::Regular, &actions.regular);
        let mut best = Attempt::Postponed;
        if actions.ephemeral.is_empty() && actions.init.is_empty() && actions.regular.is_empty() {
            return best;
        }
        let Some(sandbox) = self.observed.active_sandbox().cloned() else {
            return best;
        };
        let config = match start::sandbox_config(&self.services, &self.pod, sandbox.attempt) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                tracing::warn!(
                    pod = describe(&self.pod),
                    error,
                    "cannot describe a sandbox"
                );
                return best;
            }
        };
        for place in ephemeral.chain(init).chain(regular) {
            match Box::pin(self.try_start(place, &sandbox.id, &config)).await {
                Attempt::Interrupted => return Attempt::Interrupted,
                Attempt::Started => best = Attempt::Started,
                Attempt::Failed | Attempt::Postponed => {
                    let sidecar = place.kind == ContainerKind::Init
                        && is_sidecar(&init_containers(spec(&self.pod))[place.index]);
                    if place.kind == ContainerKind::Init && !sidecar {
                        // What comes after it has to wait.
                        return best;
                    }
                }
            }
        }
        best
    }

    async fn try_start(
        &mut self,
        place: Place,
        sandbox_id: &str,
        config: &Arc<PodSandboxConfig>,
    ) -> Attempt {
        let spec = spec(&self.pod);
        let mut target = Target::None;
        let container = match place.kind {
            ContainerKind::Init => init_containers(spec)[place.index].clone(),
            ContainerKind::Regular => spec.containers[place.index].clone(),
            ContainerKind::Ephemeral => {
                let ephemeral = &ephemeral_containers(spec)[place.index];
                target = self.target(ephemeral.target_container_name.as_deref());
                ephemeral_as_container(ephemeral)
            }
        };
        let name = container.name.clone();
        if self.must_wait(&name) || self.backs_off(place.kind, &name) {
            return Attempt::Postponed;
        }
        let compute = Compute::of(&self.pod, &container);
        let restart_count = self
            .observed
            .container(&name)
            .map(|seen| seen.restart_count + 1);
        let start = Start {
            services: self.services.clone(),
            pod: self.pod.clone(),
            kind: place.kind,
            container,
            sandbox_id: sandbox_id.to_owned(),
            sandbox_config: config.clone(),
            restart_count,
            volumes: Arc::new(self.volumes.mounted().clone()),
            addresses: Arc::new(self.addresses()),
            target,
        };
        let Some(started) = self.during(start.run(), Worker::is_to_end).await else {
            // A container may have been made before.
            self.looked = false;
            return Attempt::Interrupted;
        };
        if let Some(id) = &started.id {
            self.resize.actuated.insert(id.clone(), compute);
            self.take_note(id, sandbox_id).await;
        }
        match started.result {
            Ok(()) => {
                self.waiting.remove(&name);
                self.retry_at.remove(&name);
                self.prune(&name).await;
                self.publish();
                Attempt::Started
            }
            Err(failed) => {
                let retry_at = failed.retry_at.unwrap_or(Instant::now() + START_RETRY);
                self.retry_at
                    .insert(name.clone(), self.soon(&failed.waiting, retry_at));
                self.waiting.insert(name, failed.waiting);
                self.publish();
                Attempt::Failed
            }
        }
    }

    /// A failed pull shows its error first, and a moment later that it backs off.
    fn soon(&self, waiting: &Waiting, retry_at: Instant) -> Instant {
        const SHOWN: Duration = Duration::from_secs(2);
        match waiting.reason.as_str() {
            "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed" => {
                retry_at.min(Instant::now() + SHOWN)
            }
            _ => retry_at,
        }
    }

    fn target(&self, name: Option<&str>) -> Target {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Target::None;
        };
        match self.observed.container(name) {
            Some(seen) => Target::Container(seen.id.clone()),
            None => Target::Missing(name.to_owned()),
        }
    }

    /// Whether the last attempt was so short a time ago that another is not worth it.
    fn must_wait(&self, name: &str) -> bool {
        self.retry_at
            .get(name)
            .is_some_and(|at| *at > Instant::now())
    }

    /// Whether a container that has ended waits before it is started again.
    fn backs_off(&mut self, kind: ContainerKind, name: &str) -> bool {
        let ended = self
            .observed
            .containers
            .iter()
            .find(|seen| seen.name == name && seen.activity == Activity::Exited);
        let Some(finished_at) = ended.and_then(|seen| seen.finished_at) else {
            return false;
        };
        match self.crash_loop.ask(name, finished_at, Timestamp::now()) {
            Verdict::Start => false,
            Verdict::Wait { until, delay } => {
                let pod = describe(&self.pod);
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                let warning = EventType::Warning;
                self.services.container_event(
                    &self.pod,
                    (kind, name),
                    warning,
                    "BackOff",
                    &message,
                );
                let message = format!(
                    "back-off {} restarting failed container={name} pod={pod}",
                    backoff::print(delay)
                );
                let waiting = Waiting {
                    reason: "CrashLoopBackOff".to_owned(),
                    message,
                };
                self.waiting.insert(name.to_owned(), waiting);
                self.retry_at
                    .insert(name.to_owned(), Instant::now() + until_then(until));
                self.publish();
                true
            }
        }
    }

    /// Reads the state of a container that was just made.
    async fn take_note(&mut self, id: &str, sandbox_id: &str) {
        match observe::container(&self.services.cri, id, sandbox_id).await {
            Ok(Some(seen)) => self.observed.put_container(seen),
            Ok(None) => self.services.index.remove(id),
            Err(_) => self.looked = false,
        }
    }

    /// The identity of the pod.
    pub(super) fn uid(&self) -> &str {
        uid(&self.pod)
    }
}

fn places(kind: ContainerKind, indexes: &[usize]) -> impl Iterator<Item = Place> {
    indexes.iter().map(move |&index| Place { kind, index })
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}
