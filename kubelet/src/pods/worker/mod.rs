//! The task of one pod: everything that happens to the pod is put into its inbox, and this task
//! alone looks at it and acts.
//!
//! A pod is [`Stage::Active`] while its containers are to run, then [`Stage::Terminating`] until
//! none does any more, then [`Stage::Terminated`] until nothing is left on the node. The status is
//! derived anew from what is observed whenever that changes.

mod clear;
mod end;
mod kill;
mod resize;
mod start;
mod sync;

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

use super::{
    backoff::CrashLoop,
    env::Addresses,
    inbox::{Eviction, Inbox},
    observe,
    observed::{Activity, Observed, Seen},
    probe_results::ProbeResults,
    reporter::Report,
    resize::Progress,
    services::Services,
    spec::{is_host_network, spec, uid},
    status::{self, Facts, Waiting, by_family, is_terminal},
};
use crate::{
    cgroups::Limits,
    metrics::{self, PodStart, Work},
    probes::{Probes, Situation},
    runtime::HealthWatch,
    volumes::{Interested, PodVolumes},
};

/// When a container that has ended still seems to run, it is looked at again so soon, and then
/// ever later: the runtime needs a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(2);

/// How far a pod has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Active,
    Terminating,
    Terminated,
}

/// What a pod's task does next.
enum Next {
    /// Look again at once.
    Again,
    /// Wait for something to happen, at most until then.
    Wait(Option<Instant>),
    /// Wait for the runtime too.
    WaitForRuntime(Option<Instant>),
    /// Nothing is left to do.
    Done,
}

/// The task of one pod.
pub struct Worker {
    services: Arc<Services>,
    /// Tells of what has changed since the last step began.
    health: HealthWatch,
    inbox: Arc<Inbox>,
    pod: Arc<Pod>,
    stage: Stage,
    /// Whether the pod is gone from the API.
    deleted: bool,
    /// Whether what the runtime knows has been read.
    looked: bool,
    observed: Observed,
    status: PodStatus,
    /// By container: why the last attempt to start it failed.
    waiting: HashMap<String, Waiting>,
    /// By container: when the next attempt to start it is worth it.
    retry_at: HashMap<String, Instant>,
    crash_loop: CrashLoop,
    probe_results: ProbeResults,
    probes: Probes,
    volumes: PodVolumes,
    eviction: Option<Eviction>,
    /// Attempts to make the sandbox that failed in a row.
    sandbox_failures: u32,
    /// Attempts to set up what containers need that failed in a row.
    set_up_failures: u32,
    /// How often containers were looked at again that are said to have ended.
    looks: HashMap<String, u32>,
    /// The shortest grace period that was asked for so far, in seconds.
    grace: Option<i64>,
    /// The limits that the cgroup of the pod has, once it was made.
    group: Option<Limits>,
    resize: Progress,
    /// When a resize that failed is tried again.
    resize_at: Option<Instant>,
    /// Whether nothing of the pod is left on the node but what its logs need.
    finished: bool,
    /// Since when a pod that is new here is being started, and how much of that went into what is
    /// not the kubelet's doing.
    begun: Option<(Instant, Duration)>,
}

impl Worker {
    /// `known` tells whether the runtime may already have something of the pod.
    pub fn new(services: Arc<Services>, inbox: Arc<Inbox>, pod: Arc<Pod>, known: bool) -> Self {
        let interested: Arc<dyn Interested> = inbox.clone();
        let volumes = services
            .volumes
            .of_pod(uid(&pod), Arc::downgrade(&interested));
        let probes = Probes::new(
            services.cri.clone(),
            services.recorder.clone(),
            inbox.clone(),
        );
        Worker {
            status: pod.status.clone().unwrap_or_default(),
            health: services.health.clone(),
            services,
            inbox,
            pod,
            stage: Stage::Active,
            deleted: false,
            looked: !known,
            observed: Observed::default(),
            waiting: HashMap::new(),
            retry_at: HashMap::new(),
            crash_loop: CrashLoop::default(),
            probe_results: ProbeResults::default(),
            probes,
            volumes,
            eviction: None,
            sandbox_failures: 0,
            set_up_failures: 0,
            looks: HashMap::new(),
            grace: None,
            group: None,
            resize: Progress::default(),
            resize_at: None,
            finished: false,
            begun: (!known).then(|| (Instant::now(), Duration::ZERO)),
        }
    }

    /// Runs until nothing of the pod is left, on the node and in the API.
    pub async fn run(mut self) {
        loop {
            Box::pin(self.read_letters()).await;
            self.health.mark_seen();
            let since = Instant::now();
            let (work, looked) = (self.work(), self.looked);
            let next = match self.stage {
                _ if !self.looked => Box::pin(self.look()).await,
                // In boxes: most of the time a pod's task only waits, and should be small then.
                Stage::Active => Box::pin(self.sync()).await,
                Stage::Terminating => Box::pin(self.terminate()).await,
                Stage::Terminated => Box::pin(self.finish()).await,
            };
            if looked {
                metrics::worked(work, since.elapsed());
            }
            match next {
                Next::Again => {}
                Next::Wait(until) => self.wait(until, false).await,
                Next::WaitForRuntime(until) => self.wait(until, true).await,
                Next::Done => return,
            }
        }
    }

    fn work(&self) -> Work {
        match self.stage {
            Stage::Active if self.observed.sandboxes.is_empty() => Work::Create,
            Stage::Active => Work::Sync,
            Stage::Terminating | Stage::Terminated => Work::Kill,
        }
    }

    /// Notes how long the pod took to start, once.
    fn count_start(&mut self) {
        if self.begun.is_none() || self.status.phase.as_deref() != Some("Running") {
            return;
        }
        let Some((seen, waited)) = self.begun.take() else {
            return;
        };
        let created = self.pod.metadata.creation_timestamp.as_ref();
        let age = created.map(|created| Timestamp::now().duration_since(created.0));
        let start = PodStart {
            seen: seen.elapsed(),
            created: Duration::try_from(age.unwrap_or_default()).unwrap_or_default(),
            waited,
        };
        start.count();
    }

    async fn look(&mut self) -> Next {
        match observe::all(&self.services.cri, uid(&self.pod)).await {
            Ok(observed) => {
                let uid = uid(&self.pod);
                for id in observed.sandboxes.iter().map(|sandbox| &sandbox.id) {
                    self.services.index.insert(id, uid);
                }
                for id in observed.containers.iter().map(|container| &container.id) {
                    self.services.index.insert(id, uid);
                }
                self.observed = observed;
                self.looked = true;
                Next::Again
            }
            Err(error) => {
                tracing::debug!(%error, "cannot ask the runtime about a pod");
                Next::WaitForRuntime(Some(Instant::now() + Duration::from_secs(1)))
            }
        }
    }

    async fn wait(&mut self, until: Option<Instant>, for_runtime: bool) {
        let refresh = self
            .volumes
            .refresh_at()
            .filter(|_| self.stage == Stage::Active);
        let refresh = refresh.map(|at| Instant::now() + until_then(at));
        let until = [until, refresh].into_iter().flatten().min();
        tokio::select! {
            () = self.inbox.filled() => {}
            () = self.health.changed(), if for_runtime => {}
            () = sleep_until(until) => {}
        }
    }

    /// Takes in what has happened.
    async fn read_letters(&mut self) {
        let letters = self.inbox.take();
        if let Some(pod) = letters.pod {
            if pod.metadata.labels != self.pod.metadata.labels
                || pod.metadata.annotations != self.pod.metadata.annotations
            {
                // Files of the downward API may show them.
                self.volumes.mark_changed();
            }
            self.follow(pod, letters.pending_resize);
        }
        self.deleted |= letters.deleted;
        if letters.objects_changed {
            self.volumes.mark_changed();
            // What was missing may be there now.
            self.retry_at.clear();
            self.set_up_failures = 0;
        }
        if letters.failure.is_some() {
            self.eviction = letters.failure;
        }
        for ((container_id, kind), healthy) in letters.probes {
            self.probe_results.set(&container_id, kind, healthy);
        }
        if letters.look_at_all {
            self.looked = false;
        }
        for (id, ended) in letters.hints {
            self.look_at(&id, ended).await;
        }
    }

    /// Asks the runtime about a container or sandbox of the pod.
    async fn look_at(&mut self, id: &str, ended: bool) {
        let cri = &self.services.cri;
        if self
            .observed
            .sandboxes
            .iter()
            .any(|sandbox| sandbox.id == id)
        {
            match observe::sandbox(cri, id).await {
                Ok(Some(sandbox)) => {
                    let again = ended && sandbox.ready;
                    self.observed.put_sandbox(sandbox);
                    self.look_again(id, again);
                }
                Ok(None) => self.forget(id),
                Err(_) => self.looked = false,
            }
        } else if let Some(seen) = self.observed.by_id(id) {
            if seen.activity == Activity::Exited {
                return;
            }
            let sandbox_id = seen.sandbox_id.clone();
            match observe::container(cri, id, &sandbox_id).await {
                Ok(Some(seen)) => {
                    let again = ended && seen.activity == Activity::Running;
                    self.observed.put_container(seen);
                    self.look_again(id, again);
                }
                Ok(None) => self.forget(id),
                Err(_) => self.looked = false,
            }
        }
    }

    /// The runtime tells of an end before it has taken note of it itself.
    fn look_again(&mut self, id: &str, again: bool) {
        if !again {
            self.looks.remove(id);
            return;
        }
        let looks = self.looks.entry(id.to_owned()).or_insert(0);
        let wait = LOOK_AGAIN * 2u32.saturating_pow(*looks);
        *looks += 1;
        if wait > LOOK_AGAIN_MAX {
            return;
        }
        let (inbox, id) = (Arc::downgrade(&self.inbox), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(inbox) = inbox.upgrade() {
                inbox.put(|letters| {
                    letters.hints.insert(id, true);
                });
            }
        });
    }

    fn forget(&mut self, id: &str) {
        self.observed.forget(id);
        self.services.index.remove(id);
    }

    /// Works on something that takes its time, and takes in meanwhile what happens. `None` when
    /// `stop` became true before.
    async fn during<T>(
        &mut self,
        work: impl Future<Output = T>,
        stop: impl Fn(&Worker) -> bool,
    ) -> Option<T> {
        let mut work = Box::pin(work);
        let inbox = self.inbox.clone();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = inbox.filled() => {
                    Box::pin(self.read_letters()).await;
                    self.publish();
                    if stop(self) {
                        return None;
                    }
                }
            }
        }
    }

    /// Whether the containers of the pod are to end.
    fn is_to_end(&self) -> bool {
        self.deleted || self.eviction.is_some() || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn addresses(&self) -> Addresses {
        let host_ips = self.services.host_ips();
        let mut pod_ips = by_family(self.observed.ips(), &host_ips);
        if pod_ips.is_empty() && is_host_network(&self.pod) {
            pod_ips.clone_from(&host_ips);
        }
        Addresses { pod_ips, host_ips }
    }

    fn pod_ip(&self) -> String {
        let first = self.addresses().pod_ips.into_iter().next();
        first
            .or_else(|| self.status.pod_ip.clone())
            .unwrap_or_default()
    }

    /// Derives the status, has it written, and lets the probes follow.
    fn publish(&mut self) {
        self.update_probes();
        self.update_resize();
        let terminal = self.stage == Stage::Terminated;
        let health = self.services.health();
        let failure = self.eviction.as_ref().map(|eviction| &eviction.failure);
        let name = match health.name.as_str() {
            "" => "containerd",
            name => name,
        };
        self.status = status::derive(&Facts {
            pod: &self.pod,
            old: &self.status,
            observed: &self.observed,
            probes: &self.probe_results,
            waiting: &self.waiting,
            runtime_name: name,
            host_ips: &self.services.host_ips(),
            recursive_read_only_mounts: self.services.recursive_read_only_mounts(),
            terminal,
            failure,
            resize: &self.resize,
            kubelet_started: self.services.started,
            now: Timestamp::now(),
        });
        self.count_start();
        self.report(false);
    }

    fn report(&self, finished: bool) {
        if self.deleted {
            return;
        }
        let report = Report {
            status: self.status.clone(),
            may_run: self.stage != Stage::Terminated,
            finished,
        };
        self.services.reporter.report(&self.pod, report);
    }

    fn update_probes(&mut self) {
        let running: Vec<&Seen> = self.observed.running().collect();
        self.probe_results
            .retain(|id| running.iter().any(|seen| seen.id == id));
        let statuses = self.status.container_statuses.iter().flatten();
        let statuses = statuses.chain(self.status.init_container_statuses.iter().flatten());
        let started: Vec<&str> = statuses
            .filter(|status| status.started == Some(true))
            .filter_map(|status| status.container_id.as_deref()?.split("://").nth(1))
            .collect();
        let pod_ip = self.pod_ip();
        if spec(&self.pod).containers.is_empty() {
            return;
        }
        self.probes.update(&Situation {
            pod: &self.pod,
            pod_ip: &pod_ip,
            running: &running,
            results: &self.probe_results,
            started_before: &|seen| started.contains(&seen.id.as_str()),
            terminating: self.stage != Stage::Active,
        });
    }

    /// Whether the status says that the pod never runs again.
    fn has_ended(&self) -> bool {
        self.status.phase.as_deref().is_some_and(is_terminal)
    }
}

/// Counts a failure, and tells when to try again.
fn retry_after(failures: &mut u32) -> Instant {
    let delay = Duration::from_secs(1 << (*failures).min(4)).min(Duration::from_secs(10));
    *failures = failures.saturating_add(1);
    Instant::now() + delay
}

fn until_then(at: Timestamp) -> Duration {
    let milliseconds = at.as_millisecond() - Timestamp::now().as_millisecond();
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
