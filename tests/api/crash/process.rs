//! The real server, its store on disk, killed with SIGKILL while it rolls out.

use std::time::{Duration, Instant};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::world::KILLS;
use crate::{
    fakes::FakeNodes,
    server::{PATIENCE, Server},
};

/// Added to the time between a start and its kill, each time.
const STEP: Duration = Duration::from_millis(23);
const REPLICAS: usize = 6;

fn template(version: usize) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": format!("example/main:{version}")}]},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_killed_during_a_rollout() {
    let dir = tempfile::tempdir().unwrap();
    let mut version = 0;
    for kill in 0..KILLS {
        let server = Server::start_with(dir.path(), &[]).await;
        let nodes = FakeNodes::start(server.client.clone(), 2).await;
        if kill == 0 {
            create(&server.client).await;
        } else if finished(&server.client, version).await.is_ok() || kill % 4 == 0 {
            version += 1;
            let patch = Patch::Merge(json!({"spec": {"template": template(version)}}));
            let deployments: Api<Deployment> = Api::namespaced(server.client.clone(), "default");
            let patched = deployments
                .patch("web", &PatchParams::default(), &patch)
                .await;
            patched.expect("the patch is taken");
        }
        let step = u32::try_from(kill % 10).unwrap_or(0);
        let _ = tokio::time::timeout(STEP * step, async {
            while finished(&server.client, version).await.is_err() {}
        })
        .await;
        drop(nodes);
        server.kill();
    }
    let server = Server::start_with(dir.path(), &[]).await;
    let _nodes = FakeNodes::start(server.client.clone(), 2).await;
    let begun = Instant::now();
    while let Err(missing) = finished(&server.client, version).await {
        assert!(
            begun.elapsed() < PATIENCE,
            "the rollout does not end: {missing}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create(client: &Client) {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(0),
        },
    }))
    .expect("a Deployment");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let created = deployments
        .create(&PostParams::default(), &deployment)
        .await;
    created.expect("the Deployment is taken");
}

/// Exactly the Deployment's pods are there, of this version and ready. An error says what is not.
async fn finished(client: &Client, version: usize) -> Result<(), String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let deployment = deployments
        .get("web")
        .await
        .map_err(|error| error.to_string())?;
    let generation = deployment.metadata.generation;
    let status = deployment.status.unwrap_or_default();
    if status.observed_generation != generation
        || status.available_replicas != i32::try_from(REPLICAS).ok()
        || status.updated_replicas != status.available_replicas
        || status.replicas != status.available_replicas
    {
        return Err(format!("{status:?}"));
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pods = pods
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    let image = format!("example/main:{version}");
    let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    let right = pods.iter().filter(|pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let images: Vec<_> = containers
            .map(|container| container.image.as_deref())
            .collect();
        images == [Some(image.as_str())]
    });
    if right.count() != REPLICAS || names.len() != REPLICAS {
        return Err(format!("pods: {names:?}"));
    }
    Ok(())
}
