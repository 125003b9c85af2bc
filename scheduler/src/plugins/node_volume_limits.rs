//! A node takes only as many volumes of a CSI driver as its `CSINode` says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coracle_api::claims;

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::NodeInfo,
    pod::{Key, PodInfo},
    storage::{Storage, claim_key, claims_of, volume_name},
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
    attached: BTreeMap<Key, BTreeSet<Handle>>,
}

/// The CSI volumes that the pod's claims are, or will be.
fn handles(pod: &PodInfo, storage: &dyn Storage) -> Result<BTreeSet<Handle>, String> {
    let mut handles = BTreeSet::new();
    for used in claims_of(&pod.pod) {
        let (namespace, name) = (pod.namespace(), &used.name);
        let claim = storage.claim(namespace, name).ok_or_else(|| {
            format!("looking up PVC {namespace}/{name}: persistentvolumeclaim {name:?} not found")
        })?;
        let volume = storage.volume(volume_name(&claim));
        let handle = match &volume {
            Some(volume) => {
                let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
                csi.map(|csi| (csi.driver.clone(), csi.volume_handle.clone()))
            }
            // It is still to be made, by the driver that is the class's provisioner.
            None => storage
                .class(claims::claim_class(&claim))
                .map(|class| (class.provisioner.clone(), claim_key(&claim))),
        };
        handles.extend(handle);
    }
    Ok(handles)
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
    let attached = node
        .pods
        .iter()
        .filter_map(|pod| Some((pod.key.clone(), handles(pod, storage).ok()?)));
    Some(Limited {
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
            .filter_map(|pod| limited.attached.get(&pod.key));
        let attached: BTreeSet<&Handle> = here.flatten().collect();
        let full = limited.limits.iter().any(|(driver, limit)| {
            let of = |handle: &&Handle| handle.0 == *driver;
            let wanted = self.wanted.iter().filter(of);
            let new = wanted.filter(|handle| !attached.contains(handle)).count();
            new > 0 && attached.iter().copied().filter(of).count() + new > *limit
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
        let wanted = match handles(pod, storage) {
            Ok(wanted) if wanted.is_empty() => return Prepared::Skip,
            Ok(wanted) => wanted,
            Err(why) => return Prepared::Reject(Rejection::unresolvable(NAME, why)),
        };
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
            Event::NodeAdded(_) | Event::CsiNode => true,
            Event::Claim(claim) => super::volume_binding::uses(pod, claim),
            Event::PodDeleted(gone) => claims_of(&gone.pod).next().is_some(),
            _ => false,
        }
    }
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
}
