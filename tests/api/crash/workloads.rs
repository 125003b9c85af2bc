//! Each controller of pods that go on, through rollout, scale and deletion.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod, ReplicationController},
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Resource, ResourceExt as _, api::PropagationPolicy};
use serde_json::{Value, json};

use super::world::{World, live, nothing, same};
use crate::fakes::node_name;

const APP: &str = "app";

fn labels() -> Value {
    json!({"app": APP})
}

/// A pod template; pods of different versions differ.
pub(super) fn template(version: u32) -> Value {
    json!({
        "metadata": {"labels": labels()},
        "spec": {"containers": [{"name": "main", "image": format!("example/main:{version}")}]},
    })
}

fn image(pod: &Pod) -> &str {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
    let first = containers.unwrap_or_default().first();
    first
        .and_then(|container| container.image.as_deref())
        .unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Exactly so many pods are there, ready and of this version; nothing else is.
async fn exactly(world: &World, count: usize, version: u32) -> Result<(), String> {
    let pods = world.list::<Pod>().await;
    let wanted = format!("example/main:{version}");
    let right = |pod: &Pod| {
        pod.metadata.deletion_timestamp.is_none() && is_ready(pod) && image(pod) == wanted
    };
    let wrong = pods.iter().filter(|pod| !right(pod));
    nothing(wrong.map(|pod| {
        let conditions = pod.status.as_ref().map(|status| &status.conditions);
        format!("{} ({}, {conditions:?})", pod.name_any(), image(pod))
    }))?;
    same("pods", pods.len(), count)
}

/// The numbers of a status, all of which must be `count`.
pub(super) fn all_are(status: &Value, count: usize, fields: &[&str]) -> Result<(), String> {
    for field in fields {
        same(field, status[field].as_u64().unwrap_or(0), count as u64)?;
    }
    Ok(())
}

/// The object as JSON, once its controller has seen its latest generation.
async fn observed<K>(world: &World, name: &str) -> Result<Value, String>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let object = world
        .api::<K>()
        .get(name)
        .await
        .expect("the object is there");
    let object = serde_json::to_value(object).expect("it is JSON");
    same(
        "the observed generation",
        object["status"]["observedGeneration"].as_i64(),
        object["metadata"]["generation"].as_i64(),
    )?;
    Ok(object)
}

async fn deployment_is_complete(world: &World, count: usize, version: u32) -> Result<(), String> {
    exactly(world, count, version).await?;
    let deployment = observed::<Deployment>(world, "web").await?;
    let counts = [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ];
    all_are(&deployment["status"], count, &counts)?;
    let sets = world.list::<ReplicaSet>().await;
    let sized = sets.iter().filter(|set| {
        let spec = set.spec.as_ref();
        spec.and_then(|spec| spec.replicas) != Some(0)
    });
    same("replica sets with pods", sized.count(), 1)?;
    let revisions: BTreeSet<_> = sets
        .iter()
        .map(|set| set.annotations().get("deployment.kubernetes.io/revision"))
        .collect();
    same("revisions", revisions.len(), sets.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments() {
    let world = World::start(3).await;
    while world.wants_more() {
        world.at_most(4);
        world
            .create::<Deployment>(json!({
                "metadata": {"name": "web"},
                "spec": {
                    "replicas": 4,
                    "selector": {"matchLabels": labels()},
                    "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
                    "template": template(1),
                },
            }))
            .await;
        let complete = async |count, version| {
            let what = format!("{count} pods of version {version}");
            world
                .until(&what, async || {
                    deployment_is_complete(&world, count, version).await
                })
                .await;
        };
        complete(4, 1).await;
        world
            .patch::<Deployment>("web", json!({"spec": {"template": template(2)}}))
            .await;
        complete(4, 2).await;
        world.at_most(8);
        let both = json!({"spec": {"replicas": 7, "template": template(3)}});
        world.patch::<Deployment>("web", both).await;
        complete(7, 3).await;
        // Back to what there was.
        let both = json!({"spec": {"replicas": 2, "template": template(1)}});
        world.patch::<Deployment>("web", both).await;
        complete(2, 1).await;
        let sets = world.list::<ReplicaSet>().await;
        assert_eq!(sets.len(), 3, "one for each version");
        world
            .delete::<Deployment>("web", PropagationPolicy::Background)
            .await;
        world.until_none::<ReplicaSet>().await;
        world.until_none::<Pod>().await;
    }
}

/// ReplicaSets and ReplicationControllers.
async fn replicas<K>(selector: Value)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize
        + 'static,
{
    let world = World::start(3).await;
    let counts = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
    ];
    let settled = async |count| {
        world
            .until(&format!("{count} pods"), async || {
                exactly(&world, count, 1).await?;
                let set = observed::<K>(&world, "web").await?;
                all_are(&set["status"], count, &counts)
            })
            .await;
    };
    while world.wants_more() {
        world.at_most(6);
        let ever = world.pods_ever();
        world
            .create::<K>(json!({
                "metadata": {"name": "web"},
                "spec": {"replicas": 6, "selector": selector, "template": template(1)},
            }))
            .await;
        settled(6).await;
        world.at_most(11);
        world
            .patch::<K>("web", json!({"spec": {"replicas": 11}}))
            .await;
        settled(11).await;
        assert_eq!(world.pods_ever() - ever, 11, "no pod was made twice");
        world
            .patch::<K>("web", json!({"spec": {"replicas": 3}}))
            .await;
        settled(3).await;
        assert_eq!(world.pods_ever() - ever, 11, "no pod was made again");
        world
            .delete::<K>("web", PropagationPolicy::Foreground)
            .await;
        world.until_none::<Pod>().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_sets() {
    replicas::<ReplicaSet>(json!({"matchLabels": labels()})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_controllers() {
    replicas::<ReplicationController>(labels()).await;
}

/// Pods are made one after the other: at most one is not ready.
fn one_by_one(pods: &[Arc<Pod>]) -> Result<(), String> {
    let unready: Vec<String> = live(pods)
        .filter(|pod| !is_ready(pod))
        .map(|pod| pod.name_any())
        .collect();
    if unready.len() > 1 {
        return Err(format!("not ready at the same time: {unready:?}"));
    }
    Ok(())
}

async fn stateful_set_is_complete(world: &World, count: usize, version: u32) -> Result<(), String> {
    exactly(world, count, version).await?;
    let set = observed::<StatefulSet>(world, "web").await?;
    let status = &set["status"];
    let counts = [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ];
    all_are(status, count, &counts)?;
    same(
        "the current revision",
        &status["currentRevision"],
        &status["updateRevision"],
    )?;
    let claims = world.list::<PersistentVolumeClaim>().await;
    let claims: Vec<String> = claims.iter().map(|claim| claim.name_any()).collect();
    let wanted: Vec<String> = (0..count)
        .map(|ordinal| format!("data-web-{ordinal}"))
        .collect();
    same("claims", claims, wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_sets() {
    let world = World::start(3).await;
    world.always(one_by_one);
    volumes(&world, 30).await;
    let complete = async |count, version| {
        world
            .until(&format!("{count} pods of version {version}"), async || {
                stateful_set_is_complete(&world, count, version).await
            })
            .await;
    };
    while world.wants_more() {
        world
            .create::<StatefulSet>(json!({
                "metadata": {"name": "web"},
                "spec": {
                    "replicas": 3,
                    "serviceName": "web",
                    "selector": {"matchLabels": labels()},
                    "persistentVolumeClaimRetentionPolicy": {
                        "whenDeleted": "Delete",
                        "whenScaled": "Delete",
                    },
                    "volumeClaimTemplates": [{
                        "metadata": {"name": "data"},
                        "spec": {
                            "storageClassName": "",
                            "accessModes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": "1Gi"}},
                        },
                    }],
                    "template": template(1),
                },
            }))
            .await;
        complete(3, 1).await;
        world
            .patch::<StatefulSet>("web", json!({"spec": {"template": template(2)}}))
            .await;
        complete(3, 2).await;
        world
            .patch::<StatefulSet>("web", json!({"spec": {"replicas": 5}}))
            .await;
        complete(5, 2).await;
        world
            .patch::<StatefulSet>("web", json!({"spec": {"replicas": 2}}))
            .await;
        complete(2, 2).await;
        world
            .delete::<StatefulSet>("web", PropagationPolicy::Background)
            .await;
        world.until_none::<Pod>().await;
        world.until_none::<PersistentVolumeClaim>().await;
        world
            .until_none::<k8s_openapi::api::apps::v1::ControllerRevision>()
            .await;
    }
}

/// Volumes for the taking.
async fn volumes(world: &World, count: usize) {
    use k8s_openapi::api::core::v1::PersistentVolume;
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    for number in 0..count {
        let volume = json!({
            "metadata": {"name": format!("volume-{number}")},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": format!("/volumes/{number}")},
            },
        });
        let volume = serde_json::from_value(volume).expect("a volume");
        let created = volumes.create(&Default::default(), &volume).await;
        created.expect("the volume is taken");
    }
}

/// A node has one pod at most.
fn one_each(pods: &[Arc<Pod>]) -> Result<(), String> {
    let mut nodes = BTreeSet::new();
    for pod in live(pods) {
        let terms = serde_json::to_string(&pod.spec.as_ref().map(|spec| &spec.affinity));
        if !nodes.insert(terms.unwrap_or_default()) {
            return Err(format!(
                "{} is not the only one on its node",
                pod.name_any()
            ));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_sets() {
    let world = World::start(6).await;
    world.always(one_each);
    let counts = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "updatedNumberScheduled",
        "numberReady",
        "numberAvailable",
    ];
    let complete = async |count, version| {
        world
            .until(&format!("{count} pods of version {version}"), async || {
                exactly(&world, count, version).await?;
                let set = observed::<DaemonSet>(&world, "agent").await?;
                all_are(&set["status"], count, &counts)?;
                all_are(&set["status"], 0, &["numberMisscheduled"])
            })
            .await;
    };
    while world.wants_more() {
        world
            .create::<DaemonSet>(json!({
                "metadata": {"name": "agent"},
                "spec": {
                    "selector": {"matchLabels": labels()},
                    "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}},
                    "template": template(1),
                },
            }))
            .await;
        complete(6, 1).await;
        world
            .patch::<DaemonSet>("agent", json!({"spec": {"template": template(2)}}))
            .await;
        complete(6, 2).await;
        let chosen = node_name(2);
        let mut only = template(2);
        only["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": chosen});
        world
            .patch::<DaemonSet>("agent", json!({"spec": {"template": only}}))
            .await;
        complete(1, 2).await;
        world
            .delete::<DaemonSet>("agent", PropagationPolicy::Background)
            .await;
        world.until_none::<Pod>().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disruption_budgets() {
    let world = World::start(3).await;
    let settled = async |count: usize, allowed: usize| {
        world
            .until(&format!("{allowed} of {count} may go"), async || {
                let budget = observed::<PodDisruptionBudget>(&world, "web").await?;
                let status = &budget["status"];
                all_are(status, count, &["expectedPods", "currentHealthy"])?;
                all_are(status, count - allowed, &["desiredHealthy"])?;
                all_are(status, allowed, &["disruptionsAllowed"])
            })
            .await;
    };
    while world.wants_more() {
        world
            .create::<PodDisruptionBudget>(json!({
                "metadata": {"name": "web"},
                "spec": {"maxUnavailable": "40%", "selector": {"matchLabels": labels()}},
            }))
            .await;
        world
            .create::<Deployment>(json!({
                "metadata": {"name": "web"},
                "spec": {
                    "replicas": 5,
                    "selector": {"matchLabels": labels()},
                    "template": template(1),
                },
            }))
            .await;
        settled(5, 2).await;
        world
            .patch::<Deployment>(
                "web",
                json!({"spec": {"replicas": 8, "template": template(2)}}),
            )
            .await;
        world
            .until("the rollout", async || {
                deployment_is_complete(&world, 8, 2).await
            })
            .await;
        settled(8, 4).await;
        world
            .delete::<Deployment>("web", PropagationPolicy::Foreground)
            .await;
        world
            .delete::<PodDisruptionBudget>("web", PropagationPolicy::Background)
            .await;
        world.until_none::<Pod>().await;
    }
}
