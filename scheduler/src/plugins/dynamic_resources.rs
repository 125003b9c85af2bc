//! Devices that the pod claims have to be there on its node.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim};

use crate::{
    cluster::Cluster,
    devices::{
        self, Devices, allocation,
        allocator::{Failure, Inventory},
        binding::{self, Made, Plan},
        extended::{self, Classes},
        request,
    },
    event::{Applied, Event},
    framework::{Filter, Plugin, PostFilter, Prepared, Rejection, normalize},
    node::NodeInfo,
    pod::PodInfo,
    selector,
};

pub(crate) const NAME: &str = "DynamicResources";
const WEIGHT: i64 = 2;
/// A request has no more alternatives than this; an earlier one scores more.
const MOST_ALTERNATIVES: usize = 8;

pub(crate) struct DynamicResources;

/// The claims of a pod, and what was found for them node by node.
#[derive(Clone)]
struct Wanted {
    pod: Arc<PodInfo>,
    claims: Arc<[Arc<ResourceClaim>]>,
    extended: Option<Arc<Extended>>,
    /// `None`: all claims are allocated.
    inventory: Option<Arc<Inventory>>,
    /// Shared by the copies for what-if questions: devices are taken by claims, not by pods.
    found: Arc<Mutex<Found>>,
}

/// The pod's extended resources that devices stand behind.
struct Extended {
    classes: Classes,
    /// Made for them by an earlier attempt.
    claim: Option<Arc<ResourceClaim>>,
    /// Stands for the claim that is not made yet.
    uid: String,
}

#[derive(Default)]
struct Found {
    /// By node, for the claims without an allocation, in order.
    allocations: HashMap<String, Vec<AllocationResult>>,
    /// By node, the claim that is to be made.
    made: HashMap<String, Made>,
    /// Claims, by index, whose allocation cannot be used on some node.
    unusable: BTreeSet<usize>,
}

/// Whether the pod has to wait for its claims before it is tried at all.
pub(crate) fn is_waiting(pod: &PodInfo, devices: &dyn Devices) -> bool {
    devices::claims_of(&pod.pod, devices).is_err()
}

fn check_classes(
    claim: &ResourceClaim,
    devices: &dyn Devices,
) -> Result<Vec<Arc<DeviceClass>>, Rejection> {
    let mut classes = Vec::new();
    let mut check = |name: &str, request: &str| {
        if name.is_empty() {
            let why = format!("request {request}: unsupported request type");
            return Err(Rejection::error(NAME, why));
        }
        let class = devices.class(name).ok_or_else(|| {
            let why = format!("request {request}: device class {name} does not exist");
            Rejection::unresolvable(NAME, why)
        })?;
        classes.push(class);
        Ok(())
    };
    for request in request::requests(claim) {
        let (name, subs) = (&request.name, request.first_available.as_deref());
        if let Some(exact) = &request.exactly {
            check(&exact.device_class_name, name)?;
            continue;
        }
        let subs = subs.unwrap_or_default();
        if subs.is_empty() {
            let key = request::key(claim);
            let why = format!("resource claim {key}, request {name}: unknown request type");
            return Err(Rejection::unresolvable(NAME, why));
        }
        for sub in subs {
            check(&sub.device_class_name, &format!("{name}/{}", sub.name))?;
        }
    }
    Ok(classes)
}

impl Wanted {
    fn of(pod: &Arc<PodInfo>, devices: &dyn Devices) -> Result<Option<Self>, Rejection> {
        let claims = devices::claims_of(&pod.pod, devices)
            .map_err(|why| Rejection::unresolvable(NAME, why))?;
        let behind = extended::classes_of(pod, devices);
        let extended = (!behind.is_empty()).then(|| {
            Arc::new(Extended {
                claim: extended::claim_of(pod, devices),
                uid: uuid::Uuid::new_v4().to_string(),
                classes: behind,
            })
        });
        if claims.is_empty() && extended.is_none() {
            return Ok(None);
        }
        let mut classes: Vec<Arc<DeviceClass>> = Vec::new();
        if let Some(extended) = &extended {
            classes.extend(extended.classes.values().cloned());
        }
        let mut missing = extended.is_some();
        for claim in claims.iter().filter(|claim| allocation(claim).is_none()) {
            missing = true;
            if devices.pending().has(devices::uid(claim)) {
                let key = request::key(claim);
                let why = format!("resource claim {key} is in the process of being allocated");
                return Err(Rejection::unresolvable(NAME, why));
            }
            classes.extend(check_classes(claim, devices)?);
        }
        let inventory = missing.then(|| Arc::new(devices::inventory(devices, classes)));
        Ok(Some(Wanted {
            pod: pod.clone(),
            claims: claims.into(),
            extended,
            inventory,
            found: Arc::default(),
        }))
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what the claim was given can be used on the node.
    fn is_usable(claim: &ResourceClaim, node: &NodeInfo) -> bool {
        let Some(allocation) = allocation(claim) else {
            return true;
        };
        let selector = allocation.node_selector.as_ref();
        if selector.is_some_and(|selector| !selector::selects_node(selector, &node.node)) {
            return false;
        }
        match binding::is_ready(claim) {
            Ok(true) => true,
            Ok(false) => !binding::is_overdue(claim, Timestamp::now()),
            Err(_) => false,
        }
    }

    /// The claim that would have to be made on the node.
    fn to_make(&self, node: &NodeInfo) -> Result<Option<Made>, Rejection> {
        let Some(extended) = &self.extended else {
            return Ok(None);
        };
        if extended.claim.is_some() {
            let why = "cannot schedule extended resource claim";
            return Err(Rejection::unresolvable(NAME, why));
        }
        let has = &node.capacity.resources.scalars;
        let mut classes = Classes::new();
        for (name, amount) in &self.pod.requests.resources.scalars {
            if *amount == 0 || !extended::may_be_devices(name) {
                continue;
            }
            let offered = has.get(name);
            match extended.classes.get(name) {
                Some(class) if offered.is_none_or(|offered| *offered == 0) => {
                    classes.insert(name.clone(), class.clone());
                }
                _ if offered.is_none() => {
                    return Err(Rejection::unresolvable(NAME, "cannot fit resource"));
                }
                _ => {}
            }
        }
        if classes.is_empty() {
            return Ok(None);
        }
        let (claim, mappings) = extended::claim_for(&self.pod, &classes, &extended.uid);
        Ok(Some(Made {
            claim,
            mappings,
            allocation: AllocationResult::default(),
        }))
    }

    fn unallocated(&self) -> impl Iterator<Item = &ResourceClaim> {
        let claims = self.claims.iter().map(|claim| &**claim);
        claims.filter(|claim| allocation(claim).is_none())
    }
}

impl Filter for Wanted {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut made = self.to_make(node)?;
        let unusable: Vec<usize> = (0..self.claims.len())
            .filter(|&index| !Wanted::is_usable(&self.claims[index], node))
            .collect();
        let mut allocated = None;
        if let Some(inventory) = &self.inventory {
            let mut claims: Vec<&ResourceClaim> = self.unallocated().collect();
            claims.extend(made.as_ref().map(|made| &made.claim));
            allocated = match inventory.allocate(&node.node, &claims) {
                Ok(Some(allocated)) => Some(allocated),
                Ok(None) => {
                    let why = "cannot allocate all claims";
                    return Err(Rejection::unresolvable(NAME, why));
                }
                Err(Failure::Node(why)) => return Err(Rejection::unresolvable(NAME, why)),
                Err(Failure::Fatal(why)) => return Err(Rejection::error(NAME, why)),
            };
        }
        if !unusable.is_empty() {
            self.found().unusable.extend(unusable);
            let why = "resourceclaim not available on the node";
            return Err(Rejection::unresolvable(NAME, why));
        }
        if let Some(mut allocated) = allocated {
            let mut found = self.found();
            if let Some(made) = &mut made {
                made.allocation = allocated.pop().unwrap_or_default();
            }
            if let Some(made) = made {
                found.made.insert(node.name.to_string(), made);
            }
            found.allocations.insert(node.name.to_string(), allocated);
        }
        Ok(())
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }

    fn devices_on(&self, node: &str) -> Option<Plan> {
        let mut found = self.found();
        let mut new = found
            .allocations
            .remove(node)
            .unwrap_or_default()
            .into_iter();
        let claims = self.claims.iter().map(|claim| {
            let missing = allocation(claim).is_none();
            (claim.clone(), missing.then(|| new.next()).flatten())
        });
        let claims = claims.collect();
        Some(Plan {
            claims,
            made: found.made.remove(node).map(Box::new),
        })
    }

    fn score(&self, feasible: &[&NodeInfo]) -> Option<(i64, Vec<i64>)> {
        let has_alternatives = |claim: &Arc<ResourceClaim>| {
            let mut requests = request::requests(claim).iter();
            requests.any(|request| request.first_available.is_some())
        };
        if !self.claims.iter().any(has_alternatives) {
            return None;
        }
        let found = self.found();
        let none = Vec::new();
        let mut scores: Vec<i64> = feasible
            .iter()
            .map(|node| {
                let new = found.allocations.get(&*node.name).unwrap_or(&none);
                preference(&self.claims, new)
            })
            .collect();
        normalize(&mut scores, false);
        Some((WEIGHT, scores))
    }

    /// A claim that this pod alone would use may be given up where it is.
    fn post_filter(&self) -> Option<PostFilter> {
        let mut unusable = self.found().unusable.clone().into_iter();
        let claim = unusable.find_map(|index| {
            let claim = &self.claims[index];
            let status = claim.status.as_ref();
            let users = status.and_then(|status| status.reserved_for.as_deref());
            let ours = match users.unwrap_or_default() {
                [] => true,
                [only] => only.uid == self.pod.uid(),
                _ => false,
            };
            ours.then(|| claim.clone())
        });
        let made = self.extended.as_ref().and_then(|it| it.claim.clone());
        Some(match (claim, made) {
            (Some(claim), _) => PostFilter::Deallocate(claim),
            (None, Some(made)) => PostFilter::Delete(made),
            (None, None) => PostFilter::Nothing,
        })
    }
}

/// How much the alternatives that were chosen are preferred to those after them.
fn preference(claims: &[Arc<ResourceClaim>], new: &[AllocationResult]) -> i64 {
    let mut new = new.iter();
    let mut score = 0;
    for claim in claims {
        let allocation = allocation(claim).or_else(|| new.next());
        let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
        let results = devices.and_then(|devices| devices.results.as_ref());
        let names: BTreeSet<&str> = results
            .into_iter()
            .flatten()
            .map(|result| result.request.as_str())
            .collect();
        for request in request::requests(claim) {
            let subs = request.first_available.iter().flatten().enumerate();
            for (index, sub) in subs {
                if names.contains(format!("{}/{}", request.name, sub.name).as_str()) {
                    score += MOST_ALTERNATIVES.saturating_sub(index) as i64;
                }
            }
        }
    }
    score
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        match Wanted::of(pod, cluster.surroundings.devices()) {
            Ok(None) => Prepared::Skip,
            Ok(Some(wanted)) => Prepared::Check(Box::new(wanted)),
            Err(rejection) => Prepared::Reject(rejection),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, cluster: &Cluster<'_>) -> bool {
        let devices = cluster.surroundings.devices();
        match event {
            Event::NodeAdded(_)
            | Event::DeviceClass(_)
            | Event::ResourceSlice
            | Event::DevicesReleased => true,
            Event::NodeUpdated { changes, .. } => changes.labels || changes.allocatable,
            Event::PodUpdated { new, changes, .. } => {
                changes.claims && new.uid() == pod.uid() && !is_waiting(new, devices)
            }
            Event::ResourceClaim(Applied { old, new }) => {
                let Ok(claims) = devices::claims_of(&pod.pod, devices) else {
                    return false;
                };
                let freed =
                    old.is_some_and(|old| allocation(old).is_some()) && allocation(new).is_none();
                let uid = devices::uid(new);
                let used = || claims.iter().any(|claim| devices::uid(claim) == uid);
                freed || used() && old.is_none_or(|old| old.status != new.status)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        event::PodChanges,
        plugins,
        preemption::Preemption,
        schedule::{Outcome, Turn, schedule},
        testing::{World, merge, node, pod},
    };

    fn claim(name: &str, more: Value) -> Value {
        let mut claim = json!({ "metadata": { "name": name, "namespace": "default", "uid": name },
            "spec": { "devices": { "requests": [{ "name": "r",
                "exactly": { "deviceClassName": "class", "count": 1 } }] } } });
        merge(&mut claim, more);
        claim
    }

    fn allocated(on: &str, users: &Value) -> Value {
        json!({ "status": { "reservedFor": users, "allocation": {
            "devices": { "results": [
                { "request": "r", "driver": "d", "pool": on, "device": "x" }] },
            "nodeSelector": { "nodeSelectorTerms": [{ "matchFields": [
                { "key": "metadata.name", "operator": "In", "values": [on] }] }] } } } })
    }

    fn claiming(names: &[&str]) -> Value {
        let claims = names
            .iter()
            .map(|name| json!({ "name": name, "resourceClaimName": name }));
        json!({ "spec": { "resourceClaims": claims.collect::<Vec<_>>() } })
    }

    /// Two nodes with a device each.
    fn world() -> World {
        let mut world = World::new([node("a", json!({})), node("b", json!({}))]);
        let devices = &mut world.surroundings.devices;
        devices.add_class(json!({ "metadata": { "name": "class" }, "spec": {} }));
        for node in ["a", "b"] {
            devices.add_slice(
                json!({ "metadata": { "name": node }, "spec": { "driver": "d",
                "nodeName": node, "devices": [{ "name": "x" }],
                "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 } } }),
            );
        }
        world
    }

    fn decide(world: &World, value: Value) -> Outcome {
        let (pod, plugins) = (pod(value), plugins::table());
        schedule(&pod, &world.cluster(), &plugins, &mut Turn::new(1))
    }

    /// The node, the number of new allocations; or the message.
    fn told(world: &World, value: Value) -> String {
        match decide(world, value) {
            Outcome::Node { name, devices } => {
                let new = devices.claims.iter().filter(|(_, new)| new.is_some());
                format!("{name} {}", new.count())
            }
            Outcome::Unfit(unfit) => unfit.message,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_goes_where_its_devices_are() {
        let mut world = world();
        let devices = &mut world.surroundings.devices;
        devices.add_claim(claim("new", json!({})));
        devices.add_claim(claim(
            "used",
            allocated(
                "a",
                &json!([{ "resource": "pods", "name": "o", "uid": "o" }]),
            ),
        ));
        assert_eq!(told(&world, claiming(&["used"])), "a 0");
        assert_eq!(told(&world, claiming(&["new"])), "b 1");
        assert_eq!(
            told(&world, claiming(&["new", "used"])),
            "0/2 nodes are available: 1 cannot allocate all claims, 1 resourceclaim not available \
             on the node. still not schedulable, \
             preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
        world
            .surroundings
            .devices
            .pending()
            .promise("new", AllocationResult::default());
        assert_eq!(
            told(&world, claiming(&["new"])),
            "0/2 nodes are available: resource claim default/new is in the process of being \
             allocated. no new claims to deallocate, preemption: 0/2 nodes are available: \
             2 Preemption is not helpful for scheduling."
        );
    }

    #[test]
    fn what_is_on_its_way_is_taken() {
        let mut world = world();
        world
            .surroundings
            .devices
            .add_claim(claim("one", json!({})));
        world
            .surroundings
            .devices
            .add_claim(claim("two", json!({})));
        let Outcome::Node { name, devices } = decide(&world, claiming(&["one"])) else {
            panic!("there are devices");
        };
        let (claim, allocation) = devices.claims[0].clone();
        let pending = world.surroundings.devices.pending();
        pending.promise(devices::uid(&claim), allocation.unwrap());
        let other = if &*name == "a" { "b 1" } else { "a 1" };
        assert_eq!(told(&world, claiming(&["two"])), other);
    }

    #[test]
    fn a_claim_that_is_elsewhere_is_given_up() {
        let mut world = world();
        let ours = json!([{ "resource": "pods", "name": "pod", "uid": "uid" }]);
        let devices = &mut world.surroundings.devices;
        devices.add_claim(claim("c", allocated("a", &ours)));
        let mut value = claiming(&["c"]);
        value["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": "b" });
        let Outcome::Unfit(unfit) = decide(&world, value) else {
            panic!("the device is on another node");
        };
        assert_eq!(
            unfit.message,
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
             1 resourceclaim not available on the node. deallocation of ResourceClaim completed, \
             preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
        assert!(
            matches!(unfit.claims, PostFilter::Deallocate(claim) if devices::uid(&claim) == "c")
        );
        assert!(matches!(unfit.preemption, Preemption::Impossible(_)));
    }

    #[test]
    fn errors_are_not_mistaken_for_a_lack_of_devices() {
        let mut world = world();
        let selector = json!([{ "cel": { "expression": "device.nothing" } }]);
        let mut broken = claim("c", json!({}));
        broken["spec"]["devices"]["requests"][0]["exactly"]["selectors"] = selector;
        world.surroundings.devices.add_claim(broken);
        assert_eq!(
            told(&world, claiming(&["c"])),
            "Error(\"running \\\"DynamicResources\\\" filter plugin: claim default/c: selector #0: \
             CEL runtime error: no such key: nothing\")"
        );
        let mut classless = claim("c", json!({}));
        classless["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"] = json!("gone");
        world.surroundings.devices.add_claim(classless);
        let message = told(&world, claiming(&["c"]));
        assert!(
            message.starts_with(
                "0/2 nodes are available: request r: device class gone does not exist."
            ),
            "{message}"
        );
    }

    #[test]
    fn earlier_alternatives_are_preferred() {
        let mut world = world();
        let devices = &mut world.surroundings.devices;
        let sub = |name: &str, pool: &str| {
            json!({ "name": name, "deviceClassName": "class", "count": 1, "selectors": [
                { "cel": { "expression": format!("device.attributes['d'].pool == '{pool}'") } }] })
        };
        for node in ["a", "b"] {
            devices.add_slice(json!({ "metadata": { "name": node }, "spec": { "driver": "d",
                "nodeName": node, "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 },
                "devices": [{ "name": "x", "attributes": { "pool": { "string": node } } }] } }));
        }
        let mut claim = claim("c", json!({}));
        claim["spec"]["devices"]["requests"] =
            json!([{ "name": "r", "firstAvailable": [sub("s", "b"), sub("t", "a")] }]);
        devices.add_claim(claim);
        assert_eq!(told(&world, claiming(&["c"])), "b 1");
    }

    #[test]
    fn a_pod_waits_for_its_claims() {
        let mut world = world();
        let templated = |statuses: Value| {
            pod(
                json!({ "spec": { "resourceClaims": [{ "name": "c", "resourceClaimTemplateName": "t" }] },
                "status": { "resourceClaimStatuses": statuses } }),
            )
        };
        let waits = |world: &World, pod: &PodInfo| {
            devices::claims_of(&pod.pod, &world.surroundings.devices)
                .err()
                .unwrap_or_default()
        };
        let before = templated(json!([]));
        assert_eq!(
            waits(&world, &before),
            "pod \"default/pod\": ResourceClaim not created yet"
        );
        let after = templated(json!([{ "name": "c", "resourceClaimName": "made" }]));
        assert_eq!(
            waits(&world, &after),
            "could not find ResourceClaim \"default/made\""
        );
        world
            .surroundings
            .devices
            .add_claim(claim("made", json!({})));
        assert_eq!(
            waits(&world, &after),
            "ResourceClaim default/made was not created for Pod default/pod (Pod is not owner)"
        );
        let changes = PodChanges::between(&before, &after).expect("a change");
        let event = Event::PodUpdated {
            old: &before,
            new: &after,
            changes,
        };
        assert!(!DynamicResources.may_help(&after, &event, &world.cluster()));
        let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "uid", "controller": true });
        let owned = json!({ "metadata": { "ownerReferences": [owner] } });
        world.surroundings.devices.add_claim(claim("made", owned));
        assert_eq!(waits(&world, &after), "");
        assert!(DynamicResources.may_help(&after, &event, &world.cluster()));
    }

    #[test]
    fn claims_wake_those_that_they_help() {
        let mut world = world();
        let parse = |value: Value| -> ResourceClaim { serde_json::from_value(value).unwrap() };
        let (plain, busy) = (
            claim("c", json!({})),
            claim("c", allocated("a", &json!([]))),
        );
        world.surroundings.devices.add_claim(plain.clone());
        world
            .surroundings
            .devices
            .add_claim(claim("other", json!({})));
        let helps = |name: &str, old: Option<&Value>, new: &Value| {
            let old = old.map(|old| parse(old.clone()));
            let event = Event::ResourceClaim(Applied {
                old: old.as_ref(),
                new: &parse(new.clone()),
            });
            DynamicResources.may_help(&pod(claiming(&[name])), &event, &world.cluster())
        };
        assert!(helps("c", None, &plain), "its claim was created");
        assert!(!helps("other", None, &plain), "another's was");
        assert!(helps("other", Some(&busy), &plain), "a device is free");
        assert!(helps("c", Some(&plain), &busy), "its claim got devices");
        assert!(!helps("c", Some(&plain), &plain), "nothing changed");
        assert!(!helps("gone", Some(&busy), &plain), "it waits for a claim");
    }
    #[test]
    fn devices_stand_in_for_extended_resources() {
        let mut world = world();
        let offering = json!({ "status": { "allocatable": { "example.com/gpu": "4" } } });
        world.cache.set_node(node("c", offering));
        let devices = &mut world.surroundings.devices;
        devices.add_class(json!({ "metadata": { "name": "class" },
            "spec": { "extendedResourceName": "example.com/gpu" } }));
        let asking = |gpus: &str, on: &str| {
            json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": on }, "containers": [
                { "name": "c", "resources": { "requests": { "example.com/gpu": gpus } } }] } })
        };
        let made = |world: &World, gpus: &str, on: &str| match decide(world, asking(gpus, on)) {
            Outcome::Node { devices, .. } => Ok(devices.made),
            Outcome::Unfit(unfit) => Err(unfit),
            other => panic!("{other:?}"),
        };
        assert!(
            made(&world, "3", "c").unwrap().is_none(),
            "the node has it itself"
        );
        let made_for_a = made(&world, "1", "a").unwrap().expect("a claim");
        assert_eq!(
            made_for_a.claim.metadata.generate_name.as_deref(),
            Some("pod-extended-resources-")
        );
        let results = made_for_a
            .allocation
            .devices
            .and_then(|devices| devices.results);
        assert_eq!(results.unwrap()[0].request, "container-0-request-0");
        assert_eq!(made_for_a.mappings.len(), 1);
        let message = made(&world, "2", "a").unwrap_err().message;
        assert!(
            message.contains("1 cannot allocate all claims"),
            "{message}"
        );

        let owner = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "uid", "controller": true }]);
        world.surroundings.devices.add_claim(claim(
            "left",
            json!({ "metadata": { "ownerReferences": owner,
            "annotations": { "resource.kubernetes.io/extended-resource-claim": "true" } } }),
        ));
        let unfit = made(&world, "1", "a").unwrap_err();
        assert!(
            unfit
                .message
                .contains("1 cannot schedule extended resource claim, ")
                && unfit
                    .message
                    .contains(". deletion of ResourceClaim completed, preemption: "),
            "{}",
            unfit.message
        );
        assert!(matches!(unfit.claims, PostFilter::Delete(_)));
    }
}
