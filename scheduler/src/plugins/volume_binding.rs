//! Claims hold a pod to the nodes that their volumes can be reached from, or be made for.
//!
//! Enter at [`plan`] for what has to be done before a pod with claims can be bound to its node;
//! [`crate::binding`] does it.

use std::{borrow::Cow, sync::Arc};

use coracle_api::{
    claims::{self, SELECTED_NODE},
    quantity::Amount,
};
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass},
};

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::NodeInfo,
    pod::PodInfo,
    storage::{
        Storage, allows_node, annotation, claim_key, claims_of, is_delayed, is_fully_bound,
        is_reachable, volume_name,
    },
};

pub(crate) const NAME: &str = "VolumeBinding";

const UNREACHABLE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const LOST: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
/// Says which of a node's volumes are a CSI driver's although they do not look like it.
const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

pub(crate) struct VolumeBinding;

/// What has to be written before the pod can go to its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Volumes, and the claims that they are to be bound to.
    pub bind: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    /// Claims whose volumes are to be made for the node.
    pub provision: Vec<Arc<PersistentVolumeClaim>>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// The plan for a pod that passed for the node; `None` when it no longer does.
pub(crate) fn plan(pod: &PodInfo, node: &Node, storage: &dyn Storage) -> Option<Plan> {
    match sort(pod, storage) {
        Ok(Some(claims)) => claims.decide(node).ok(),
        Ok(None) => Some(Plan::default()),
        Err(_) => None,
    }
}

/// The pod's claims, by what has to be done about them.
#[derive(Clone, Default)]
struct Claims {
    /// With their volumes.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    waiting: Vec<Waiting>,
}

/// A claim that waits for the pod to get a node.
#[derive(Clone)]
struct Waiting {
    claim: Arc<PersistentVolumeClaim>,
    /// The node that was chosen for it before.
    node: Option<Arc<str>>,
    class: Option<Arc<StorageClass>>,
    /// Volumes that would do, if they can be reached.
    volumes: Arc<[Arc<PersistentVolume>]>,
    /// Where its provisioner has room; `None`: it does not say.
    room: Option<Arc<[Room]>>,
}

/// A part of a provisioner's capacity that is enough for the claim: the labels of its nodes.
type Room = crate::selector::Selector;

/// `Ok(None)`: the pod has no claims. Otherwise why it cannot be scheduled anywhere.
fn sort(pod: &PodInfo, storage: &dyn Storage) -> Result<Option<Claims>, String> {
    let mut found = Vec::new();
    for used in claims_of(&pod.pod) {
        let name = &used.name;
        let claim = storage.claim(pod.namespace(), name).ok_or_else(|| {
            if used.ephemeral {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \
                     {name:?}"
                )
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            }
        })?;
        let status = claim.status.as_ref();
        if status.and_then(|status| status.phase.as_deref()) == Some("Lost") {
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
                volume_name(&claim)
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if used.ephemeral && !is_owned_by(&claim, pod) {
            let (namespace, pod) = (pod.namespace(), pod.name());
            return Err(format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not \
                 owner)"
            ));
        }
        found.push(claim);
    }
    if found.is_empty() {
        return Ok(None);
    }
    let mut claims = Claims::default();
    for claim in found {
        if is_fully_bound(&claim) {
            claims.bound.push(storage.volume(volume_name(&claim)));
        } else if volume_name(&claim).is_empty() && is_delayed(&claim, storage) {
            claims.waiting.push(Waiting::of(claim, storage));
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    // The smallest first, so that each gets the smallest volume that fits.
    claims
        .waiting
        .sort_by_key(|waiting| claims::requested(&waiting.claim));
    Ok(Some(claims))
}

fn is_owned_by(claim: &PersistentVolumeClaim, pod: &PodInfo) -> bool {
    let owners = claim.metadata.owner_references.as_deref();
    let mut owners = owners.unwrap_or_default().iter();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid())
}

impl Waiting {
    fn of(claim: Arc<PersistentVolumeClaim>, storage: &dyn Storage) -> Self {
        let name = claims::claim_class(&claim);
        let of_class = |volume: &Arc<PersistentVolume>| {
            let spec = volume.spec.as_ref();
            let class = spec.and_then(|spec| spec.storage_class_name.as_deref());
            let named = class.unwrap_or_default() == name || claims::is_bound_to(volume, &claim);
            let promised = volume.metadata.name.as_deref();
            named && !promised.is_some_and(|name| storage.assumed().has_volume(name))
        };
        let node = annotation(&claim, SELECTED_NODE)
            .map(Arc::from)
            .or_else(|| storage.assumed().node_of(&claim_key(&claim)));
        let class = storage.class(name);
        Waiting {
            volumes: storage.volumes().into_iter().filter(of_class).collect(),
            room: class
                .as_ref()
                .and_then(|class| rooms(&claim, class, storage)),
            node,
            class,
            claim,
        }
    }

    /// Why no volume can be made for the claim on the node.
    fn cannot_provision(&self, node: &Node) -> Option<&'static str> {
        let class = self.class.as_ref();
        let provisioner = class.map_or("", |class| class.provisioner.as_str());
        if provisioner.is_empty() || provisioner == NO_PROVISIONER {
            return Some(NO_VOLUME);
        }
        if class.is_some_and(|class| !allows_node(class, node)) {
            return Some(NO_VOLUME);
        }
        let labels = node.metadata.labels.as_ref();
        let rooms = self.room.as_ref()?;
        let found = rooms.iter().any(|room| room.matches(labels));
        (!found).then_some(NO_SPACE)
    }
}

/// Where the class's driver says that there is enough for the claim, if it says anything.
fn rooms(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    storage: &dyn Storage,
) -> Option<Arc<[Room]>> {
    let driver = storage.csi_driver(&class.provisioner)?;
    if driver.spec.storage_capacity != Some(true) {
        return None;
    }
    let wanted = claims::requested(claim);
    let enough = storage.capacities().into_iter().filter(|capacity| {
        Some(capacity.storage_class_name.as_str()) == class.metadata.name.as_deref()
            && limit(capacity).is_some_and(|limit| limit >= wanted)
    });
    let rooms = enough.map(|capacity| Room::from_label_selector(capacity.node_topology.as_ref()));
    Some(rooms.collect())
}

/// How large a volume may be there.
fn limit(capacity: &CSIStorageCapacity) -> Option<Amount> {
    let largest = capacity.maximum_volume_size.as_ref();
    largest.or(capacity.capacity.as_ref()).map(Amount::from)
}

impl Claims {
    /// What has to be done on the node, or all that speaks against it.
    fn decide(&self, node: &Node) -> Result<Plan, Vec<&'static str>> {
        let mut reasons = Vec::new();
        let mut lost = false;
        for volume in &self.bound {
            let Some(volume) = volume else {
                lost = true;
                break;
            };
            if !is_reachable(volume, node) {
                reasons.push(UNREACHABLE);
                break;
            }
        }
        let plan = self.plan(node);
        reasons.extend(plan.as_ref().err());
        if lost {
            reasons.push(LOST);
        }
        match plan {
            Ok(plan) if reasons.is_empty() => Ok(plan),
            _ => Err(reasons),
        }
    }

    fn plan(&self, node: &Node) -> Result<Plan, &'static str> {
        let mut plan = Plan::default();
        for waiting in &self.waiting {
            if let Some(chosen) = waiting.node.as_deref() {
                if Some(chosen) != node.metadata.name.as_deref() {
                    return Err(NO_VOLUME);
                }
                plan.provision.push(waiting.claim.clone());
                continue;
            }
            let accepts = |volume: &PersistentVolume| {
                is_reachable(volume, node)
                    && !plan
                        .bind
                        .iter()
                        .any(|(taken, _)| taken.metadata.name == volume.metadata.name)
            };
            let volumes = &waiting.volumes;
            let kept = claims::find(&waiting.claim, volumes, true).filter(|it| accepts(it));
            match kept.or_else(|| claims::find_free(&waiting.claim, volumes, accepts)) {
                Some(volume) => plan.bind.push((volume, waiting.claim.clone())),
                None => plan.provision.push(waiting.claim.clone()),
            }
        }
        for waiting in &self.waiting {
            let wanted = plan
                .provision
                .iter()
                .any(|claim| Arc::ptr_eq(claim, &waiting.claim));
            if let Some(why) = waiting.cannot_provision(node).filter(|_| wanted) {
                return Err(why);
            }
        }
        Ok(plan)
    }
}

impl Filter for Claims {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        match self.decide(&node.node) {
            Ok(_) => Ok(()),
            Err(reasons) => Err(Rejection {
                plugin: NAME,
                reasons: reasons.into_iter().map(Cow::Borrowed).collect(),
                unresolvable: true,
                error: false,
            }),
        }
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        match sort(pod, cluster.surroundings.storage()) {
            Ok(None) => Prepared::Skip,
            Ok(Some(claims)) => Prepared::Check(Box::new(claims)),
            Err(why) => Prepared::Reject(Rejection::unresolvable(NAME, why)),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        match event {
            Event::NodeAdded(_) | Event::Volume(_) => true,
            Event::StorageClass(class) => class
                .old
                .is_none_or(|old| old.allowed_topologies != class.new.allowed_topologies),
            Event::CsiNode(node) => {
                let migrated = |node: &CSINode| {
                    let annotations = node.metadata.annotations.as_ref();
                    annotations.and_then(|all| all.get(MIGRATED_PLUGINS).cloned())
                };
                node.old
                    .is_none_or(|old| migrated(old) != migrated(node.new))
            }
            Event::CsiDriver(driver) => {
                let counts = |driver: &CSIDriver| driver.spec.storage_capacity == Some(true);
                let spec = pod.pod.spec.as_ref();
                let volumes = spec.and_then(|spec| spec.volumes.as_ref());
                let mut drivers = volumes
                    .into_iter()
                    .flatten()
                    .filter_map(|volume| Some(&volume.csi.as_ref()?.driver));
                driver.old.is_some_and(counts)
                    && !counts(driver.new)
                    && drivers.any(|name| Some(name) == driver.new.metadata.name.as_ref())
            }
            Event::StorageCapacity(capacity) => capacity
                .old
                .is_none_or(|old| limit(capacity.new) > limit(old)),
            Event::NodeUpdated { changes, .. } => changes.labels,
            Event::Claim(claim) => uses(pod, claim.new),
            _ => false,
        }
    }
}

/// Whether the claim is one of the pod's.
pub(crate) fn uses(pod: &PodInfo, claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.namespace.as_deref() == Some(pod.namespace())
        && claims_of(&pod.pod).any(|used| Some(&*used.name) == claim.metadata.name.as_deref())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, node, pod};

    fn volume(name: &str, size: &str, on: &str) -> Value {
        json!({ "metadata": { "name": name },
            "spec": { "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "wait", "nodeAffinity": { "required": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In",
                        "values": [on] }] }] } } },
            "status": { "phase": "Available" } })
    }

    fn claim(name: &str, size: &str, class: &str) -> Value {
        json!({ "metadata": { "name": name, "namespace": "default", "uid": name },
            "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": { "requests": { "storage": size } } } })
    }

    fn bound(name: &str, to: &str) -> Value {
        let mut claim = claim(name, "1Gi", "wait");
        claim["spec"]["volumeName"] = json!(to);
        claim["metadata"]["annotations"] = json!({ claims::BIND_COMPLETED: "yes" });
        claim
    }

    fn using(names: &[&str]) -> Arc<PodInfo> {
        let volumes = names
            .iter()
            .map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
        pod(json!({ "spec": { "volumes": volumes.collect::<Vec<_>>() } }))
    }

    fn world() -> World {
        let mut world = World::new([node("a", json!({})), node("b", json!({}))]);
        let class = |name: &str, provisioner: &str, mode: &str| {
            json!({ "metadata": { "name": name }, "provisioner": provisioner,
                "volumeBindingMode": mode })
        };
        let storage = &mut world.surroundings.storage;
        for class in [
            class("wait", NO_PROVISIONER, "WaitForFirstConsumer"),
            class("make", "example.com/p", "WaitForFirstConsumer"),
            class("now", "example.com/p", "Immediate"),
        ] {
            storage.add_class(class);
        }
        world
    }

    /// What each of the two nodes says of the pod, or why it can run nowhere.
    fn ask(world: &World, pod: &Arc<PodInfo>) -> Result<[String; 2], String> {
        match VolumeBinding.prepare(pod, &world.cluster()) {
            Prepared::Reject(rejection) => Err(rejection.reasons.join(", ")),
            Prepared::Check(filter) => Ok(["a", "b"].map(|name| {
                let node = world.cache.node(name).unwrap();
                filter.check(node).map_or_else(
                    |rejection| rejection.reasons.join(", "),
                    |()| "ok".to_owned(),
                )
            })),
            _ => Ok(["skip", "skip"].map(str::to_owned)),
        }
    }

    fn both(a: &str, b: &str) -> Result<[String; 2], String> {
        Ok([a.to_owned(), b.to_owned()])
    }

    #[test]
    fn claims_that_cannot_be_had_keep_a_pod_from_every_node() {
        let mut world = world();
        assert_eq!(ask(&world, &using(&[])), both("skip", "skip"));
        let why = |world: &World, name: &str| ask(world, &using(&[name])).unwrap_err();
        assert_eq!(why(&world, "c"), "persistentvolumeclaim \"c\" not found");
        let storage = &mut world.surroundings.storage;
        storage.add_claim(claim("now", "1Gi", "now"));
        let mut lost = bound("lost", "v");
        lost["status"] = json!({ "phase": "Lost" });
        storage.add_claim(lost);
        let mut going = claim("going", "1Gi", "wait");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        storage.add_claim(going);
        let mut named = claim("named", "1Gi", "wait");
        named["spec"]["volumeName"] = json!("v");
        storage.add_claim(named);
        let immediate = "pod has unbound immediate PersistentVolumeClaims";
        assert_eq!(why(&world, "now"), immediate);
        assert_eq!(why(&world, "named"), immediate);
        assert_eq!(
            why(&world, "lost"),
            "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"v\""
        );
        let deleted = "persistentvolumeclaim \"going\" is being deleted";
        assert_eq!(why(&world, "going"), deleted);
        let ephemeral = pod(json!({ "spec": { "volumes": [{ "name": "e", "ephemeral": {} }] } }));
        assert_eq!(
            ask(&world, &ephemeral).unwrap_err(),
            "waiting for ephemeral volume controller to create the persistentvolumeclaim \"pod-e\""
        );
    }

    #[test]
    fn bound_volumes_must_be_reached() {
        let mut world = world();
        let storage = &mut world.surroundings.storage;
        storage.add_volume(volume("v", "1Gi", "b"));
        storage.add_claim(bound("c", "v"));
        storage.add_claim(bound("gone", "w"));
        assert_eq!(ask(&world, &using(&["c"])), both(UNREACHABLE, "ok"));
        assert_eq!(ask(&world, &using(&["gone"])), both(LOST, LOST));
        world
            .surroundings
            .storage
            .add_claim(claim("none", "9Gi", "wait"));
        let all = [UNREACHABLE, NO_VOLUME].join(", ");
        let found = ask(&world, &using(&["c", "none"]));
        assert_eq!(found, both(&all, NO_VOLUME), "every reason is told");
    }

    #[test]
    fn waiting_claims_are_matched_or_provided_for() {
        let mut world = world();
        let storage = &mut world.surroundings.storage;
        storage.add_volume(volume("small", "1Gi", "a"));
        storage.add_volume(volume("big", "5Gi", "a"));
        storage.add_claim(claim("one", "2Gi", "wait"));
        storage.add_claim(claim("two", "1Gi", "wait"));
        storage.add_claim(claim("made", "1Gi", "make"));
        let pod = using(&["one", "two", "made"]);
        assert_eq!(ask(&world, &pod), both("ok", NO_VOLUME));
        let on = |world: &World, name: &str| {
            let node = world.cache.node(name).unwrap();
            plan(&pod, &node.node, &world.surroundings.storage)
        };
        let found = on(&world, "a").unwrap();
        let pairs: Vec<_> = found
            .bind
            .iter()
            .map(|(volume, claim)| (volume.metadata.name.as_deref(), claim_key(claim)))
            .collect();
        assert_eq!(
            pairs,
            [
                (Some("small"), "default/two".to_owned()),
                (Some("big"), "default/one".to_owned())
            ]
        );
        assert_eq!(found.provision.len(), 1);
        assert_eq!(on(&world, "b"), None);
        // What another pod was promised is taken.
        let storage = &world.surroundings.storage;
        let promised = ["big".to_owned()];
        storage.assumed().promise(&promised, &[], &"a".into());
        assert_eq!(ask(&world, &pod), both(NO_VOLUME, NO_VOLUME));
        storage.assumed().forget(&promised, &[]);
        assert_eq!(ask(&world, &pod), both("ok", NO_VOLUME));
    }

    #[test]
    fn a_chosen_node_a_topology_and_capacity_are_kept_to() {
        let mut world = world();
        let storage = &mut world.surroundings.storage;
        let mut chosen = claim("chosen", "1Gi", "make");
        chosen["metadata"]["annotations"] = json!({ SELECTED_NODE: "b" });
        storage.add_claim(chosen);
        storage.add_claim(claim("top", "1Gi", "top"));
        storage.add_claim(claim("csi", "1Gi", "csi"));
        let key = "kubernetes.io/hostname";
        storage.add_class(json!({ "metadata": { "name": "top" }, "provisioner": "p",
            "volumeBindingMode": "WaitForFirstConsumer", "allowedTopologies": [
                { "matchLabelExpressions": [{ "key": key, "values": ["a"] }] }] }));
        storage.add_class(
            json!({ "metadata": { "name": "csi" }, "provisioner": "driver",
            "volumeBindingMode": "WaitForFirstConsumer" }),
        );
        storage.add_driver(json!({ "metadata": { "name": "driver" },
            "spec": { "storageCapacity": true } }));
        for (node, capacity) in [("a", "512Mi"), ("b", "2Gi")] {
            storage.add_capacity(json!({ "metadata": { "name": node },
                "storageClassName": "csi", "capacity": capacity,
                "nodeTopology": { "matchLabels": { key: node } } }));
        }
        assert_eq!(ask(&world, &using(&["chosen"])), both(NO_VOLUME, "ok"));
        assert_eq!(ask(&world, &using(&["top"])), both("ok", NO_VOLUME));
        assert_eq!(ask(&world, &using(&["csi"])), both(NO_SPACE, "ok"));
    }
}
