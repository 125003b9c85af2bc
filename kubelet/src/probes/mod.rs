//! Probes: asking containers whether they have started, are ready, and are still alive.
//!
//! Enter at [`Probes`], which runs one task for each probe of each running container of a pod.
//! What they find is put into the pod's inbox.

pub mod exec;
pub mod grpc;
pub mod http;
mod task;

use std::{collections::HashMap, sync::Arc};

use coracle_client::EventRecorder;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use crate::{
    cri::Cri,
    metrics::Probed,
    pods::{
        inbox::Inbox,
        observed::Seen,
        probe_results::{ProbeKind, ProbeResults},
        spec::{ContainerKind, container_reference, is_sidecar, main_containers, spec},
    },
};
use task::{Prober, Task};

/// The probes of one pod; they end when it is dropped.
pub struct Probes {
    cri: Cri,
    recorder: EventRecorder,
    inbox: Arc<Inbox>,
    running: HashMap<(String, ProbeKind), tokio::task::JoinHandle<()>>,
}

/// What is known of a pod when its probes are looked at.
pub struct Situation<'a> {
    pub pod: &'a Pod,
    /// The address that probes without a host go to.
    pub pod_ip: &'a str,
    pub running: &'a [&'a Seen],
    pub results: &'a ProbeResults,
    /// Whether a container counts as started without a result of its startup probe, because it
    /// had started before the kubelet was restarted.
    pub started_before: &'a dyn Fn(&Seen) -> bool,
    /// Whether the pod is on its way out: then only readiness is of interest.
    pub terminating: bool,
}

impl Probes {
    pub fn new(cri: Cri, recorder: EventRecorder, inbox: Arc<Inbox>) -> Self {
        Probes {
            cri,
            recorder,
            inbox,
            running: HashMap::new(),
        }
    }

    /// Starts the probes that are due and ends those that are not any more.
    pub fn update(&mut self, now: &Situation<'_>) {
        let mut wanted: HashMap<(String, ProbeKind), (ContainerKind, &Container, &Probe, &Seen)> =
            HashMap::new();
        for (kind, container) in main_containers(spec(now.pod)) {
            if kind == ContainerKind::Init && !is_sidecar(container) {
                continue;
            }
            let seen = now.running.iter().find(|seen| seen.name == container.name);
            let Some(seen) = seen else {
                continue;
            };
            for (probe_kind, probe) in due(container, seen, now) {
                let key = (seen.id.clone(), probe_kind);
                wanted.insert(key, (kind, container, probe, seen));
            }
        }
        self.running.retain(|key, task| {
            // What a startup probe found is shown for as long as its container runs.
            let runs = || now.running.iter().any(|seen| seen.id == key.0);
            let keep = wanted.contains_key(key) || key.1 == ProbeKind::Startup && runs();
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, (kind, container, probe, seen)) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let task = Task {
                prober: Prober {
                    cri: self.cri.clone(),
                    kind: key.1,
                    probe: probe.clone(),
                    container: container.clone(),
                    container_id: key.0.clone(),
                    pod_ip: now.pod_ip.to_owned(),
                },
                recorder: self.recorder.clone(),
                involved: container_reference(now.pod, kind, &container.name),
                inbox: self.inbox.clone(),
                probed: Probed {
                    container: container.name.clone(),
                    namespace: now.pod.metadata.namespace.clone().unwrap_or_default(),
                    pod: now.pod.metadata.name.clone().unwrap_or_default(),
                    pod_uid: now.pod.metadata.uid.clone().unwrap_or_default(),
                    kind: key.1.title(),
                },
                started_at: seen.started_at,
            };
            self.running.insert(key, tokio::spawn(task.run()));
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

/// The probes of a running container that are of interest now: the others wait for it to start.
fn due<'a>(
    container: &'a Container,
    seen: &Seen,
    now: &Situation<'_>,
) -> Vec<(ProbeKind, &'a Probe)> {
    let mut due = Vec::new();
    let started = container.startup_probe.is_none()
        || now.results.get(&seen.id, ProbeKind::Startup) == Some(true)
        || (now.started_before)(seen);
    if !started {
        if let Some(probe) = container
            .startup_probe
            .as_ref()
            .filter(|_| !now.terminating)
        {
            due.push((ProbeKind::Startup, probe));
        }
        return due;
    }
    if let Some(probe) = &container.readiness_probe {
        due.push((ProbeKind::Readiness, probe));
    }
    if let Some(probe) = container
        .liveness_probe
        .as_ref()
        .filter(|_| !now.terminating)
    {
        due.push((ProbeKind::Liveness, probe));
    }
    due
}
