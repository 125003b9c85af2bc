//! Dynamic resources: the devices that pods claim.
//!
//! [`Devices`] is what the plugin reads; [`allocator::Inventory`] chooses devices for claims;
//! [`binding`] writes the choice. What was chosen and is not written yet is in [`Pending`].

pub(crate) mod allocator;
pub(crate) mod binding;
mod capacity;
#[cfg(test)]
mod cases;
pub(crate) mod cel;
pub(crate) mod extended;
mod pools;
pub(crate) mod request;
mod result;
mod search;
mod taken;
#[cfg(test)]
mod testing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use coracle_client::{Informer, Informers};
use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaim},
    resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice},
};

use self::{allocator::Inventory, cel::Selectors, taken::Taken};

/// What there is of devices and of claims to them. Served from informers, and by hand in tests.
pub(crate) trait Devices: Send + Sync {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<ResourceClaim>>;
    fn claims(&self) -> Vec<Arc<ResourceClaim>>;
    fn slices(&self) -> Vec<Arc<ResourceSlice>>;
    fn class(&self, name: &str) -> Option<Arc<DeviceClass>>;
    fn classes(&self) -> Vec<Arc<DeviceClass>>;
    fn pending(&self) -> &Pending;
    fn selectors(&self) -> Arc<Selectors>;
}

/// Allocations that are on their way to the API, by the claim's UID.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<HashMap<String, Arc<AllocationResult>>>);

impl Pending {
    pub fn promise(&self, uid: &str, allocation: AllocationResult) {
        self.lock().insert(uid.to_owned(), Arc::new(allocation));
    }

    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    pub fn has(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    fn all(&self) -> HashMap<String, Arc<AllocationResult>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<AllocationResult>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Devices`] from the process's informers.
pub(crate) struct Informed {
    pub claims: Informer<ResourceClaim>,
    pub slices: Informer<ResourceSlice>,
    pub classes: Informer<DeviceClass>,
    pending: Pending,
    selectors: Arc<Selectors>,
}

impl Informed {
    pub fn new(informers: &Informers) -> Self {
        Informed {
            claims: informers.get(),
            slices: informers.get(),
            classes: informers.get(),
            pending: Pending::default(),
            selectors: Arc::default(),
        }
    }

    pub async fn synced(&self) {
        self.claims.synced().await;
        self.slices.synced().await;
        self.classes.synced().await;
    }
}

impl Devices for Informed {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<ResourceClaim>> {
        self.claims.get(namespace, name)
    }

    fn claims(&self) -> Vec<Arc<ResourceClaim>> {
        self.claims.list()
    }

    fn slices(&self) -> Vec<Arc<ResourceSlice>> {
        self.slices.list()
    }

    fn class(&self, name: &str) -> Option<Arc<DeviceClass>> {
        self.classes.get("", name)
    }

    fn classes(&self) -> Vec<Arc<DeviceClass>> {
        self.classes.list()
    }

    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn selectors(&self) -> Arc<Selectors> {
        self.selectors.clone()
    }
}

/// What can be allocated to claims of these classes now.
pub(crate) fn inventory(
    devices: &dyn Devices,
    classes: impl IntoIterator<Item = Arc<DeviceClass>>,
) -> Inventory {
    let mut taken = Taken::default();
    let mut pending = devices.pending().all();
    for claim in devices.claims() {
        let Some(allocation) = allocation(&claim) else {
            continue;
        };
        taken.add(allocation);
        pending.remove(uid(&claim));
    }
    for allocation in pending.values() {
        taken.add(allocation);
    }
    Inventory::new(devices.slices(), classes, taken, devices.selectors())
}

pub(crate) fn uid(claim: &ResourceClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// Whether the pod may use the claim.
pub(crate) fn is_reserved_for(claim: &ResourceClaim, pod_uid: &str) -> bool {
    let status = claim.status.as_ref();
    let consumers = status.and_then(|status| status.reserved_for.as_ref());
    let mut consumers = consumers.into_iter().flatten();
    consumers.any(|consumer| consumer.uid == pod_uid)
}

/// The claims of the pod, which may be none.
///
/// # Errors
/// A claim is not there yet or any more, or is another's.
pub(crate) fn claims_of(
    pod: &Pod,
    devices: &dyn Devices,
) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.resource_claims.as_ref());
    let mut claims = Vec::new();
    for wanted in wanted.into_iter().flatten() {
        let Some(name) = claim_name(pod, wanted)? else {
            continue;
        };
        let claim = devices
            .claim(namespace, name)
            .ok_or_else(|| format!("could not find ResourceClaim \"{namespace}/{name}\""))?;
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("resourceclaim {name:?} is being deleted"));
        }
        if wanted.resource_claim_name.is_none() && !is_owned_by(&claim, pod) {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "ResourceClaim {namespace}/{name} was not created for Pod {namespace}/{pod} \
                 (Pod is not owner)"
            ));
        }
        claims.push(claim);
    }
    Ok(claims)
}

/// `None`: none is needed.
fn claim_name<'p>(pod: &'p Pod, wanted: &'p PodResourceClaim) -> Result<Option<&'p str>, String> {
    if let Some(name) = &wanted.resource_claim_name {
        return Ok(Some(name));
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if wanted.resource_claim_template_name.is_none() {
        return Err(format!(
            "pod \"{namespace}/{name}\", spec.resourceClaim {:?}: none of the supported fields \
             are set",
            wanted.name
        ));
    }
    let status = pod.status.as_ref();
    let known = status.and_then(|status| status.resource_claim_statuses.as_ref());
    let mut known = known.into_iter().flatten();
    match known.find(|known| known.name == wanted.name) {
        Some(known) => Ok(known.resource_claim_name.as_deref()),
        None => Err(format!(
            "pod \"{namespace}/{name}\": ResourceClaim not created yet"
        )),
    }
}

fn is_owned_by(claim: &ResourceClaim, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.as_deref();
    let mut owners = owners.unwrap_or_default().iter();
    owners.any(|owner| {
        owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref()
    })
}
