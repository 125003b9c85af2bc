//! What follows from other objects: endpoints, the garbage collector, the end of a namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Endpoints, Namespace, Pod, ResourceQuota, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PropagationPolicy},
};
use serde_json::{Value, json};

use super::world::{NAMESPACE, World, create_namespace, nothing, same};

/// Pods whose port "http" is `port`.
fn template(port: u16) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{
            "name": "main",
            "image": "example/main",
            "ports": [{"name": "http", "containerPort": port}],
        }]},
    })
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(80),
        },
    })
}

/// Each ready pod is in one slice, once, with its port; and in the Endpoints.
async fn endpoints_are_right(world: &World, count: usize, port: i32) -> Result<(), String> {
    let pods = world.list::<Pod>().await;
    same("pods", pods.len(), count)?;
    let wanted: BTreeMap<String, i32> = pods
        .iter()
        .filter_map(|pod| Some((pod.status.as_ref()?.pod_ip.clone()?, port)))
        .collect();
    let mut found = Vec::new();
    for slice in world.list::<EndpointSlice>().await {
        let port = slice.ports.iter().flatten().find_map(|port| port.port);
        for endpoint in slice.endpoints.into_iter().flatten() {
            let ready = endpoint.conditions.and_then(|conditions| conditions.ready);
            same("an endpoint's readiness", ready, Some(true))?;
            found.extend(
                endpoint
                    .addresses
                    .into_iter()
                    .map(|ip| (ip, port.unwrap_or(0))),
            );
        }
    }
    found.sort();
    same("slices", found, wanted.clone().into_iter().collect())?;
    let endpoints = world
        .api::<Endpoints>()
        .get_opt("web")
        .await
        .expect("a read");
    let mut found = Vec::new();
    for subset in endpoints
        .and_then(|endpoints| endpoints.subsets)
        .into_iter()
        .flatten()
    {
        let port = subset.ports.iter().flatten().map(|port| port.port).next();
        let addresses = subset.addresses.into_iter().flatten();
        found.extend(addresses.map(|address| (address.ip, port.unwrap_or(0))));
    }
    found.sort();
    same("endpoints", found, wanted.into_iter().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoint_slices() {
    let world = World::start(3).await;
    let settled = async |count, port| {
        world
            .until(&format!("{count} endpoints with port {port}"), async || {
                endpoints_are_right(&world, count, port).await
            })
            .await;
    };
    while world.wants_more() {
        world
            .create::<Service>(json!({
                "metadata": {"name": "web"},
                "spec": {
                    "selector": {"app": "web"},
                    "ports": [{"port": 80, "targetPort": "http"}],
                },
            }))
            .await;
        world.create::<Deployment>(deployment("web", 6)).await;
        settled(6, 80).await;
        world
            .patch::<Deployment>("web", json!({"spec": {"template": template(8080)}}))
            .await;
        settled(6, 8080).await;
        world
            .patch::<Deployment>("web", json!({"spec": {"replicas": 2}}))
            .await;
        settled(2, 8080).await;
        world
            .delete::<Service>("web", PropagationPolicy::Background)
            .await;
        world.until_none::<EndpointSlice>().await;
        world.until_none::<Endpoints>().await;
        world
            .delete::<Deployment>("web", PropagationPolicy::Background)
            .await;
        world.until_none::<Pod>().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_and_dependents() {
    let world = World::start(3).await;
    while world.wants_more() {
        world.create::<Deployment>(deployment("web", 4)).await;
        let ready = async || {
            let deployment = world.api::<Deployment>().get("web").await.expect("a read");
            let status = deployment.status.unwrap_or_default();
            same("ready pods", status.ready_replicas.unwrap_or(0), 4)?;
            same("pods", world.list::<Pod>().await.len(), 4)
        };
        world.until("4 pods are ready", ready).await;
        let before = uids(&world).await;
        world
            .delete::<Deployment>("web", PropagationPolicy::Orphan)
            .await;
        let set = world.list::<ReplicaSet>().await;
        assert!(set[0].owner_references().is_empty(), "the set is an orphan");
        world
            .delete::<ReplicaSet>(&set[0].name_any(), PropagationPolicy::Orphan)
            .await;
        let orphans = world.list::<Pod>().await;
        assert!(orphans.iter().all(|pod| pod.owner_references().is_empty()));
        assert_eq!(uids(&world).await, before, "the pods live on");
        // The pods are adopted, none is made, and all go with their new owner.
        world.create::<Deployment>(deployment("web", 4)).await;
        world.until("the pods are adopted", ready).await;
        assert_eq!(uids(&world).await, before, "the pods live on");
        world
            .delete::<Deployment>("web", PropagationPolicy::Foreground)
            .await;
        nothing(
            world
                .list::<ReplicaSet>()
                .await
                .iter()
                .map(ResourceExt::name_any),
        )
        .and(nothing(
            world.list::<Pod>().await.iter().map(ResourceExt::name_any),
        ))
        .expect("an owner in foreground deletion goes last");
    }
}

async fn uids(world: &World) -> Vec<Option<String>> {
    let mut uids: Vec<_> = world
        .list::<Pod>()
        .await
        .iter()
        .map(ResourceExt::uid)
        .collect();
    uids.sort();
    uids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces() {
    let world = World::start(3).await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    while world.wants_more() {
        world
            .create::<ResourceQuota>(json!({
                "metadata": {"name": "quota"},
                "spec": {"hard": {"pods": "9", "count/configmaps": "9"}},
            }))
            .await;
        world.create::<Deployment>(deployment("web", 5)).await;
        world
            .create::<Job>(json!({
                "metadata": {"name": "work"},
                "spec": {"completions": 3, "template": {"spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "example/main"}],
                }}},
            }))
            .await;
        world
            .create::<ConfigMap>(json!({"metadata": {
                "name": "kept-for-a-while",
                "finalizers": ["example.com/hold"],
            }}))
            .await;
        world
            .until("the quota knows what is used", async || {
                let quota = world
                    .api::<ResourceQuota>()
                    .get("quota")
                    .await
                    .expect("a read");
                let used = quota
                    .status
                    .and_then(|status| status.used)
                    .unwrap_or_default();
                let used = |what: &str| used.get(what).map(|quantity| quantity.0.clone());
                same("pods", used("pods").as_deref(), Some("5"))?;
                // Its own one is published in each namespace.
                same(
                    "config maps",
                    used("count/configmaps").as_deref(),
                    Some("2"),
                )
            })
            .await;
        let deleted = namespaces.delete(NAMESPACE, &DeleteParams::default()).await;
        deleted.expect("the deletion is taken");
        world
            .until("only what is held is left", async || {
                nothing(world.list::<Pod>().await.iter().map(ResourceExt::name_any))?;
                let held = world.list::<ConfigMap>().await;
                same("config maps", held.len(), 1)
            })
            .await;
        world
            .patch::<ConfigMap>(
                "kept-for-a-while",
                json!({"metadata": {"finalizers": null}}),
            )
            .await;
        world
            .until("the namespace is gone", async || {
                let found = namespaces.get_opt(NAMESPACE).await.expect("a read");
                nothing(found.map(|namespace| format!("{:?}", namespace.status)))
            })
            .await;
        create_namespace(&world.client, NAMESPACE).await;
    }
}
