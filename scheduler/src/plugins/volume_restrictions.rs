//! Disks that one node only can mount for writing, and claims that one pod only can use.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::NodeInfo,
    pod::PodInfo,
    storage::{Storage, claims_of},
};

const NAME: &str = "VolumeRestrictions";

pub(crate) struct VolumeRestrictions;

#[derive(Clone)]
struct Restrictions {
    pod: Arc<PodInfo>,
    has_disks: bool,
    /// The claims that are for one pod, where they are in use.
    claims: Arc<[String]>,
    /// How often other pods use them.
    in_use: usize,
}

fn volumes(pod: &Pod) -> &[Volume] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default()
}

fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.iscsi.is_some()
        || volume.rbd.is_some()
}

/// Whether both cannot be mounted on one node.
fn conflict(one: &Volume, other: &Volume) -> bool {
    let writes = |one: Option<bool>, other: Option<bool>| !(one == Some(true) && other == one);
    if let (Some(one), Some(other)) = (&one.gce_persistent_disk, &other.gce_persistent_disk)
        && one.pd_name == other.pd_name
        && writes(one.read_only, other.read_only)
    {
        return true;
    }
    if let (Some(one), Some(other)) = (&one.aws_elastic_block_store, &other.aws_elastic_block_store)
        && one.volume_id == other.volume_id
    {
        return true;
    }
    if let (Some(one), Some(other)) = (&one.iscsi, &other.iscsi)
        && one.iqn == other.iqn
        && writes(one.read_only, other.read_only)
    {
        return true;
    }
    if let (Some(one), Some(other)) = (&one.rbd, &other.rbd) {
        return one.pool == other.pool
            && one.image == other.image
            && one.monitors.iter().any(|it| other.monitors.contains(it))
            && writes(one.read_only, other.read_only);
    }
    false
}

/// The pod's claims that one pod at a time may use.
fn exclusive(pod: &PodInfo, storage: &dyn Storage) -> Result<Vec<String>, String> {
    let mut claims = Vec::new();
    for used in claims_of(&pod.pod).filter(|used| !used.ephemeral) {
        let name = used.name.into_owned();
        let claim = storage
            .claim(pod.namespace(), &name)
            .ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
        let modes = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.access_modes.as_ref());
        if modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod")) {
            claims.push(name);
        }
    }
    Ok(claims)
}

impl Restrictions {
    /// How often another pod uses the claims.
    fn uses(&self, other: &PodInfo) -> usize {
        if other.namespace() != self.pod.namespace() || self.claims.is_empty() {
            return 0;
        }
        claims_of(&other.pod)
            .filter(|used| !used.ephemeral && self.claims.iter().any(|it| *it == used.name))
            .count()
    }
}

impl Filter for Restrictions {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.in_use > 0 {
            return Err(Rejection::resolvable(
                NAME,
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access \
                 mode already in-use by another pod",
            ));
        }
        let taken = self.has_disks
            && node
                .pods
                .iter()
                .flat_map(|other| volumes(&other.pod))
                .any(|other| volumes(&self.pod.pod).iter().any(|it| conflict(it, other)));
        if taken {
            let why = "node(s) had no available disk";
            return Err(Rejection::resolvable(NAME, why));
        }
        Ok(())
    }

    fn pod_added(&mut self, pod: &PodInfo, _node: &NodeInfo) {
        self.in_use += self.uses(pod);
    }

    fn pod_removed(&mut self, pod: &PodInfo, _node: &NodeInfo) {
        self.in_use = self.in_use.saturating_sub(self.uses(pod));
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        let claims = match exclusive(pod, cluster.surroundings.storage()) {
            Ok(claims) => claims,
            Err(why) => return Prepared::Reject(Rejection::unresolvable(NAME, why)),
        };
        let has_disks = volumes(&pod.pod).iter().any(is_disk);
        if claims.is_empty() && !has_disks {
            return Prepared::Skip;
        }
        let mut found = Restrictions {
            pod: pod.clone(),
            has_disks,
            claims: claims.into(),
            in_use: 0,
        };
        if !found.claims.is_empty() {
            let others = cluster.cache.nodes().iter().flat_map(|node| &node.pods);
            found.in_use = others
                .filter(|other| other.key != pod.key)
                .map(|other| found.uses(other))
                .sum();
        }
        Prepared::Check(Box::new(found))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::Claim(claim) => {
                claim.old.is_none() && super::volume_binding::uses(pod, claim.new)
            }
            Event::PodDeleted(gone) => {
                let disk = |volume| volumes(&gone.pod).iter().any(|it| conflict(volume, it));
                let claim = |name: &str| claims_of(&gone.pod).any(|used| used.name == name);
                gone.namespace() == pod.namespace()
                    && (volumes(&pod.pod).iter().any(disk)
                        || claims_of(&pod.pod).any(|used| claim(&used.name)))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, node, pod};

    fn claim(name: &str) -> Value {
        json!({ "spec": { "volumes": [
            { "name": "v", "persistentVolumeClaim": { "claimName": name } }] } })
    }

    #[test]
    fn a_claim_for_one_pod_is_used_by_one() {
        let mut world = World::new([node("n", json!({}))]);
        for (name, mode) in [("one", "ReadWriteOncePod"), ("many", "ReadWriteOnce")] {
            world.surroundings.storage.add_claim(json!({
                "metadata": { "name": name, "namespace": "default" },
                "spec": { "accessModes": [mode] } }));
        }
        world.running("other", "n", claim("one"));
        let prepared = |name| VolumeRestrictions.prepare(&pod(claim(name)), &world.cluster());
        assert!(matches!(prepared("many"), Prepared::Skip));
        assert!(matches!(prepared("none"), Prepared::Reject(_)));
        let Prepared::Check(mut filter) = prepared("one") else {
            panic!("nodes have to be looked at");
        };
        let n = world.cache.node("n").unwrap();
        assert!(filter.check(n).is_err_and(|it| !it.unresolvable));
        // Without the other pod, it may.
        filter.pod_removed(&n.pods[0].clone(), n);
        assert!(filter.check(n).is_ok());
        filter.pod_added(&n.pods[0].clone(), n);
        assert!(filter.check(n).is_err());
    }

    #[test]
    fn disks_are_written_on_one_node() {
        let disk = |value: Value| -> Volume {
            let mut volume = json!({ "name": "v" });
            crate::testing::merge(&mut volume, value);
            serde_json::from_value(volume).unwrap()
        };
        let gce = |read_only: bool| {
            disk(json!({ "gcePersistentDisk": { "pdName": "d", "readOnly": read_only } }))
        };
        let aws = || disk(json!({ "awsElasticBlockStore": { "volumeID": "d" } }));
        let rbd = |monitor: &str| {
            disk(json!({ "rbd": { "monitors": [monitor], "image": "i", "pool": "p" } }))
        };
        for (one, other, expected) in [
            (gce(false), gce(false), true),
            (gce(true), gce(false), true),
            (gce(true), gce(true), false),
            (aws(), aws(), true),
            (rbd("a"), rbd("a"), true),
            (rbd("a"), rbd("b"), false),
            (aws(), gce(false), false),
        ] {
            assert_eq!(conflict(&one, &other), expected, "{one:?} {other:?}");
        }
    }
}
