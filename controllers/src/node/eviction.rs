//! Evicts pods from nodes with taints that they do not tolerate, or no longer. Upstream:
//! `pkg/controller/tainteviction`.

use std::{collections::HashMap, time::Duration};

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Taint};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::taints::{self, NO_EXECUTE, Tolerated};
use crate::{
    Context, Error,
    changes::{self, Seen},
    objects::Objects,
    pods::{self, Disruption},
    work::{self, Done, Key},
};

const NAME: &str = "taint-eviction-controller";
const WORKERS: usize = 8;

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        nodes: context.informers.get(),
        pods: context.objects(),
        recorder: context.recorder(NAME),
        queue: Queue::named("noexec_taint_pod"),
        since: Mutex::default(),
    };
    controller.run(shutdown).await
}

struct Controller {
    nodes: Informer<Node>,
    pods: Objects<Pod>,
    recorder: EventRecorder,
    queue: Queue<Key>,
    /// Since when each pod that is to go is on a tainted node.
    since: Mutex<HashMap<Key, Timestamp>>,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let nodes = changes::each(&self.nodes, |seen| self.node_seen(seen));
        let pods = changes::each(&self.pods.cache, |seen| match seen {
            Seen::Applied { old, new } => {
                let place = |pod: &Pod| {
                    let spec = pod.spec.as_ref();
                    spec.map(|spec| (spec.node_name.clone(), spec.tolerations.clone()))
                };
                if old.is_none_or(|old| place(&old) != place(&new)) {
                    self.queue.add(Key::of(&new.metadata));
                }
            }
            Seen::Deleted(pod) => self.queue.add(Key::of(&pod.metadata)),
            Seen::Lagged => {}
        });
        let workers = async {
            self.nodes.synced().await;
            self.pods.cache.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = nodes => {}
            () = pods => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    fn node_seen(&self, seen: Seen<Node>) {
        let node = match seen {
            Seen::Applied { old, new } => {
                let former = old.map(|old| evicting(&old));
                if former.unwrap_or_default() == evicting(&new) {
                    return;
                }
                new
            }
            Seen::Deleted(node) => node,
            Seen::Lagged => {
                for pod in self.pods.cache.list() {
                    self.queue.add(Key::of(&pod.metadata));
                }
                return;
            }
        };
        let name = node.name_any();
        for pod in self.pods.cache.list() {
            if pods::node_name(&pod) == name {
                self.queue.add(Key::of(&pod.metadata));
            }
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let pod = self.pods.get(&key.namespace, &key.name);
        let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
            self.since.lock().remove(&key);
            return Ok(Done::Settled);
        };
        let node = self.nodes.get("", pods::node_name(&pod));
        let taints = node.map(|node| evicting(&node)).unwrap_or_default();
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.as_deref());
        let seconds = match taints::tolerated(tolerations.unwrap_or_default(), &taints) {
            Tolerated::Seconds(seconds) => seconds,
            Tolerated::ForEver => {
                if self.since.lock().remove(&key).is_some() {
                    self.tell(&key, "Cancelling deletion of Pod");
                }
                return Ok(Done::Settled);
            }
        };
        let now = Timestamp::now();
        let since = *self
            .since
            .lock()
            .entry(key.clone())
            .or_insert_with(|| tainted_since(&pod, &taints, now));
        let passed = now.duration_since(since).as_secs_f64();
        let left = seconds as f64 - passed;
        if left > 0.0 {
            return Ok(Done::Again(Duration::from_secs_f64(left)));
        }
        self.evict(&key, &pod).await?;
        self.since.lock().remove(&key);
        Ok(Done::Settled)
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        tracing::info!(pod = %key, "evicting the pod from a tainted node");
        self.tell(key, "Marking for deletion Pod");
        let disruption = Disruption {
            reason: "DeletionByTaintManager",
            message: "Taint manager: deleting due to NoExecute taint",
        };
        pods::evict(&self.pods, pod, &disruption).await
    }

    fn tell(&self, key: &Key, what: &str) {
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.event(
            reference,
            EventType::Normal,
            "TaintManagerEviction",
            format!("{what} {key}"),
        );
    }
}

fn evicting(node: &Node) -> Vec<Taint> {
    let taints = taints::list(node).iter();
    taints
        .filter(|taint| taint.effect == NO_EXECUTE)
        .cloned()
        .collect()
}

/// From when the pod's tolerations count: when the last taint was added, if that is known and the
/// pod was there already, so that a restart of this controller gives nobody more time.
fn tainted_since(pod: &Pod, taints: &[Taint], now: Timestamp) -> Timestamp {
    let mut times = taints.iter().map(|taint| taint.time_added.as_ref());
    let latest = times.try_fold(Timestamp::MIN, |latest, time| Some(latest.max(time?.0)));
    let started = pod.creation_timestamp().map(|time| time.0);
    match (latest, started) {
        (Some(latest), Some(started)) => latest.max(started).min(now),
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn time_on_a_tainted_node_counts_from_the_last_taint() {
        let at = |time: &str| -> Timestamp { time.parse().expect("a time") };
        let taint = |added: Option<&str>| -> Taint {
            serde_json::from_value(json!({ "key": "k", "effect": "NoExecute", "timeAdded": added }))
                .expect("a taint")
        };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "creationTimestamp": "2026-01-01T00:00:10Z" }
        }))
        .expect("a pod");
        let now = at("2026-01-01T00:01:00Z");
        let cases = [
            (
                vec![taint(Some("2026-01-01T00:00:30Z"))],
                "2026-01-01T00:00:30Z",
            ),
            (
                vec![taint(Some("2026-01-01T00:00:00Z"))],
                "2026-01-01T00:00:10Z",
            ),
            (
                vec![taint(Some("2027-01-01T00:00:00Z"))],
                "2026-01-01T00:01:00Z",
            ),
            (
                vec![taint(Some("2026-01-01T00:00:30Z")), taint(None)],
                "2026-01-01T00:01:00Z",
            ),
        ];
        for (taints, expected) in cases {
            assert_eq!(tainted_since(&pod, &taints, now), at(expected));
        }
    }
}
