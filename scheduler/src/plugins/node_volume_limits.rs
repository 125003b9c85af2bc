//! A node takes only as many volumes of a CSI driver as its `CSINode` says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coracle_api::claims;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::NodeInfo,
    pod::{Key, PodInfo},
    storage::{ClaimUse, Storage, claim_key, claims_of, volume_name},
};

const NAME: &str = "NodeVolumeLimits";

pub(crate) struct NodeVolumeLimits;

/// Driver, and what it knows the volume by.
type Handle = (String, String);

#[derive(Clone)]
struct Limits {
    wanted: Arc<BTreeSet<Handle>>,
    nodes: Arc<BTreeMap<Arc<str>, Limited>>,
}

/// A node that takes so many volumes of each driver.
struct Limited {
    limits: BTreeMap<String, usize>,
    /// By the pod that they are for.
    used: BTreeMap<Key, BTreeSet<Handle>>,
    /// What is attached, be it used or not.
    attached: BTreeSet<Handle>,
}

/// The CSI volumes that the pod's claims are, or will be.
fn handles(pod: &PodInfo, storage: &dyn Storage) -> BTreeSet<Handle> {
    let claims = claims_of(&pod.pod);
    let handle = |used: ClaimUse<'_>| {
        let claim = storage.claim(pod.namespace(), &used.name)?;
        let Some(volume) = storage.volume(volume_name(&claim)) else {
            // It is still to be made, by the driver that is the class's provisioner.
            let class = storage.class(claims::claim_class(&claim))?;
            return Some((class.provisioner.clone(), claim_key(&claim)));
        };
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        Some((csi.driver.clone(), csi.volume_handle.clone()))
    };
    claims.filter_map(handle).collect()
}

fn limited(node: &NodeInfo, storage: &dyn Storage, drivers: &BTreeSet<&str>) -> Option<Limited> {
    let csi = storage.csi_node(&node.name)?;
    let limits: BTreeMap<String, usize> = csi
        .spec
        .drivers
        .iter()
        .filter(|driver| drivers.contains(driver.name.as_str()))
        .filter_map(|driver| {
            let count = driver.allocatable.as_ref()?.count?;
            Some((driver.name.clone(), usize::try_from(count).ok()?))
        })
        .collect();
    if limits.is_empty() {
        return None;
    }
    let used = node
        .pods
        .iter()
        .map(|pod| (pod.key.clone(), handles(pod, storage)));
    let attachments = storage.attachments().into_iter();
    let attached = attachments.filter_map(|attachment| {
        let spec = &attachment.spec;
        let here = *spec.node_name == *node.name && !spec.attacher.is_empty();
        let name = spec.source.persistent_volume_name.as_ref();
        let volume = storage.volume(name.filter(|_| here)?)?;
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        Some((spec.attacher.clone(), csi.volume_handle.clone()))
    });
    Some(Limited {
        used: used.collect(),
        attached: attached.collect(),
        limits,
    })
}

impl Filter for Limits {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(limited) = self.nodes.get(&node.name) else {
            return Ok(());
        };
        let here = node
            .pods
            .iter()
            .filter_map(|pod| limited.used.get(&pod.key));
        let used: BTreeSet<&Handle> = here.flatten().collect();
        let full = limited.limits.iter().any(|(driver, limit)| {
            let of = |handle: &&Handle| handle.0 == *driver;
            let wanted = self.wanted.iter().filter(of);
            let new = wanted.filter(|handle| !used.contains(handle)).count();
            let attached = limited.attached.iter().filter(of);
            let unused = attached.filter(|handle| !used.contains(handle)).count();
            new > 0 && used.iter().copied().filter(of).count() + unused + new > *limit
        });
        if full {
            let why = "node(s) exceed max volume count";
            return Err(Rejection::resolvable(NAME, why));
        }
        Ok(())
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        let storage = cluster.surroundings.storage();
        // A claim that is not there is for VolumeBinding to complain of.
        let wanted = handles(pod, storage);
        if wanted.is_empty() {
            return Prepared::Skip;
        }
        let drivers: BTreeSet<&str> = wanted.iter().map(|(driver, _)| driver.as_str()).collect();
        let nodes: BTreeMap<_, _> = cluster
            .cache
            .nodes()
            .iter()
            .filter_map(|node| Some((node.name.clone(), limited(node, storage, &drivers)?)))
            .collect();
        if nodes.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Limits {
            wanted: Arc::new(wanted),
            nodes: Arc::new(nodes),
        }))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        match event {
            Event::CsiNode(node) => node.old.is_none_or(|old| takes_more(old, node.new)),
            Event::Claim(claim) => {
                claim.old.is_none() && super::volume_binding::uses(pod, claim.new)
            }
            Event::PodDeleted(gone) => claims_of(&gone.pod).next().is_some(),
            Event::VolumeDetached => claims_of(&pod.pod).any(|used| !used.ephemeral),
            _ => false,
        }
    }
}

/// Whether the limit of some driver was raised.
fn takes_more(old: &CSINode, new: &CSINode) -> bool {
    let limit = |driver: &CSINodeDriver| {
        let allocatable = driver.allocatable.as_ref();
        allocatable.and_then(|it| it.count).unwrap_or(0)
    };
    new.spec.drivers.iter().any(|driver| {
        let mut before = old.spec.drivers.iter();
        let before = before.find(|before| before.name == driver.name);
        limit(driver) > before.map_or(0, limit)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, node, pod};

    fn using(names: &[&str]) -> Value {
        let volumes = names
            .iter()
            .map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
        json!({ "spec": { "volumes": volumes.collect::<Vec<_>>() } })
    }

    #[test]
    fn a_volume_counts_once_and_against_its_drivers_limit() {
        let mut world = World::new([node("two", json!({})), node("free", json!({}))]);
        let storage = &mut world.surroundings.storage;
        for name in ["a", "b", "c"] {
            storage.add_claim(
                json!({ "metadata": { "name": name, "namespace": "default" },
                "spec": { "volumeName": name } }),
            );
            storage.add_volume(json!({ "metadata": { "name": name },
                "spec": { "csi": { "driver": "d", "volumeHandle": name } } }));
        }
        storage.add_csi_node(
            json!({ "metadata": { "name": "two" }, "spec": { "drivers": [
            { "name": "d", "nodeID": "two", "allocatable": { "count": 2 } }] } }),
        );
        world.running("other", "two", using(&["a"]));
        let fits = |names: &[&str]| {
            let prepared = NodeVolumeLimits.prepare(&pod(using(names)), &world.cluster());
            let Prepared::Check(filter) = prepared else {
                panic!("nodes have to be looked at");
            };
            ["two", "free"].map(|name| filter.check(world.cache.node(name).unwrap()).is_ok())
        };
        assert_eq!(fits(&["a", "b"]), [true, true]);
        assert_eq!(fits(&["b", "c"]), [false, true]);
        let none = NodeVolumeLimits.prepare(&pod(json!({})), &world.cluster());
        assert!(matches!(none, Prepared::Skip));
    }
    #[test]
    fn what_is_attached_counts_though_no_pod_uses_it() {
        let mut world = World::new([node("n", json!({}))]);
        let storage = &mut world.surroundings.storage;
        let volume = |name: &str| {
            json!({ "metadata": { "name": name },
            "spec": { "csi": { "driver": "d", "volumeHandle": name } } })
        };
        for name in ["a", "left"] {
            storage.add_volume(volume(name));
        }
        storage.add_claim(json!({ "metadata": { "name": "a", "namespace": "default" },
            "spec": { "volumeName": "a" } }));
        let csi_node = |count: i64| {
            json!({ "metadata": { "name": "n" }, "spec": { "drivers": [
                { "name": "d", "nodeID": "n", "allocatable": { "count": count } }] } })
        };
        let fits = |world: &World| {
            let prepared = NodeVolumeLimits.prepare(&pod(using(&["a"])), &world.cluster());
            let Prepared::Check(filter) = prepared else {
                panic!("the node has to be looked at");
            };
            filter.check(world.cache.node("n").unwrap()).is_ok()
        };
        storage.add_csi_node(csi_node(1));
        assert!(fits(&world));
        let storage = &mut world.surroundings.storage;
        storage.add_attachment(json!({ "metadata": { "name": "old" }, "spec": {
            "attacher": "d", "nodeName": "n", "source": { "persistentVolumeName": "left" } } }));
        assert!(!fits(&world), "it has not been detached yet");
        world.surroundings.storage.add_csi_node(csi_node(2));
        assert!(fits(&world));
        let parse = |count: i64| serde_json::from_value::<CSINode>(csi_node(count)).unwrap();
        assert!(takes_more(&parse(1), &parse(2)) && !takes_more(&parse(2), &parse(1)));
        let gone = NodeVolumeLimits.prepare(&pod(using(&["gone"])), &world.cluster());
        assert!(matches!(gone, Prepared::Skip), "VolumeBinding rejects it");
    }
}
