//! What the runtime and the disk have: it is compared with the pods there are, and what belongs to
//! none is taken down.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use coracle_api::core::pod::resources::QosClass;
use futures::{StreamExt as _, stream};
use k8s_cri::v1::{
    ListContainersRequest, ListPodSandboxRequest, RemovePodSandboxRequest, StopPodSandboxRequest,
};

use super::{Manager, Running};
use crate::{
    metrics,
    pods::{labels, resources::class_group},
    volumes,
};

/// Sandboxes without a pod that are removed at the same time.
const ORPHANS_AT_ONCE: usize = 4;

impl Manager {
    /// Lists everything in the runtime and tells the pods of what has changed.
    pub(super) async fn list(self: &Arc<Self>, running: &mut Running) {
        let (mut sandboxes, mut containers) = (
            self.services.cri.runtime.clone(),
            self.services.cri.runtime.clone(),
        );
        let since = std::time::Instant::now();
        let listed = tokio::try_join!(
            sandboxes.list_pod_sandbox(ListPodSandboxRequest::default()),
            containers.list_containers(ListContainersRequest::default()),
        );
        let (sandboxes, containers) = match listed {
            Ok((sandboxes, containers)) => (sandboxes.into_inner(), containers.into_inner()),
            Err(error) => {
                tracing::debug!(%error, "cannot list what runs");
                return;
            }
        };
        metrics::listed(since);
        let mut states = HashMap::new();
        let mut orphans = BTreeSet::new();
        let known: BTreeSet<String> = self.known.lock().keys().cloned().collect();
        let items = sandboxes
            .items
            .iter()
            .map(|it| (&it.id, it.state, &it.labels, true));
        let containers = containers.containers.iter();
        let items = items.chain(containers.map(|it| (&it.id, it.state, &it.labels, false)));
        for (id, state, labels, is_sandbox) in items {
            let pod = labels::pod_uid(labels);
            if pod.is_empty() {
                continue;
            }
            states.insert(id.clone(), state);
            let is_new = self.services.index.pod_of(id).is_none();
            if known.contains(pod) {
                self.services.index.insert(id, pod);
                if is_new && running.listed {
                    self.tell(pod, |letters| letters.look_at_all = true);
                }
            } else if is_sandbox {
                orphans.insert(id.clone());
            }
        }
        for (id, state) in &states {
            if running.listed && running.states.get(id) != Some(state) {
                self.pass_on(id.clone(), false);
            }
        }
        for id in running.states.keys().filter(|id| !states.contains_key(*id)) {
            self.pass_on(id.clone(), false);
        }
        running.states = states;
        running.listed = true;
        if !orphans.is_empty() && running.removals.is_empty() {
            let manager = self.clone();
            running
                .removals
                .spawn(async move { manager.remove_orphans(orphans).await });
        }
    }

    /// Removes sandboxes of pods that are not there any more.
    async fn remove_orphans(&self, sandboxes: BTreeSet<String>) {
        let removals = stream::iter(sandboxes.into_iter().map(|id| async move {
            tracing::info!(sandbox = id, "removing the sandbox of a pod that is gone");
            let mut runtime = self.services.cri.runtime.clone();
            let stop = StopPodSandboxRequest {
                pod_sandbox_id: id.clone(),
            };
            let remove = RemovePodSandboxRequest { pod_sandbox_id: id };
            let removed = match runtime.stop_pod_sandbox(stop).await {
                Ok(_) => runtime.remove_pod_sandbox(remove).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, "cannot remove a sandbox");
            }
        }));
        removals
            .buffer_unordered(ORPHANS_AT_ONCE)
            .collect::<()>()
            .await;
    }

    /// Removes directories and control groups of pods that are not there any more.
    pub(super) async fn sweep(&self) {
        let known: BTreeSet<String> = self.known.lock().keys().cloned().collect();
        let config = &self.services.config;
        for name in names(&config.root_dir.join("pods")) {
            if known.contains(&name) {
                continue;
            }
            let directory = config.pod_dir(&name);
            let work = move || volumes::take_down(&directory);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
                tracing::warn!(pod = name, %error, "cannot remove the directory of a pod");
            }
        }
        for name in names(&config.pod_logs_dir) {
            let gone = name
                .rsplit('_')
                .next()
                .is_some_and(|uid| !known.contains(uid));
            if gone && let Err(error) = std::fs::remove_dir_all(config.pod_logs_dir.join(&name)) {
                tracing::debug!(%error, "cannot remove the logs of a pod");
            }
        }
        let kubepods = self.services.kubepods();
        for class in [
            QosClass::Guaranteed,
            QosClass::Burstable,
            QosClass::BestEffort,
        ] {
            for group in self
                .services
                .cgroups
                .children(&class_group(&kubepods, class))
            {
                let name = group.file_name().unwrap_or_default().to_string_lossy();
                let gone = name
                    .strip_prefix("pod")
                    .is_some_and(|uid| !known.contains(uid));
                if gone && let Err(error) = self.services.cgroups.remove(&group).await {
                    tracing::warn!(%error, "cannot remove the cgroup of a pod");
                }
            }
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
