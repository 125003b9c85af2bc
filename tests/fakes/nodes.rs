//! Nodes without machines: what kubelets tell the API server, told at once. The nodes are ready and
//! renew their leases; a pod that is bound to one runs and is ready, ends when it may end, and goes
//! when it is deleted.
//!
//! Enter at [`FakeNodes::start`]. What a pod does is decided in [`next_step`] from its object alone,
//! so nothing is lost when the API server dies and other fake nodes take over.

use std::{sync::Arc, time::Duration};

use coracle_client::{Change, Informers};
use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A pod with this annotation exits with that code, when it is a pod that ends.
pub const EXIT_CODE: &str = "fakes.example.com/exit-code";
/// As upstream's kubelet.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// Requests under way at once.
const CONCURRENCY: usize = 32;

/// The nodes run until this is dropped.
pub struct FakeNodes {
    tasks: JoinSet<()>,
}

impl FakeNodes {
    /// Registers `fake-0` to `fake-{count - 1}` and plays their kubelets from then on.
    ///
    /// # Panics
    /// The API does not take a node.
    pub async fn start(client: Client, count: usize) -> Self {
        let mut nodes = Self::idle(client.clone(), count).await;
        nodes.tasks.spawn(run_pods(client));
        nodes
    }

    /// As [`FakeNodes::start`], but nothing becomes of the pods.
    ///
    /// # Panics
    /// The API does not take a node.
    pub async fn idle(client: Client, count: usize) -> Self {
        stream::iter(0..count)
            .for_each_concurrent(CONCURRENCY, |number| register(client.clone(), number))
            .await;
        let mut tasks = JoinSet::new();
        tasks.spawn(renew(client, count));
        FakeNodes { tasks }
    }
}

pub fn node_name(number: usize) -> String {
    format!("fake-{number}")
}

async fn register(client: Client, number: usize) {
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "1Ti"});
    let node: Node = serde_json::from_value(json!({
        "metadata": {
            "name": node_name(number),
            "labels": {
                "kubernetes.io/hostname": node_name(number),
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": host(number)}],
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
                "lastHeartbeatTime": Time(Timestamp::now()),
                "lastTransitionTime": Time(Timestamp::now()),
            }],
        },
    }))
    .expect("a node");
    let nodes: Api<Node> = Api::all(client);
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => panic!("the node is not taken: {error}"),
    }
}

fn host(number: usize) -> String {
    format!("192.168.{}.{}", number / 250, number % 250 + 1)
}

async fn renew(client: Client, count: usize) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let params = PatchParams::apply("kubelet").force();
    loop {
        stream::iter(0..count)
            .for_each_concurrent(CONCURRENCY, |number| {
                let (leases, params) = (leases.clone(), params.clone());
                async move {
                    let lease = json!({
                        "apiVersion": "coordination.k8s.io/v1",
                        "kind": "Lease",
                        "metadata": {"name": node_name(number)},
                        "spec": {
                            "holderIdentity": node_name(number),
                            "leaseDurationSeconds": 40,
                            "renewTime": MicroTime(Timestamp::now()),
                        },
                    });
                    // The next renewal is soon.
                    let _ = leases
                        .patch(&node_name(number), &params, &Patch::Apply(lease))
                        .await;
                }
            })
            .await;
        tokio::time::sleep(RENEW_INTERVAL).await;
    }
}

async fn run_pods(client: Client) {
    let informers = Informers::new(client.clone());
    let pods = informers.get::<Pod>();
    let mut changes = pods.subscribe();
    let mut steps = JoinSet::new();
    pods.synced().await;
    loop {
        let Some(change) = changes.next().await else {
            return;
        };
        let affected = match change {
            Change::Applied { new, .. } => vec![new],
            Change::Deleted(_) => Vec::new(),
            Change::Lagged => pods.list(),
        };
        for pod in affected {
            let Some(step) = next_step(&pod) else {
                continue;
            };
            while steps.len() >= CONCURRENCY {
                steps.join_next().await;
            }
            steps.spawn(take(client.clone(), pod, step));
        }
    }
}

/// What the pod's kubelet does next.
enum Step {
    Report(Value),
    Remove,
}

fn next_step(pod: &Pod) -> Option<Step> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_ref()?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    let phase = phase.unwrap_or_default();
    let ended = phase == "Succeeded" || phase == "Failed";
    if pod.metadata.deletion_timestamp.is_some() {
        return match (pod.metadata.deletion_grace_period_seconds, ended) {
            // Only a finalizer keeps it.
            (Some(0), true) => None,
            (_, true) => Some(Step::Remove),
            (_, false) => Some(Step::Report(end(pod, 137))),
        };
    }
    if ended {
        return None;
    }
    if phase != "Running" {
        return Some(Step::Report(running(pod)));
    }
    if spec.restart_policy.as_deref() == Some("Always") {
        return None;
    }
    let code = pod.annotations().get(EXIT_CODE);
    let code = code.and_then(|code| code.parse().ok()).unwrap_or(0);
    Some(Step::Report(end(pod, code)))
}

/// An address of its own: different uids seldom give the same.
fn address(pod: &Pod) -> String {
    let uid = pod.uid().unwrap_or_default();
    let hex: String = uid.chars().filter(char::is_ascii_hexdigit).collect();
    let bits = u32::from_str_radix(hex.get(..6).unwrap_or("0"), 16).unwrap_or(0);
    let [_, high, middle, low] = bits.to_be_bytes();
    format!("10.{high}.{middle}.{low}")
}

fn running(pod: &Pod) -> Value {
    let now = Time(Timestamp::now());
    let address = address(pod);
    json!({
        "phase": "Running",
        "startTime": now,
        "hostIP": "192.168.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": conditions(true),
        "containerStatuses": containers(pod, &json!({"running": {"startedAt": now}}), true),
    })
}

fn end(pod: &Pod, code: i32) -> Value {
    let now = Time(Timestamp::now());
    let reason = if code == 0 { "Completed" } else { "Error" };
    let state = json!({"terminated": {
        "exitCode": code,
        "reason": reason,
        "startedAt": now,
        "finishedAt": now,
    }});
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "conditions": conditions(false),
        "containerStatuses": containers(pod, &state, false),
    })
}

fn conditions(ready: bool) -> Value {
    let now = Time(Timestamp::now());
    let condition = |kind: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        json!({"type": kind, "status": status, "lastTransitionTime": now})
    };
    json!([
        condition("PodReadyToStartContainers", ready),
        condition("Initialized", true),
        condition("Ready", ready),
        condition("ContainersReady", ready),
    ])
}

fn containers(pod: &Pod, state: &Value, ready: bool) -> Value {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image,
                "imageID": "",
                "containerID": format!("fake://{}", pod.uid().unwrap_or_default()),
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            })
        })
        .collect()
}

/// A step that fails is taken again at the pod's next change, or it was for a pod that is gone.
async fn take(client: Client, pod: Arc<Pod>, step: Step) {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let failed = match step {
        Step::Report(status) => {
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
            let params = PatchParams::default();
            let patched = pods
                .patch_status(&name, &params, &Patch::Strategic(patch))
                .await;
            patched.err()
        }
        Step::Remove => {
            let params = DeleteParams::default().grace_period(0);
            let params = params.preconditions(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            });
            pods.delete(&name, &params).await.err()
        }
    };
    if let Some(error) = failed {
        tracing::debug!(pod = name, %error, "a fake node could not act on a pod");
    }
}
