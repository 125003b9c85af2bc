//! What pods claim, devices and volumes, as it is made, attached and given back, on nodes without
//! machines.

use k8s_openapi::api::{
    core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    resource::v1::{ResourceClaim, ResourceClaimTemplate},
    storage::v1::{CSIDriver, VolumeAttachment},
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams, PropagationPolicy},
};
use serde_json::{Value, json};

use crate::{
    crash::world::{World, nothing, same},
    fakes::node_name,
};

fn pod(name: &str, more: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "example/main"}],
        },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

async fn create_in_cluster<K>(world: &World, object: Value)
where
    K: kube::Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let object: K = serde_json::from_value(object).expect("the object is of its kind");
    let api: Api<K> = Api::all(world.client.clone());
    let created = api.create(&PostParams::default(), &object).await;
    created.expect("the object is taken");
}

async fn patch_claim_status(world: &World, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    let patched = world
        .api::<ResourceClaim>()
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    patched.expect("the patch is taken");
}

fn allocation() -> Value {
    json!({"devices": {"results": [{
        "request": "gpu", "driver": "gpu.example.com", "pool": "pool", "device": "gpu-0",
    }]}})
}

/// The names of those for whom the claim is reserved.
fn reserved(claim: &ResourceClaim) -> Vec<String> {
    let consumers = claim
        .status
        .as_ref()
        .and_then(|status| status.reserved_for.as_ref());
    let consumers = consumers.into_iter().flatten();
    consumers.map(|consumer| consumer.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_made_from_its_template_reserved_and_given_back() {
    let world = World::calm(1).await;
    world
        .create::<ResourceClaimTemplate>(json!({
            "metadata": {"name": "gpus"},
            "spec": {"spec": {"devices": {"requests": [
                {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}},
            ]}}},
        }))
        .await;
    // On its node by hand: the scheduler reserves nothing for it.
    let claims = json!([{"name": "gpu", "resourceClaimTemplateName": "gpus"}]);
    let wanted = json!({"nodeName": node_name(0), "resourceClaims": claims});
    world.create::<Pod>(pod("first", &wanted)).await;
    world
        .until("the pod's status tells the claim's name", async || {
            let claims = world.list::<ResourceClaim>().await;
            same("claims", claims.len(), 1)?;
            let pod = world.api::<Pod>().get("first").await.expect("a read");
            let statuses = pod
                .status
                .and_then(|status| status.resource_claim_statuses)
                .unwrap_or_default();
            let told: Vec<_> = statuses
                .into_iter()
                .map(|status| status.resource_claim_name.unwrap_or_default())
                .collect();
            same("its claims", told, vec![claims[0].name_any()])
        })
        .await;
    let claim = world.list::<ResourceClaim>().await.remove(0);
    let name = claim.name_any();
    assert!(name.starts_with("first-gpu-"), "{name}");
    assert_eq!(claim.owner_references()[0].name, "first");
    assert_eq!(reserved(&claim), Vec::<String>::new());
    patch_claim_status(&world, &name, json!({"allocation": allocation()})).await;
    world
        .until("the claim is reserved for its pod", async || {
            let claim = world.api::<ResourceClaim>().get(&name).await;
            same(
                "reserved for",
                reserved(&claim.expect("a read")),
                vec!["first".to_owned()],
            )
        })
        .await;
    world
        .delete::<Pod>("first", PropagationPolicy::Background)
        .await;
    world.until_none::<ResourceClaim>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_outlives_its_pods_and_is_free_when_they_are_gone() {
    let world = World::calm(1).await;
    world
        .create::<ResourceClaim>(json!({
            "metadata": {
                "name": "shared",
                "finalizers": ["resource.kubernetes.io/delete-protection"],
            },
            "spec": {"devices": {"requests": [
                {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}},
            ]}},
        }))
        .await;
    patch_claim_status(&world, "shared", json!({"allocation": allocation()})).await;
    let claims = json!([{"name": "gpu", "resourceClaimName": "shared"}]);
    for name in ["first", "second"] {
        let wanted = json!({"nodeName": node_name(0), "resourceClaims": claims});
        world.create::<Pod>(pod(name, &wanted)).await;
    }
    let reserved_for = async |names: &[&str]| {
        world
            .until(
                &format!("the claim is reserved for {names:?}"),
                async || {
                    let claim = world.api::<ResourceClaim>().get("shared").await;
                    let mut found = reserved(&claim.expect("a read"));
                    found.sort();
                    same(
                        "reserved for",
                        found,
                        names.iter().map(|&name| name.into()).collect(),
                    )
                },
            )
            .await;
    };
    reserved_for(&["first", "second"]).await;
    world
        .delete::<Pod>("first", PropagationPolicy::Background)
        .await;
    reserved_for(&["second"]).await;
    world
        .delete::<Pod>("second", PropagationPolicy::Background)
        .await;
    world
        .until("the devices are free", async || {
            let claim = world.api::<ResourceClaim>().get("shared").await;
            let claim = claim.expect("a read");
            nothing(reserved(&claim))?;
            let allocation = claim.status.as_ref().and_then(|it| it.allocation.as_ref());
            nothing(allocation.map(|_| "an allocation".to_owned()))?;
            nothing(claim.finalizers().to_vec())
        })
        .await;
}

const DRIVER: &str = "csi.example.com";
const UNIQUE: &str = "kubernetes.io/csi/csi.example.com^handle";

async fn patch_node(world: &World, node: usize, patch: Value, status: bool) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let name = node_name(node);
    let patched = if status {
        nodes.patch_status(&name, &params, &patch).await
    } else {
        nodes.patch(&name, &params, &patch).await
    };
    patched.expect("the patch is taken");
}

/// A volume of a CSI driver, bound to the claim "data".
async fn csi_volume(world: &World) {
    for node in 0..2 {
        let managed = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
        patch_node(
            world,
            node,
            json!({"metadata": {"annotations": managed}}),
            false,
        )
        .await;
    }
    create_in_cluster::<CSIDriver>(world, json!({"metadata": {"name": DRIVER}, "spec": {}})).await;
    create_in_cluster::<PersistentVolume>(
        world,
        json!({
            "metadata": {"name": "pv"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "csi": {"driver": DRIVER, "volumeHandle": "handle"},
            },
        }),
    )
    .await;
    world
        .create::<PersistentVolumeClaim>(json!({
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "volumeName": "pv",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))
        .await;
}

fn on(node: usize) -> Value {
    let volume = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}});
    json!({"nodeName": node_name(node), "volumes": [volume]})
}

async fn attachments(world: &World) -> Vec<VolumeAttachment> {
    let api: Api<VolumeAttachment> = Api::all(world.client.clone());
    api.list(&kube::api::ListParams::default())
        .await
        .expect("a list")
        .items
}

/// Returns once the volume has an attachment to exactly this node.
async fn until_attaching(world: &World, node: usize) -> String {
    world
        .until(&format!("the volume goes to node {node}"), async || {
            let nodes = attachments(world).await;
            let nodes: Vec<_> = nodes.iter().map(|it| it.spec.node_name.clone()).collect();
            same("attached to", nodes, vec![node_name(node)])
        })
        .await;
    attachments(world).await[0].name_any()
}

async fn until_event(world: &World, pod: &str, reason: &str, message: &str) {
    world
        .until(&format!("{pod} is told {message:?}"), async || {
            let events = world.list::<Event>().await;
            let about = |event: &&Event| event.involved_object.name.as_deref() == Some(pod);
            let told = events.iter().filter(about).map(|event| {
                let both = (event.reason.as_deref(), event.message.as_deref());
                (both.0.unwrap_or_default(), both.1.unwrap_or_default())
            });
            let told: Vec<_> = told.collect();
            if told.contains(&(reason, message)) {
                Ok(())
            } else {
                Err(format!("only {told:?}"))
            }
        })
        .await;
}

async fn reported(world: &World, node: usize) -> Vec<String> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = nodes.get(&node_name(node)).await.expect("a read");
    let attached = node.status.and_then(|status| status.volumes_attached);
    let attached = attached.into_iter().flatten();
    attached.map(|volume| volume.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_attached_where_it_is_used_and_at_one_node_only() {
    let world = World::calm(2).await;
    csi_volume(&world).await;
    world.create::<Pod>(pod("first", &on(0))).await;
    let name = until_attaching(&world, 0).await;
    // The driver's part.
    let api: Api<VolumeAttachment> = Api::all(world.client.clone());
    let params = PatchParams::default();
    let done = Patch::Merge(json!({"status": {"attached": true}}));
    let patched = api.patch_status(&name, &params, &done).await;
    patched.expect("the patch is taken");
    let message = "AttachVolume.Attach succeeded for volume \"pv\" ";
    until_event(&world, "first", "SuccessfulAttachVolume", message).await;
    assert_eq!(reported(&world, 0).await, [UNIQUE]);
    // The kubelet's part.
    let in_use = json!({"status": {"volumesInUse": [UNIQUE]}});
    patch_node(&world, 0, in_use, true).await;
    world.create::<Pod>(pod("second", &on(1))).await;
    let message = "Multi-Attach error for volume \"pv\" Volume is already used by pod(s) first";
    until_event(&world, "second", "FailedAttachVolume", message).await;
    world
        .delete::<Pod>("first", PropagationPolicy::Background)
        .await;
    // It stays for as long as the node has it mounted.
    assert_eq!(until_attaching(&world, 0).await, name);
    assert_eq!(reported(&world, 0).await, [UNIQUE]);
    patch_node(&world, 0, json!({"status": {"volumesInUse": null}}), true).await;
    let second = until_attaching(&world, 1).await;
    assert_ne!(second, name);
    assert_eq!(reported(&world, 0).await, Vec::<String>::new());
    let failed = json!({"status": {"attached": false, "attachError": {"message": "no room"}}});
    let patched = api
        .patch_status(&second, &params, &Patch::Merge(failed))
        .await;
    patched.expect("the patch is taken");
    let message = "AttachVolume.Attach failed for volume \"pv\" : no room";
    until_event(&world, "second", "FailedAttachVolume", message).await;
}
