//! Deletes pods that nobody else will: those bound to nodes that are gone, those that were deleted
//! before they were bound, those on nodes that are out of service, and ended ones beyond a limit.
//! Upstream: `pkg/controller/podgc`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{ResourceExt as _, api::DeleteParams};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Ready, readiness, ready_condition, taints};
use crate::{
    Context, Error, error,
    objects::Objects,
    pods::{self, Disruption},
};

const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be gone before its pods go.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Ended pods that are kept.
const ENDED: usize = 12_500;

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        pods: context.objects(),
        nodes: context.objects(),
    };
    let collect = async {
        controller.pods.cache.synced().await;
        controller.nodes.cache.synced().await;
        let mut missing = HashMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            controller.collect(&mut missing).await;
        }
    };
    tokio::select! {
        () = collect => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

struct Controller {
    pods: Objects<Pod>,
    nodes: Objects<Node>,
}

/// A pod that has to go, and what its status says of it.
struct Doomed {
    pod: Arc<Pod>,
    disruption: Option<Disruption>,
}

impl Controller {
    async fn collect(&self, missing: &mut HashMap<String, Instant>) {
        let pods = self.pods.cache.list();
        let gone = self.gone(&pods, missing).await;
        for doomed in doomed(&pods, |name| self.nodes.get("", name), &gone, ENDED) {
            if let Err(error) = self.remove(&doomed).await {
                let pod = doomed.pod.name_any();
                tracing::info!(pod, %error, "cannot delete the pod, trying again");
            }
        }
    }

    /// The nodes that pods are bound to and that have been missing for long enough, as the API
    /// confirms.
    async fn gone(
        &self,
        pods: &[Arc<Pod>],
        missing: &mut HashMap<String, Instant>,
    ) -> HashSet<String> {
        let now = Instant::now();
        let bound: HashSet<&str> = pods
            .iter()
            .map(|pod| pods::node_name(pod))
            .filter(|name| !name.is_empty() && self.nodes.get("", name).is_none())
            .collect();
        missing.retain(|name, _| bound.contains(name.as_str()));
        let mut gone = HashSet::new();
        for name in bound {
            let since = *missing.entry(name.to_owned()).or_insert(now);
            if now.duration_since(since) >= QUARANTINE
                && let Ok(None) = self.nodes.read("", name).await
            {
                gone.insert(name.to_owned());
            }
        }
        gone
    }

    async fn remove(&self, doomed: &Doomed) -> Result<(), Error> {
        let pod = &doomed.pod;
        tracing::info!(
            pod = pod.name_any(),
            "deleting a pod that nobody looks after"
        );
        if !pods::is_terminal(pod) {
            let now = Timestamp::now();
            let disrupted = doomed.disruption.as_ref();
            let mut status = disrupted
                .and_then(|disruption| pods::disrupted(pod, disruption, now))
                .or_else(|| pod.status.clone())
                .unwrap_or_default();
            status.phase = Some("Failed".to_owned());
            status.observed_generation = pod.metadata.generation;
            let marked = pods::patch_status(&self.pods, pod, status).await;
            if error::optional(marked)?.is_none() {
                return Ok(());
            }
        }
        let params = DeleteParams::default().grace_period(0);
        self.pods.delete(pod, params).await?;
        Ok(())
    }
}

/// The pods that have to go, each once.
fn doomed(
    pods: &[Arc<Pod>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
    gone: &HashSet<String>,
    keep: usize,
) -> Vec<Doomed> {
    let out_of_service = |pod: &Pod| {
        node(pods::node_name(pod)).is_some_and(|node| {
            let ready = ready_condition(&node).map(readiness);
            let tainted = taints::list(&node)
                .iter()
                .any(|taint| taint.key == taints::OUT_OF_SERVICE);
            ready != Some(Ready::True) && tainted
        })
    };
    let surplus: HashSet<String> = surplus(pods, keep).into_iter().collect();
    let mut doomed = Vec::new();
    for pod in pods {
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let name = pods::node_name(pod);
        if gone.contains(name) {
            doomed.push(Doomed {
                pod: pod.clone(),
                disruption: Some(Disruption {
                    reason: "DeletionByPodGC",
                    message: "PodGC: node no longer exists",
                }),
            });
        } else if deleted && (name.is_empty() || out_of_service(pod))
            || surplus.contains(&pod.uid().unwrap_or_default())
        {
            doomed.push(Doomed {
                pod: pod.clone(),
                disruption: None,
            });
        }
    }
    doomed
}

/// The uids of ended pods beyond the number to keep: evicted ones first, then the oldest.
fn surplus(pods: &[Arc<Pod>], keep: usize) -> Vec<String> {
    let mut ended: Vec<&Arc<Pod>> = pods
        .iter()
        .filter(|pod| !matches!(pods::phase(pod), "Pending" | "Running" | "Unknown" | ""))
        .collect();
    let count = ended.len().saturating_sub(keep);
    if count == 0 {
        return Vec::new();
    }
    let evicted = |pod: &Pod| {
        let reason = pod
            .status
            .as_ref()
            .and_then(|status| status.reason.as_deref());
        pods::phase(pod) == "Failed" && reason == Some("Evicted")
    };
    ended.sort_by_key(|pod| {
        let created = pod.creation_timestamp().map(|time| time.0);
        (!evicted(pod), created, pod.name_any())
    });
    let oldest = ended.into_iter().take(count);
    oldest.filter_map(|pod| pod.uid()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).expect("an object"))
    }

    #[test]
    fn pods_go_that_nobody_looks_after() {
        let node = |name: &str| {
            let taint =
                json!({ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" });
            let (ready, taints) = match name {
                "well" => ("True", json!([])),
                "dead" => ("False", json!([])),
                "lost" => ("False", json!([taint])),
                // It came back, and the taint is still there.
                "back" => ("True", json!([taint])),
                _ => return None,
            };
            Some(parsed::<Node>(json!({
                "metadata": { "name": name },
                "spec": { "taints": taints },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            })))
        };
        let gone = HashSet::from(["gone".to_owned()]);
        // The pod's node, whether it is being deleted, and what becomes of it.
        let cases = [
            ("", false, None),
            ("", true, Some(false)),
            ("well", true, None),
            ("dead", true, None),
            ("back", true, None),
            ("lost", false, None),
            ("lost", true, Some(false)),
            ("gone", false, Some(true)),
            ("gone", true, Some(true)),
            ("missing", true, None),
        ];
        for (name, deleted, expected) in cases {
            let pod = parsed::<Pod>(json!({
                "metadata": { "name": "p", "uid": "p",
                    "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z") },
                "spec": { "nodeName": name, "containers": [] },
                "status": { "phase": "Running" },
            }));
            let found = doomed(&[pod], node, &gone, ENDED);
            let found: Vec<bool> = found.iter().map(|one| one.disruption.is_some()).collect();
            let expected: Vec<bool> = expected.into_iter().collect();
            assert_eq!(found, expected, "on {name:?}, deleted: {deleted}");
        }
    }

    #[test]
    fn evicted_pods_go_before_older_ones() {
        let pod = |name: &str, phase: &str, reason: &str, created: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": { "name": name, "uid": name, "creationTimestamp": created },
                    "status": { "phase": phase, "reason": reason },
                }))
                .expect("a pod"),
            )
        };
        let pods = [
            pod("old", "Succeeded", "", "2026-01-01T00:00:00Z"),
            pod("evicted", "Failed", "Evicted", "2026-01-03T00:00:00Z"),
            pod("young", "Failed", "", "2026-01-02T00:00:00Z"),
            pod("running", "Running", "", "2025-01-01T00:00:00Z"),
        ];
        assert!(surplus(&pods, 3).is_empty());
        assert_eq!(surplus(&pods, 1), ["evicted", "old"]);
    }
}
