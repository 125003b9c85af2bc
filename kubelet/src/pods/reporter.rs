//! Writes the statuses of pods to the API, the latest of each pod only, and removes a pod from
//! the API when it has ended and its deletion was asked for (upstream's status manager).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_client::{Backoff, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Preconditions},
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::metrics;

use super::{
    spec::uid,
    status::{Written, is_terminal, merge, patch},
};

/// Statuses written at the same time.
const WRITERS: usize = 8;

/// What is to be written of a pod.
#[derive(Clone)]
struct Entry {
    /// As it was last seen in the API.
    pod: Arc<Pod>,
    status: PodStatus,
    /// Since when that is the status.
    since: Instant,
    /// Whether containers of the pod may be running.
    may_run: bool,
    /// Whether nothing of the pod is left on the node but its logs.
    finished: bool,
}

/// What is known of a pod's status.
pub struct Report {
    pub status: PodStatus,
    pub may_run: bool,
    pub finished: bool,
}

/// Writes statuses.
pub struct Reporter {
    client: Client,
    entries: Mutex<HashMap<String, Entry>>,
    queue: Queue<String>,
}

impl Reporter {
    pub fn new(client: Client) -> Self {
        Reporter {
            client,
            entries: Mutex::default(),
            queue: Queue::new(Backoff {
                base: Duration::from_millis(50),
                max: Duration::from_secs(10),
            }),
        }
    }

    /// Has a status written. `pod` is the pod as it was last seen in the API.
    pub fn report(&self, pod: &Arc<Pod>, report: Report) {
        let key = uid(pod).to_owned();
        let mut entries = self.entries.lock();
        let pod = match entries.get(&key) {
            Some(known) if is_newer(&known.pod, pod) => known.pod.clone(),
            _ => pod.clone(),
        };
        let Report {
            status,
            may_run,
            finished,
        } = report;
        entries.insert(
            key.clone(),
            Entry {
                pod,
                status,
                since: Instant::now(),
                may_run,
                finished,
            },
        );
        drop(entries);
        self.queue.add(key);
    }

    /// The pod is gone from the API.
    pub fn forget(&self, pod_uid: &str) {
        self.entries.lock().remove(pod_uid);
        self.queue.forget(&pod_uid.to_owned());
    }

    /// The pod with the status that is known here.
    pub fn pod(&self, pod_uid: &str) -> Option<Arc<Pod>> {
        let entry = self.entries.lock().get(pod_uid).cloned()?;
        let mut pod = Arc::unwrap_or_clone(entry.pod);
        pod.status = Some(entry.status);
        Some(Arc::new(pod))
    }

    /// Writes until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(self.clone().write());
        }
        shutdown.cancelled().await;
        writers.shutdown().await;
    }

    async fn write(self: Arc<Self>) {
        loop {
            let key = self.queue.next().await;
            match self.write_one(&key).await {
                Ok(()) => self.queue.forget(&key),
                Err(error) => {
                    tracing::debug!(pod = key, %error, "cannot write the status of a pod");
                    self.queue.retry(key.clone());
                }
            }
            self.queue.done(&key);
        }
    }

    async fn write_one(&self, key: &String) -> Result<(), kube::Error> {
        let Some(entry) = self.entries.lock().get(key).cloned() else {
            return Ok(());
        };
        let merged = merge(&entry.pod, &entry.status, entry.may_run, Timestamp::now());
        let mut pod = entry.pod.clone();
        match patch(&self.client, &entry.pod, &merged).await? {
            Written::Unchanged => {}
            Written::Gone => {
                self.forget(key);
                return Ok(());
            }
            Written::Changed(written) => {
                metrics::status_written(entry.since.elapsed());
                pod = Arc::new(*written);
                if let Some(known) = self.entries.lock().get_mut(key)
                    && !is_newer(&known.pod, &pod)
                {
                    known.pod = pod.clone();
                }
            }
        }
        let ended = merged.phase.as_deref().is_some_and(is_terminal);
        if entry.finished && ended && pod.metadata.deletion_timestamp.is_some() {
            self.delete(&pod).await?;
        }
        Ok(())
    }

    /// The last step of a deletion that somebody asked for.
    async fn delete(&self, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<Pod> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(&pod.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether `a` is a later state of the same pod than `b`.
fn is_newer(a: &Pod, b: &Pod) -> bool {
    let version = |pod: &Pod| -> u64 {
        let version = pod.metadata.resource_version.as_deref();
        version.and_then(|it| it.parse().ok()).unwrap_or(0)
    };
    version(a) > version(b)
}
