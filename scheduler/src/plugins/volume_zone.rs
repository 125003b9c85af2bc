//! A volume whose labels name a zone or region is reached from nodes of that zone or region only.

use std::sync::Arc;

use coracle_api::claims;
use k8s_openapi::api::core::v1::PersistentVolume;

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::NodeInfo,
    pod::PodInfo,
    storage::{Storage, claims_of, volume_name},
};

const NAME: &str = "VolumeZone";

/// Each label as it was called once, and as it is called now.
const LABELS: [(&str, &str); 2] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];

pub(crate) struct VolumeZone;

/// A label that nodes must have, with one of these values.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    key: &'static str,
    /// What the label is called now.
    modern: &'static str,
    values: Vec<String>,
}

#[derive(Clone)]
struct Zones(Arc<[Wanted]>);

/// What the volumes of the pod's claims ask of nodes, or why the pod can run on none.
fn wanted(pod: &PodInfo, storage: &dyn Storage) -> Result<Vec<Wanted>, String> {
    let mut wanted = Vec::new();
    for used in claims_of(&pod.pod).filter(|used| !used.ephemeral) {
        let name = &used.name;
        let claim = storage
            .claim(pod.namespace(), name)
            .ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        let volume = volume_name(&claim);
        if volume.is_empty() {
            let class = claims::claim_class(&claim);
            if class.is_empty() {
                return Err("PersistentVolumeClaim had no pv name and storageClass name".to_owned());
            }
            let found = storage
                .class(class)
                .ok_or_else(|| format!("storageclass.storage.k8s.io {class:?} not found"))?;
            match found.volume_binding_mode.as_deref() {
                Some("WaitForFirstConsumer") => continue,
                Some(_) => return Err("PersistentVolume had no name".to_owned()),
                None => {
                    return Err(format!(
                        "VolumeBindingMode not set for StorageClass {class:?}"
                    ));
                }
            }
        }
        let volume = storage
            .volume(volume)
            .ok_or_else(|| format!("persistentvolume {volume:?} not found"))?;
        wanted.extend(topology(&volume));
    }
    Ok(wanted)
}

/// What the volume's labels ask of nodes. A label with an empty zone means nothing.
fn topology(volume: &PersistentVolume) -> Vec<Wanted> {
    let labels = volume.metadata.labels.as_ref();
    let mut wanted = Vec::new();
    for (old, modern) in LABELS {
        for key in [old, modern] {
            let value = labels.and_then(|labels| labels.get(key));
            let values = value.into_iter().flat_map(|value| value.split("__"));
            let values: Vec<String> = values.map(|zone| zone.trim().to_owned()).collect();
            if !values.is_empty() && values.iter().all(|zone| !zone.is_empty()) {
                wanted.push(Wanted {
                    key,
                    modern,
                    values,
                });
            }
        }
    }
    wanted
}

impl Filter for Zones {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut keys = LABELS.iter().flat_map(|(old, modern)| [old, modern]);
        // Where nodes have no zones at all, volumes' zones mean nothing.
        if !keys.any(|key| node.label(key).is_some()) {
            return Ok(());
        }
        let fits = self.0.iter().all(|wanted| {
            let value = node.label(wanted.key).or_else(|| node.label(wanted.modern));
            value.is_some_and(|value| wanted.values.iter().any(|wanted| wanted == value))
        });
        if fits {
            return Ok(());
        }
        let why = "node(s) had no available volume zone";
        Err(Rejection::unresolvable(NAME, why))
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        match wanted(pod, cluster.surroundings.storage()) {
            Ok(wanted) if wanted.is_empty() => Prepared::Skip,
            Ok(wanted) => Prepared::Check(Box::new(Zones(wanted.into()))),
            Err(why) => Prepared::Reject(Rejection::unresolvable(NAME, why)),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::StorageClass(class) => {
                class.old.is_none()
                    && class.new.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
            }
            Event::Volume(volume) => volume
                .old
                .is_none_or(|old| topology(old) != topology(volume.new)),
            Event::NodeUpdated { changes, .. } => changes.labels,
            Event::Claim(claim) => super::volume_binding::uses(pod, claim.new),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, node, pod};

    #[test]
    fn volumes_hold_pods_to_their_zones() {
        let zone = |key: &str, value: &str| json!({ "metadata": { "labels": { key: value } } });
        let mut world = World::new([
            node("x", zone("topology.kubernetes.io/zone", "x")),
            node("y", zone("topology.kubernetes.io/zone", "y")),
            node("none", json!({})),
        ]);
        let storage = &mut world.surroundings.storage;
        storage.add_claim(json!({ "metadata": { "name": "c", "namespace": "default" },
            "spec": { "volumeName": "v" } }));
        storage.add_volume(json!({ "metadata": { "name": "v",
            "labels": { "failure-domain.beta.kubernetes.io/zone": "x__z" } } }));
        let volume = json!({ "name": "c", "persistentVolumeClaim": { "claimName": "c" } });
        let pod = pod(json!({ "spec": { "volumes": [volume] } }));
        let Prepared::Check(filter) = VolumeZone.prepare(&pod, &world.cluster()) else {
            panic!("nodes have to be looked at");
        };
        let fits = |name: &str| filter.check(world.cache.node(name).unwrap()).is_ok();
        assert_eq!(["x", "y", "none"].map(fits), [true, false, true]);
    }
}
