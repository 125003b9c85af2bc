//! What a pod claims, looked for on one node after the other.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim};

use super::NAME;
use crate::{
    devices::{
        self, Devices, allocation,
        allocator::{Failure, Inventory},
        binding::{self, Made, Plan},
        extended::{self, Classes},
        request,
    },
    framework::{Filter, PostFilter, Rejection, normalize},
    node::NodeInfo,
    pod::PodInfo,
    selector,
};

const WEIGHT: i64 = 2;
/// A request has no more alternatives than this; an earlier one scores more.
const MOST_ALTERNATIVES: usize = 8;

/// The claims of a pod, and what was found for them node by node.
#[derive(Clone)]
pub(super) struct Wanted {
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

impl Wanted {
    /// `None`: the pod claims nothing. Else all its claims are there, and their classes.
    pub(super) fn of(pod: &Arc<PodInfo>, devices: &dyn Devices) -> Result<Option<Self>, Rejection> {
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

/// The classes that a claim's requests name, or which is not there.
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
