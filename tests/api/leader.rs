//! Leader election: of several servers on one store, one leads.

use std::time::{Duration, Instant};

use coracle_client::{Candidate, Leadership, Timing};
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::{Lease, LeaseSpec},
    core::v1::Pod,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    etcd::{self, Etcd},
    server::{PATIENCE, Server},
};

const NAMES: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
const TIMING: Timing = Timing {
    lease_duration: Duration::from_millis(1500),
    renew_deadline: Duration::from_millis(1000),
    retry_period: Duration::from_millis(50),
};

/// Nobody who has to wait for the end of such a lease gets it within [`PATIENCE`].
const LONG: Timing = Timing {
    lease_duration: Duration::from_mins(5),
    renew_deadline: Duration::from_mins(4),
    retry_period: TIMING.retry_period,
};

fn stand(
    client: &Client,
    identity: &str,
    timing: Timing,
) -> (Leadership, CancellationToken, JoinHandle<()>) {
    let candidate = Candidate::new(client.clone(), "test", identity, timing);
    let (leadership, shutdown) = (candidate.leadership(), CancellationToken::new());
    let run = tokio::spawn(candidate.run(shutdown.clone()));
    (leadership, shutdown, run)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: not before the deadline"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn lease(client: &Client, name: &str) -> LeaseSpec {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let found = leases.get_opt(name).await.ok().flatten();
    found.and_then(|lease| lease.spec).unwrap_or_default()
}

#[tokio::test]
async fn one_leads_and_another_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let (first, _, run) = stand(&server.client, "first", TIMING);
    until("the first leads", async || first.is_leader()).await;
    let (second, shutdown, second_run) = stand(&server.client, "second", TIMING);
    // It dies, and does not let go of its lease.
    run.abort();
    let _ = run.await;
    let died = Instant::now();
    assert!(!first.is_leader(), "the dead do not lead");
    until("the second leads", async || second.is_leader()).await;
    assert!(died.elapsed() >= TIMING.renew_deadline - TIMING.retry_period * 3);
    assert_eq!(
        lease(&server.client, "test").await.lease_transitions,
        Some(1)
    );
    // It lets go, and nobody has to wait.
    let (third, _shutdown, _run) = stand(&server.client, "third", LONG);
    shutdown.cancel();
    second_run.await.unwrap();
    until("the third leads", async || third.is_leader()).await;
    let held = lease(&server.client, "test").await;
    assert_eq!(held.holder_identity.as_deref(), Some("third"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_one_works_and_the_other_takes_over() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [data, one, two] = folders.each_ref().map(tempfile::TempDir::path);
    let Some(etcd) = Etcd::start(data) else {
        return;
    };
    etcd::wait_for(&etcd.urls[0]).await;
    let flags = |name: &'static str| {
        [
            "--datastore-endpoint",
            &etcd.urls[0],
            "--token=secret",
            "--node-name",
            name,
        ]
    };
    let first = Server::start_with(one, &flags("one")).await;
    until("the first leads", async || {
        holders(&first.client).await == ["one", "one"]
    })
    .await;
    let second = Server::start_with(two, &flags("two")).await;
    create(&second.client, "a").await;
    until("the first works", async || {
        pods(&second.client, "a").await == 2
    })
    .await;
    assert_eq!(holders(&second.client).await, ["one", "one"]);
    first.terminate();
    until("the second leads", async || {
        holders(&second.client).await == ["two", "two"]
    })
    .await;
    create(&second.client, "b").await;
    until("the second works", async || {
        pods(&second.client, "b").await == 2
    })
    .await;
    assert_eq!(pods(&second.client, "a").await, 2);
}

/// The node names of those who hold [`NAMES`].
async fn holders(client: &Client) -> Vec<String> {
    let mut holders = Vec::new();
    for name in NAMES {
        let holder = lease(client, name)
            .await
            .holder_identity
            .unwrap_or_default();
        let node = holder.split_once('_').map_or("", |(node, _)| node);
        holders.push(node.to_owned());
    }
    holders
}

async fn create(client: &Client, name: &str) {
    let labels = json!({"app": name});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "example/main"}]},
            },
        },
    }))
    .expect("a Deployment");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let created = deployments
        .create(&PostParams::default(), &deployment)
        .await;
    created.expect("the Deployment is taken");
}

async fn pods(client: &Client, app: &str) -> usize {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let params = ListParams::default().labels(&format!("app={app}"));
    pods.list(&params).await.map_or(0, |pods| pods.items.len())
}
