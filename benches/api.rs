//! The API server alone: start-up and throughput, with the store in memory and on disk.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{
    cluster::binary,
    process,
    report::{self, line, seconds},
};

const OBJECTS: usize = 20_000;
const OPERATIONS: usize = 5_000;
const PODS: usize = 5_000;
const LISTS: usize = 10;
const WATCHERS: usize = 500;
const WATCHED_CHANGES: usize = 40;
/// Requests under way at once.
const CONCURRENCY: usize = 16;

/// How long the server may take until it answers.
const START: Duration = Duration::from_secs(60);

pub struct Server {
    process: Killed,
    pub client: Client,
}

/// A process that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    pub async fn start(dir: &Path, flags: &[&str]) -> Server {
        let process = Command::new(binary())
            .args(["server", "--disable-agent", "--config", "/dev/null"])
            .args([
                "--bind-address",
                "127.0.0.1",
                "--https-listen-port",
                "0",
                "--data-dir",
            ])
            .arg(dir)
            .args(flags)
            .stderr(Stdio::null())
            .spawn()
            .map(Killed)
            .expect("the server can be started");
        let begun = Instant::now();
        loop {
            if let Some(client) = connect(dir).await {
                return Server { process, client };
            }
            assert!(begun.elapsed() < START, "the server does not answer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }
}

async fn connect(dir: &Path) -> Option<Client> {
    let kubeconfig = Kubeconfig::read_from(dir.join("kubeconfig.yaml")).ok()?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .ok()?;
    let client = Client::try_from(config).ok()?;
    client.apiserver_version().await.ok()?;
    Some(client)
}

/// Prints every figure of the API server.
pub async fn run() {
    for (store, flags) in [
        ("memory", &["--datastore-endpoint", "memory://"][..]),
        ("disk", &[]),
    ] {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let begun = Instant::now();
        let server = Server::start(dir.path(), flags).await;
        line(
            &format!("api ({store}): start until it answers, first start"),
            seconds(begun.elapsed()),
        );
        drop(server);
        std::fs::remove_file(dir.path().join("kubeconfig.yaml")).expect("there is a kubeconfig");
        let begun = Instant::now();
        let server = Server::start(dir.path(), flags).await;
        line(
            &format!("api ({store}): start until it answers, later start"),
            seconds(begun.elapsed()),
        );
        throughput(store, &server).await;
    }
}

async fn throughput(store: &str, server: &Server) {
    let api = server.config_maps();
    let pid = server.pid();
    let empty = process::resident(pid);
    measure(store, "create", pid, OBJECTS, |number| {
        let api = api.clone();
        async move {
            api.create(&PostParams::default(), &config_map(number))
                .await
                .expect("it is created");
        }
    })
    .await;
    let full = process::resident(pid);
    let per_object = (full.saturating_sub(empty)) / OBJECTS as u64;
    line(
        &format!("api ({store}): resident memory, empty"),
        report::bytes(empty),
    );
    line(
        &format!("api ({store}): resident memory, {OBJECTS} objects"),
        report::bytes(full),
    );
    line(
        &format!("api ({store}): resident memory per object"),
        report::bytes(per_object),
    );
    measure(store, "get", pid, OPERATIONS, |number| {
        let api = api.clone();
        async move {
            api.get(&format!("bench-{number}"))
                .await
                .expect("it is there");
        }
    })
    .await;
    measure(store, "patch", pid, OPERATIONS, |number| {
        let api = api.clone();
        async move {
            let patch = Patch::Merge(json!({"data": {"patched": "yes"}}));
            let params = PatchParams::default();
            api.patch(&format!("bench-{number}"), &params, &patch)
                .await
                .expect("it is patched");
        }
    })
    .await;
    updates(store, server, pid).await;
    lists(store, server, pid).await;
    watches(store, server, pid).await;
    pods(store, server, pid).await;
}

async fn updates(store: &str, server: &Server, pid: u32) {
    let api = server.config_maps();
    let limit = u32::try_from(OPERATIONS).unwrap_or(u32::MAX);
    let objects = api
        .list(&ListParams::default().limit(limit))
        .await
        .expect("a list")
        .items;
    measure(store, "update", pid, OPERATIONS, |number| {
        let (api, mut object) = (api.clone(), objects[number].clone());
        async move {
            let data = object.data.get_or_insert_default();
            data.insert("updated".to_owned(), number.to_string());
            let name = object.metadata.name.clone().unwrap_or_default();
            api.replace(&name, &PostParams::default(), &object)
                .await
                .expect("it is updated");
        }
    })
    .await;
}

/// What a kind with many fields, defaults and admission costs.
async fn pods(store: &str, server: &Server, pid: u32) {
    let api: Api<Pod> = Api::namespaced(server.client.clone(), "default");
    let empty = process::resident(pid);
    measure(store, "create of a Pod", pid, PODS, |number| {
        let api = api.clone();
        async move {
            api.create(&PostParams::default(), &pod(number))
                .await
                .expect("it is created");
        }
    })
    .await;
    let per_pod = process::resident(pid).saturating_sub(empty) / PODS as u64;
    line(
        &format!("api ({store}): resident memory per Pod"),
        report::bytes(per_pod),
    );
}

fn pod(number: usize) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("bench-{number}"), "labels": {"app": "bench"}},
        "spec": {
            "containers": [{
                "name": "main",
                "image": "registry.example/app:1.0",
                "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
            }],
        },
    }))
    .expect("a Pod")
}

fn config_map(number: usize) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": format!("bench-{number}"), "labels": {"app": "bench", "part": (number % 100).to_string()}},
        "data": {"key": "a small value", "number": number.to_string()},
    }))
    .expect("a ConfigMap")
}

async fn measure<Work, Done>(store: &str, verb: &str, pid: u32, count: usize, work: Work)
where
    Work: Fn(usize) -> Done,
    Done: Future<Output = ()>,
{
    let (cpu, begun) = (process::cpu(pid), Instant::now());
    let mut times: Vec<Duration> = stream::iter((0..count).map(|number| {
        let done = work(number);
        async move {
            let begun = Instant::now();
            done.await;
            begun.elapsed()
        }
    }))
    .buffer_unordered(CONCURRENCY)
    .collect()
    .await;
    let (elapsed, cpu) = (begun.elapsed(), process::cpu(pid).saturating_sub(cpu));
    line(
        &format!("api ({store}): {verb}, {count} by {CONCURRENCY} at once"),
        format!(
            "{:.0}/s, {} of CPU each, p50 {}, p99 {}",
            count as f64 / elapsed.as_secs_f64(),
            seconds(cpu / u32::try_from(count).unwrap_or(u32::MAX)),
            seconds(report::percentile(&mut times, 50)),
            seconds(report::percentile(&mut times, 99)),
        ),
    );
}

/// Reads raw bytes, so that the client's own parsing does not count.
async fn lists(store: &str, server: &Server, pid: u32) {
    for (what, query) in [
        ("all", ""),
        ("by label", "?labelSelector=part%3D7"),
        ("page of 500", "?limit=500"),
    ] {
        let (cpu, begun) = (process::cpu(pid), Instant::now());
        let mut size = 0;
        for _ in 0..LISTS {
            let request =
                http::Request::get(format!("/api/v1/namespaces/default/configmaps{query}"))
                    .body(Vec::new())
                    .expect("a request");
            size = server
                .client
                .request_text(request)
                .await
                .expect("a list")
                .len() as u64;
        }
        let (elapsed, cpu) = (begun.elapsed(), process::cpu(pid).saturating_sub(cpu));
        let lists = u32::try_from(LISTS).unwrap_or(1);
        line(
            &format!("api ({store}): list of {OBJECTS}, {what}"),
            format!(
                "{} each, {} of CPU, {}",
                seconds(elapsed / lists),
                seconds(cpu / lists),
                report::bytes(size)
            ),
        );
    }
}

async fn watches(store: &str, server: &Server, pid: u32) {
    let api = server.config_maps();
    let version = api
        .list(&ListParams::default().limit(1))
        .await
        .expect("a list")
        .metadata
        .resource_version
        .unwrap_or_default();
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let (api, version) = (api.clone(), version.clone());
            tokio::spawn(async move {
                let events = api
                    .watch(&WatchParams::default(), &version)
                    .await
                    .expect("a watch");
                let modified = events.try_filter(|event| {
                    std::future::ready(matches!(event, WatchEvent::Modified(_)))
                });
                let seen = modified.take(WATCHED_CHANGES).count();
                tokio::time::timeout(Duration::from_secs(60), seen)
                    .await
                    .unwrap_or(0)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (cpu, begun) = (process::cpu(pid), Instant::now());
    for number in 0..WATCHED_CHANGES {
        let patch = Patch::Merge(json!({"data": {"change": number.to_string()}}));
        api.patch("bench-0", &PatchParams::default(), &patch)
            .await
            .expect("it is patched");
    }
    let mut delivered = 0;
    for watcher in watchers {
        delivered += watcher.await.expect("the watcher ends");
    }
    let (elapsed, cpu) = (begun.elapsed(), process::cpu(pid).saturating_sub(cpu));
    line(
        &format!("api ({store}): {WATCHED_CHANGES} changes to {WATCHERS} watchers"),
        format!(
            "{delivered} delivered, {:.0}/s, {} of CPU each",
            delivered as f64 / elapsed.as_secs_f64(),
            seconds(cpu / u32::try_from(delivered.max(1)).unwrap_or(1)),
        ),
    );
}
