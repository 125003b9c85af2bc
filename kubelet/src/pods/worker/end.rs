//! A pod on its way out: ending its containers, and then taking down what it had on the node
//! (upstream's `SyncTerminatingPod` and `SyncTerminatedPod`).

use std::{fs, path::Path, time::Duration};

use coracle_client::EventType;
use k8s_cri::v1::RemovePodSandboxRequest;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::{
    Next, Stage, Worker,
    kill::{self, Victim},
};
use crate::pods::{
    errors::is_not_found,
    observe,
    observed::Activity,
    resources,
    spec::{describe, spec},
    status,
};

/// Before a step that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Worker {
    /// Ends everything that runs.
    pub(super) async fn terminate(&mut self) -> Next {
        self.publish();
        let nothing_was_made =
            self.observed.sandboxes.is_empty() && self.observed.containers.is_empty();
        if nothing_was_made {
            self.stage = Stage::Terminated;
            return Next::Again;
        }
        if !self.services.health().usable() {
            return Next::WaitForRuntime(None);
        }
        let grace = self.shorten_grace();
        let victims: Vec<Victim> = self.observed.running().map(Victim::from).collect();
        let sandboxes = self.observed.sandboxes.iter();
        let sandboxes: Vec<String> = sandboxes.map(|sandbox| sandbox.id.clone()).collect();
        let of = kill::Of {
            services: self.services.clone(),
            pod: self.pod.clone(),
            pod_ip: self.pod_ip(),
        };
        let work = kill::pod(&of, &victims, &sandboxes, Some(grace));
        let shortened = |worker: &Worker| worker.wanted_grace() < grace;
        match self.during(work, shortened).await {
            None => return Next::Again,
            Some(Err(error)) => {
                let message = format!("error killing pod: {error}");
                let warning = EventType::Warning;
                self.services
                    .pod_event(&self.pod, warning, "FailedKillPod", &message);
                self.looked = false;
                return Next::WaitForRuntime(Some(Instant::now() + RETRY));
            }
            Some(Ok(())) => {}
        }
        match observe::all(&self.services.cri, self.uid()).await {
            Ok(observed) => self.observed = observed,
            Err(_) => return Next::WaitForRuntime(Some(Instant::now() + RETRY)),
        }
        let unfinished = self
            .observed
            .containers
            .iter()
            .any(|seen| seen.activity == Activity::Running);
        if unfinished {
            tracing::warn!(
                pod = describe(&self.pod),
                "containers run after they were stopped"
            );
            return Next::WaitForRuntime(Some(Instant::now() + RETRY));
        }
        self.stage = Stage::Terminated;
        self.publish();
        Next::Again
    }

    /// The seconds that containers have by what is known now.
    fn wanted_grace(&self) -> i64 {
        let of_pod = spec(&self.pod).termination_grace_period_seconds;
        let deletion = self.pod.metadata.deletion_grace_period_seconds;
        let eviction = self.eviction.as_ref().and_then(|eviction| eviction.grace);
        let base = deletion.or(of_pod).unwrap_or(30);
        eviction.map_or(base, |grace| grace.min(base)).max(1)
    }

    /// A grace period once given is only ever shortened.
    fn shorten_grace(&mut self) -> i64 {
        let wanted = self.wanted_grace();
        let grace = self.grace.map_or(wanted, |grace| grace.min(wanted));
        self.grace = Some(grace);
        grace
    }

    /// Takes down what the pod had on the node.
    pub(super) async fn finish(&mut self) -> Next {
        if self.finished {
            return self.depart().await;
        }
        if let Err(error) = self.volumes.tear_down().await {
            tracing::warn!(pod = describe(&self.pod), %error, "cannot take a pod's volumes down");
            return Next::Wait(Some(Instant::now() + RETRY));
        }
        let group = resources::pod_group(&self.services.kubepods(), &self.pod);
        if let Err(error) = self.services.cgroups.remove(&group).await {
            tracing::warn!(pod = describe(&self.pod), %error, "cannot remove a pod's cgroup");
            return Next::Wait(Some(Instant::now() + RETRY));
        }
        self.group = None;
        self.services.images.forget(self.uid());
        self.publish();
        status::finish(&self.pod, &mut self.status);
        self.finished = true;
        self.report(true);
        self.depart().await
    }

    /// The pod waits for its object to go; what is kept for its logs goes with it.
    async fn depart(&mut self) -> Next {
        if !self.deleted {
            // Its deletion may be asked for later.
            self.report(true);
            return Next::Wait(None);
        }
        if !self.services.health().usable() {
            return Next::WaitForRuntime(None);
        }
        let mut left = false;
        for sandbox in self.observed.sandboxes.clone() {
            left |= !self.remove_sandbox(&sandbox.id).await;
        }
        if left {
            return Next::WaitForRuntime(Some(Instant::now() + RETRY));
        }
        for container in self.observed.containers.clone() {
            self.unlink_log(&container.name, &container.id);
            self.forget(&container.id);
        }
        remove_pod_logs(&self.services.pod_log_dir(&self.pod));
        self.services.reporter.forget(self.uid());
        Next::Done
    }
}

impl Worker {
    /// Tells whether the sandbox, with the containers in it, is gone.
    pub(super) async fn remove_sandbox(&mut self, id: &str) -> bool {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let mut runtime = self.services.cri.runtime.clone();
        match runtime.remove_pod_sandbox(request).await {
            Err(status) if !is_not_found(&status) => {
                tracing::debug!(id, error = status.message(), "cannot remove a sandbox");
                false
            }
            _ => {
                self.forget(id);
                true
            }
        }
    }

    /// Removes the link by which log collectors find a container's log.
    pub(super) fn unlink_log(&self, container: &str, id: &str) {
        if let Some(directory) = &self.services.config.container_logs_dir {
            let link = directory.join(log_link(&self.pod, container, id));
            if let Err(error) = fs::remove_file(link)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!(%error, "cannot remove the link to a log");
            }
        }
    }
}

/// The name by which log collectors know a container's log.
pub fn log_link(pod: &Pod, container: &str, id: &str) -> String {
    format!(
        "{}_{}_{container}-{id}.log",
        pod.name_any(),
        pod.namespace().unwrap_or_default()
    )
}

fn remove_pod_logs(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(%error, "cannot remove the logs of a pod");
    }
}

/// Removes the log of one run of a container, with what was rotated of it.
pub fn remove_logs(directory: &Path, restart_count: i32) {
    let log = format!("{restart_count}.log");
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let rest = name.strip_prefix(&log);
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(%error, "cannot remove a log");
        }
    }
}
