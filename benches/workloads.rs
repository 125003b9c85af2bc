//! The scheduler and the controllers on nodes without machines: how fast many pods get their nodes,
//! and what many Deployments cost.
//!
//! `BENCH_DIVISOR=50` makes everything so many times smaller, to try it out.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_client::{Cached, Change, Informers};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, ResourceExt as _, api::PostParams};
use serde_json::json;

use crate::{
    api::Server,
    fakes::FakeNodes,
    process,
    report::{self, line, seconds},
};

const NODES: usize = 500;
const PODS: usize = 5_000;
const DEPLOYMENTS: usize = 500;
/// Requests under way at once.
const CONCURRENCY: usize = 16;
/// Room for the addresses of all nodes.
const FLAGS: [&str; 2] = ["--cluster-cidr", "10.128.0.0/9"];
/// How long either may take.
const DEADLINE: Duration = Duration::from_secs(900);

/// Prints the figures.
pub async fn run() {
    schedule().await;
    deploy().await;
}

fn scaled(count: usize) -> usize {
    let divisor = std::env::var("BENCH_DIVISOR");
    let divisor = divisor.ok().and_then(|divisor| divisor.parse().ok());
    (count / divisor.unwrap_or(1).max(1)).max(1)
}

async fn start() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(dir.path(), &FLAGS).await;
    // Pods need the account of their namespace.
    let accounts = Informers::new(server.client.clone()).get::<ServiceAccount>();
    let there = accounts.wait_for(|accounts| accounts.get("default", "default").is_some());
    in_time("the default account", there).await;
    (dir, server)
}

/// Pods that are created one by one, until each is bound.
async fn schedule() {
    let (nodes, pods) = (scaled(NODES), scaled(PODS));
    let (_dir, server) = start().await;
    let fakes = FakeNodes::idle(server.client.clone(), nodes).await;
    let bound = count(&server, "every pod has its node", pods, |pod: &Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_some())
    });
    let api: Api<Pod> = Api::namespaced(server.client.clone(), "default");
    let (begun, cpu) = (Instant::now(), process::cpu(server.pid()));
    let created = each(pods, |number| {
        let api = api.clone();
        async move {
            let pod = serde_json::from_value(json!({
                "metadata": {"name": format!("bench-{number}"), "labels": {"app": "bench"}},
                "spec": {"containers": [{
                    "name": "main",
                    "image": "example/main",
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }]},
            }))
            .expect("a pod");
            let created = api.create(&PostParams::default(), &pod).await;
            created.expect("the pod is taken");
        }
    });
    let ((), ()) = tokio::join!(created, bound);
    let (time, cpu) = (begun.elapsed(), process::cpu(server.pid()) - cpu);
    let what = format!("scheduler: {pods} pods onto {nodes} nodes");
    line(&format!("{what}, from the first create"), seconds(time));
    let rate = pods as f64 / time.as_secs_f64();
    line(&format!("{what}, pods a second"), format!("{rate:.0}"));
    line(&format!("{what}, server CPU"), seconds(cpu));
    drop(fakes);
}

/// Deployments of one replica, until each is available.
async fn deploy() {
    let (nodes, deployments) = (scaled(NODES), scaled(DEPLOYMENTS));
    let (_dir, server) = start().await;
    let _fakes = FakeNodes::start(server.client.clone(), nodes).await;
    let made = count(&server, "every pod is made", deployments, |_: &Pod| true);
    let available = count(
        &server,
        "every Deployment is available",
        deployments,
        |deployment: &Deployment| {
            let status = deployment.status.as_ref();
            status.and_then(|status| status.available_replicas) == Some(1)
        },
    );
    let api: Api<Deployment> = Api::namespaced(server.client.clone(), "default");
    let pid = server.pid();
    let (begun, cpu, empty) = (Instant::now(), process::cpu(pid), process::resident(pid));
    let created = each(deployments, |number| {
        let api = api.clone();
        async move {
            let labels = json!({"app": format!("bench-{number}")});
            let deployment = serde_json::from_value(json!({
                "metadata": {"name": format!("bench-{number}")},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "main", "image": "example/main"}]},
                    },
                },
            }))
            .expect("a Deployment");
            let created = api.create(&PostParams::default(), &deployment).await;
            created.expect("the Deployment is taken");
        }
    });
    let made = async {
        made.await;
        begun.elapsed()
    };
    let available = async {
        available.await;
        begun.elapsed()
    };
    let ((), made, available) = tokio::join!(created, made, available);
    let what = format!("controllers: {deployments} Deployments of one replica");
    line(&format!("{what}, all pods created"), seconds(made));
    line(&format!("{what}, all available"), seconds(available));
    line(
        &format!("{what}, server CPU"),
        seconds(process::cpu(pid) - cpu),
    );
    line(&format!("{what}, resident before"), report::bytes(empty));
    line(
        &format!("{what}, resident after"),
        report::bytes(process::resident(pid)),
    );
}

async fn each<Done: Future<Output = ()>>(count: usize, work: impl Fn(usize) -> Done) {
    stream::iter(0..count)
        .for_each_concurrent(CONCURRENCY, work)
        .await;
}

/// Returns once so many objects are as wanted.
async fn count<K: Cached>(server: &Server, what: &str, wanted: usize, holds: impl Fn(&K) -> bool) {
    let informer = Informers::new(server.client.clone()).get::<K>();
    let mut changes = informer.subscribe();
    let mut found = HashSet::new();
    let mut look = |object: Arc<K>| {
        if object.name_any().starts_with("bench-") && holds(&object) {
            found.insert(object.name_any());
        }
        found.len()
    };
    let all = async {
        loop {
            let changed = match changes.next().await.expect("the informer runs") {
                Change::Applied { new, .. } => vec![new],
                Change::Deleted(_) => Vec::new(),
                Change::Lagged => informer.list(),
            };
            if changed
                .into_iter()
                .map(&mut look)
                .any(|count| count >= wanted)
            {
                return;
            }
        }
    };
    in_time(what, all).await;
}

async fn in_time(what: &str, done: impl Future<Output = ()>) {
    let done = tokio::time::timeout(DEADLINE, done).await;
    done.unwrap_or_else(|_| panic!("{what}: not before the deadline"));
}
