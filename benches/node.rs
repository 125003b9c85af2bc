//! A whole single-node cluster: start-up, memory, idle CPU, and pods beside what the runtime
//! alone takes for the same.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{conditions, wait::await_condition},
};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    cluster::{Cluster, IMAGE},
    cri, process,
    report::{self, bytes, line, seconds},
};

/// Pods that are made one after another.
pub const PODS: usize = 20;
const MANY_PODS: usize = 50;
const IDLE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);

/// Prints every figure of a node.
pub fn run(runtime: &Runtime) {
    let mut cluster = Cluster::prepare("bench");
    let begun = Instant::now();
    cluster.spawn_server();
    cluster.wait_ready();
    line(
        "node: start until Ready, first start",
        seconds(begun.elapsed()),
    );
    cluster.import_image(IMAGE, "1.0");
    cluster.kill_server();
    let begun = Instant::now();
    cluster.spawn_server();
    cluster.wait_ready();
    line(
        "node: start until Ready, later start",
        seconds(begun.elapsed()),
    );
    let pid = server_pid(&cluster);
    std::thread::sleep(Duration::from_secs(5));
    let cpu = process::cpu(pid);
    std::thread::sleep(IDLE);
    let used = process::cpu(pid).saturating_sub(cpu).as_secs_f64() / IDLE.as_secs_f64();
    line("node: idle, of one core", format!("{:.2} %", used * 100.0));
    line("node: resident memory, idle", bytes(process::resident(pid)));

    cluster.kill_server();
    let socket = "node/run/containerd/containerd.sock";
    let alone = runtime.block_on(cri::alone(&cluster.data_dir().join(socket)));
    cluster.spawn_server();
    cluster.wait_ready();
    let network = std::fs::File::open(cluster.network()).expect("the network exists");
    // Only this thread moves: the runtime below runs on it.
    nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)
        .expect("the network is entered");
    let single = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let _ = runtime;
    single.block_on(pods(&cluster, alone));
}

fn server_pid(cluster: &Cluster) -> u32 {
    cluster.server.as_ref().expect("the server runs").id()
}

async fn pods(cluster: &Cluster, alone: Duration) {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("there is a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("the kubeconfig is valid");
    let client = Client::try_from(config).expect("a client");
    let api: Api<Pod> = Api::namespaced(client, "default");
    let mut times = Vec::new();
    for number in 0..PODS {
        let name = format!("one-{number}");
        let begun = Instant::now();
        api.create(&PostParams::default(), &pod(&name))
            .await
            .expect("it is created");
        running(&api, &name).await;
        times.push(begun.elapsed());
    }
    let median = report::percentile(&mut times, 50);
    line(
        "pod: create until Running, one after another, p50",
        format!(
            "{} ({} more than the runtime alone)",
            seconds(median),
            seconds(median.saturating_sub(alone))
        ),
    );
    line(
        "pod: create until Running, one after another, p95",
        seconds(report::percentile(&mut times, 95)),
    );

    let begun = Instant::now();
    for number in PODS..MANY_PODS {
        api.create(&PostParams::default(), &pod(&format!("one-{number}")))
            .await
            .expect("it is created");
    }
    for number in PODS..MANY_PODS {
        running(&api, &format!("one-{number}")).await;
    }
    line(
        &format!("pod: {} more at once until all run", MANY_PODS - PODS),
        seconds(begun.elapsed()),
    );
    let pid = server_pid(cluster);
    line(
        &format!("node: resident memory, {MANY_PODS} pods"),
        bytes(process::resident(pid)),
    );
    let cpu = process::cpu(pid);
    tokio::time::sleep(IDLE).await;
    let used = process::cpu(pid).saturating_sub(cpu).as_secs_f64() / IDLE.as_secs_f64();
    line(
        &format!("node: {MANY_PODS} pods at rest, of one core"),
        format!("{:.2} %", used * 100.0),
    );

    let begun = Instant::now();
    api.delete_collection(
        &DeleteParams::default().grace_period(0),
        &ListParams::default(),
    )
    .await
    .expect("they are deleted");
    let deadline = Instant::now() + PATIENCE;
    while !api
        .list(&ListParams::default())
        .await
        .expect("a list")
        .items
        .is_empty()
    {
        assert!(Instant::now() < deadline, "the pods do not go");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    line(
        &format!("pod: {MANY_PODS} deleted at once until all are gone"),
        seconds(begun.elapsed()),
    );
}

async fn running(api: &Api<Pod>, name: &str) {
    let running = await_condition(api.clone(), name, conditions::is_pod_running());
    let pod = tokio::time::timeout(PATIENCE, running)
        .await
        .expect("the pod runs in time");
    assert!(
        pod.expect("the watch goes on")
            .is_some_and(|pod| pod.name_any() == name)
    );
}

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": IMAGE, "command": ["sleep", "3600"]}],
        },
    }))
    .expect("a Pod")
}
