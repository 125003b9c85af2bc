//! What extremes cost: a very long list, many watchers, and a watcher that never reads.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{
    api::Server,
    process,
    report::{self, line, seconds},
};

const OBJECTS: usize = 50_000;
const WATCHERS: usize = 500;
const LISTS_AT_ONCE: usize = 8;
const CONCURRENCY: usize = 16;
/// Changes that a watcher does not read, and the size of each.
const CHANGES: usize = 4_000;
const CHANGE: usize = 50_000;
const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// Prints the figures.
pub async fn run() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(dir.path(), &["--datastore-endpoint", "memory://"]).await;
    let pid = server.pid();
    fill(&server).await;
    show(
        "resident memory",
        &format!("{OBJECTS} objects"),
        process::resident(pid),
    );
    lists(&server, pid).await;
    watchers(&server, pid).await;
    deaf_watcher(&server, pid).await;
}

fn show(what: &str, when: &str, bytes: u64) {
    line(&format!("limits: {what}, {when}"), report::bytes(bytes));
}

async fn fill(server: &Server) {
    let api = server.config_maps();
    stream::iter(0..OBJECTS)
        .for_each_concurrent(CONCURRENCY, |number| {
            let api = api.clone();
            async move {
                let object: ConfigMap = serde_json::from_value(json!({
                    "metadata": {"name": format!("limit-{number}"), "labels": {"app": "limits"}},
                    "data": {"key": "a small value"},
                }))
                .expect("a ConfigMap");
                api.create(&PostParams::default(), &object)
                    .await
                    .expect("it is created");
            }
        })
        .await;
}

async fn lists(server: &Server, pid: u32) {
    let (cpu, begun) = (process::cpu(pid), Instant::now());
    let lists = (0..LISTS_AT_ONCE).map(|_| async {
        let request = Request::get(PATH).body(Vec::new()).expect("a request");
        let text = server.client.request_text(request).await.expect("a list");
        assert!(text.ends_with("]}"), "the whole list came");
    });
    futures::future::join_all(lists).await;
    let count = u32::try_from(LISTS_AT_ONCE).unwrap_or(1);
    line(
        &format!("limits: {LISTS_AT_ONCE} lists of {OBJECTS} at once"),
        format!(
            "{} in all, {} of CPU each",
            seconds(begun.elapsed()),
            seconds(process::cpu(pid).saturating_sub(cpu) / count),
        ),
    );
    show(
        "most resident memory",
        "after these lists",
        process::most_resident(pid),
    );
}

/// A watch whose answer nobody reads.
async fn watch(server: &Server) -> http::Response<kube::client::Body> {
    let request = Request::get(format!("{PATH}?watch=1"))
        .body(kube::client::Body::empty())
        .expect("a request");
    server.client.send(request).await.expect("a watch begins")
}

async fn watchers(server: &Server, pid: u32) {
    let before = process::resident(pid);
    let mut open = Vec::with_capacity(WATCHERS);
    for _ in 0..WATCHERS {
        let request = Request::get(format!("{PATH}?watch=1&fieldSelector=metadata.name%3Dnone"))
            .body(kube::client::Body::empty())
            .expect("a request");
        open.push(server.client.send(request).await.expect("a watch begins"));
    }
    let each = process::resident(pid).saturating_sub(before) / WATCHERS as u64;
    show(
        "resident memory per watcher",
        &format!("{WATCHERS} connections"),
        each,
    );
}

async fn deaf_watcher(server: &Server, pid: u32) {
    let deaf = watch(server).await;
    let before = process::resident(pid);
    let api = server.config_maps();
    let text = "x".repeat(CHANGE);
    for number in 0..CHANGES {
        let patch = Patch::Merge(json!({"data": {"text": text, "number": number.to_string()}}));
        api.patch("limit-0", &PatchParams::default(), &patch)
            .await
            .expect("it is patched");
    }
    show(
        "resident memory gained",
        &format!(
            "a watcher left {} unread",
            report::bytes((CHANGES * CHANGE) as u64)
        ),
        process::resident(pid).saturating_sub(before),
    );
    let begun = Instant::now();
    let mut body = deaf.into_body().into_data_stream();
    let end = async { while let Some(Ok(_)) = body.next().await {} };
    let ended = tokio::time::timeout(Duration::from_secs(30), end).await;
    line(
        "limits: a watcher that fell behind",
        match ended {
            Ok(()) => format!(
                "was ended, {} after it read again",
                seconds(begun.elapsed())
            ),
            Err(_) => "was not ended".to_owned(),
        },
    );
}
