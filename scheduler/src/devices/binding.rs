//! Giving claims to a pod in the API: the allocation, where it is new, and the reservation; then
//! waiting until the devices are ready, where they say that they have to be made so.
//!
//! Enter at [`Plan`], which the plugin makes, and [`Reserved::bind`].

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::ContainerExtendedResourceRequest,
    api::resource::v1::{
        AllocatedDeviceStatus, AllocationResult, DeviceRequestAllocationResult, ResourceClaim,
        ResourceClaimConsumerReference, ResourceClaimStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use coracle_client::EventType;

use super::{Devices as _, Informed, allocation, extended, is_reserved_for, request::key, uid};
use crate::{actions::Actions, pod::PodInfo};

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How long devices may take to become ready after they were allocated.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often a write is tried when others write too.
const TRIES: usize = 5;

/// The claims of a pod on the node that was chosen for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Each with its new allocation; `None` where it has one.
    pub claims: Vec<(Arc<ResourceClaim>, Option<AllocationResult>)>,
    /// The claim that is made for extended resources.
    pub made: Option<Box<Made>>,
}

/// A claim that is to be made for the pod's extended resources, with its devices.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Its UID only stands for the one it is going to get.
    pub claim: ResourceClaim,
    pub allocation: AllocationResult,
    /// Which container gets what of it.
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.made.is_none()
    }
}

/// A plan whose devices nobody else is given until this is dropped.
pub(crate) struct Reserved {
    plan: Plan,
    devices: Arc<Informed>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        for (claim, _) in self.allocated() {
            self.devices.pending().forget(uid(claim));
        }
    }
}

impl Reserved {
    pub fn new_for(plan: Plan, devices: Arc<Informed>) -> Self {
        let reserved = Reserved { plan, devices };
        for (claim, allocation) in reserved.allocated() {
            let pending = reserved.devices.pending();
            pending.promise(uid(claim), allocation.clone());
        }
        reserved
    }

    fn allocated(&self) -> impl Iterator<Item = (&ResourceClaim, &AllocationResult)> {
        let claims = self.plan.claims.iter();
        let made = self.plan.made.iter();
        claims
            .filter_map(|(claim, allocation)| Some((&**claim, allocation.as_ref()?)))
            .chain(made.map(|made| (&made.claim, &made.allocation)))
    }

    pub fn is_empty(&self) -> bool {
        self.plan.is_empty()
    }

    /// Writes all claims and waits for their devices. What was reserved is released on failure
    /// by [`Reserved::release`].
    pub async fn bind(&self, pod: &PodInfo, node: &str, actions: &Actions) -> Result<(), String> {
        let mut bound = Vec::with_capacity(self.plan.claims.len());
        for (claim, allocation) in &self.plan.claims {
            if is_reserved_for(claim, pod.uid()) {
                bound.push((**claim).clone());
                continue;
            }
            let written = Box::pin(write(claim, allocation.as_ref(), pod, actions)).await?;
            let version = written.metadata.resource_version.clone();
            self.devices
                .claims
                .reached(&version.unwrap_or_default())
                .await;
            bound.push(written);
        }
        if let Some(made) = &self.plan.made {
            let written = Box::pin(make(made, pod, actions)).await?;
            let version = written.metadata.resource_version.clone();
            self.devices
                .claims
                .reached(&version.unwrap_or_default())
                .await;
            actions
                .set_extended_claim(pod, &written.name_any(), &made.mappings)
                .await
                .map_err(|error| {
                    let (namespace, name) = (pod.namespace(), pod.name());
                    format!("update pod {namespace}/{name} ExtendedResourceClaimStatus: {error}")
                })?;
            bound.push(written);
        }
        if !bound.iter().any(has_conditions) {
            return Ok(());
        }
        let message = format!("waiting for binding conditions for device on node {node}");
        let recorder = &actions.recorder;
        recorder.on(
            &*pod.pod,
            EventType::Normal,
            "BindingConditionsPending",
            message,
        );
        self.wait(&bound).await
    }

    async fn wait(&self, claims: &[ResourceClaim]) -> Result<(), String> {
        let mut outcome = Ok(false);
        let settled = self.devices.claims.wait_for(|informer| {
            outcome = claims.iter().try_fold(true, |ready, claim| {
                let namespace = claim.namespace().unwrap_or_default();
                let current = informer.get(&namespace, &claim.name_any());
                let current = current
                    .ok_or_else(|| format!("could not find ResourceClaim {:?}", key(claim)))?;
                Ok::<_, String>(ready & is_ready(&current)?)
            });
            !matches!(outcome, Ok(false))
        });
        let in_time = tokio::time::timeout(PATIENCE, settled).await;
        if in_time.is_err() {
            return Err("device binding timeout: context deadline exceeded".to_owned());
        }
        outcome.map(|_| ())
    }

    /// Gives the reservations back after a failure.
    pub async fn release(&self, pod: &PodInfo, actions: &Actions) {
        for (claim, _) in &self.plan.claims {
            let namespace = pod.namespace();
            let Some(current) = self.devices.claims.get(namespace, &claim.name_any()) else {
                continue;
            };
            if allocation(&current).is_none() || !is_reserved_for(&current, pod.uid()) {
                continue;
            }
            let api: Api<ResourceClaim> = Api::namespaced(actions.client.clone(), namespace);
            let patch = Patch::Strategic(json!({
                "metadata": { "uid": uid(&current) },
                "status": { "reservedFor": [{ "$patch": "delete", "uid": pod.uid() }] },
            }));
            let (name, params) = (current.name_any(), PatchParams::default());
            let written = Box::pin(api.patch_status(&name, &params, &patch)).await;
            if let Err(error) = written {
                tracing::warn!(claim = %key(&current), %error, "cannot release the claim");
            }
        }
        if self.plan.made.is_some()
            && let Some(made) = extended::claim_of(pod, &*self.devices)
            && let Err(error) = delete(&made, actions).await
        {
            tracing::warn!(claim = %key(&made), error, "cannot delete the claim");
        }
    }
}

/// Makes the claim and gives it its devices.
async fn make(made: &Made, pod: &PodInfo, actions: &Actions) -> Result<ResourceClaim, String> {
    let api: Api<ResourceClaim> = Api::namespaced(actions.client.clone(), pod.namespace());
    let mut claim = made.claim.clone();
    claim.metadata.uid = None;
    let created = api.create(&PostParams::default(), &claim).await;
    let created = created.map_err(|error| {
        let namespace = pod.namespace();
        format!("create claim for extended resources {namespace}/: {error}")
    })?;
    write(&created, Some(&made.allocation), pod, actions).await
}

/// Deletes a claim that was made for extended resources.
pub(crate) async fn delete(claim: &ResourceClaim, actions: &Actions) -> Result<(), String> {
    let namespace = claim.namespace().unwrap_or_default();
    let api: Api<ResourceClaim> = Api::namespaced(actions.client.clone(), &namespace);
    let (name, params) = (claim.name_any(), PostParams::default());
    let told = |error: kube::Error| error.to_string();
    let mut free = claim.clone();
    let finalizers = free.metadata.finalizers.get_or_insert_default();
    if let Some(index) = finalizers.iter().position(|it| it == FINALIZER) {
        finalizers.remove(index);
        Box::pin(api.replace(&name, &params, &free))
            .await
            .map_err(told)?;
    }
    let deleted = Box::pin(api.delete(&name, &DeleteParams::default())).await;
    deleted.map(|_| ()).map_err(told)
}

/// Takes the allocation of a claim away that cannot be used where it is.
pub(crate) async fn deallocate(claim: &ResourceClaim, actions: &Actions) -> Result<(), String> {
    let namespace = claim.namespace().unwrap_or_default();
    let api: Api<ResourceClaim> = Api::namespaced(actions.client.clone(), &namespace);
    let mut next = claim.clone();
    next.status = Some(ResourceClaimStatus::default());
    let name = claim.name_any();
    Box::pin(api.replace_status(&name, &PostParams::default(), &next))
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// The claim with the allocation, if it is new, and reserved for the pod.
async fn write(
    claim: &ResourceClaim,
    allocation: Option<&AllocationResult>,
    pod: &PodInfo,
    actions: &Actions,
) -> Result<ResourceClaim, String> {
    let api: Api<ResourceClaim> = Api::namespaced(actions.client.clone(), pod.namespace());
    let (name, params) = (claim.name_any(), PostParams::default());
    let mut claim = claim.clone();
    let mut tries = TRIES;
    loop {
        let failure = match next(&claim, allocation, pod)? {
            Next::Protect(protected) => match api.replace(&name, &params, &protected).await {
                Ok(protected) => {
                    claim = protected;
                    continue;
                }
                Err(error) => ("add finalizer to", error),
            },
            Next::Reserve(reserved) => match api.replace_status(&name, &params, &reserved).await {
                Ok(reserved) => return Ok(reserved),
                Err(error) if allocation.is_some() => ("add allocation and reservation to", error),
                Err(error) => ("add reservation to", error),
            },
        };
        let (what, error) = failure;
        tries -= 1;
        let conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
        if !conflict || tries == 0 {
            return Err(format!("{what} claim {}: {error}", key(&claim)));
        }
        claim = api.get(&name).await.map_err(|error| {
            format!("get updated claim {} after conflict: {error}", key(&claim))
        })?;
    }
}

/// What has to be written next.
#[derive(Debug)]
enum Next {
    /// The finalizer.
    Protect(ResourceClaim),
    /// The status.
    Reserve(ResourceClaim),
}

fn next(
    claim: &ResourceClaim,
    new: Option<&AllocationResult>,
    pod: &PodInfo,
) -> Result<Next, String> {
    let mut next = claim.clone();
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("claim {} got deleted in the meantime", key(claim)));
    }
    if let Some(new) = new {
        if allocation(claim).is_some() {
            let key = key(claim);
            return Err(format!(
                "claim {key} got allocated elsewhere in the meantime"
            ));
        }
        let finalizers = next.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            return Ok(Next::Protect(next));
        }
        next.status.get_or_insert_default().allocation = Some(new.clone());
    }
    let status = next.status.get_or_insert_default();
    let Some(allocation) = &mut status.allocation else {
        let key = key(claim);
        return Err(format!(
            "claim {key} got deallocated elsewhere in the meantime"
        ));
    };
    let time = &mut allocation.allocation_timestamp;
    time.get_or_insert_with(|| Time(Timestamp::now()));
    let consumers = status.reserved_for.get_or_insert_default();
    consumers.push(ResourceClaimConsumerReference {
        api_group: None,
        name: pod.name().to_owned(),
        resource: "pods".to_owned(),
        uid: pod.uid().to_owned(),
    });
    Ok(Next::Reserve(next))
}

fn results(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let devices = allocation(claim).and_then(|allocation| allocation.devices.as_ref());
    let results = devices.and_then(|devices| devices.results.as_deref());
    results.unwrap_or_default()
}

fn conditions(result: &DeviceRequestAllocationResult) -> &[String] {
    result.binding_conditions.as_deref().unwrap_or_default()
}

fn has_conditions(claim: &ResourceClaim) -> bool {
    let mut results = results(claim).iter();
    results.any(|result| !conditions(result).is_empty())
}

/// Whether all the claim's devices can be used.
///
/// # Errors
/// One never will be.
pub(crate) fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    if allocation(claim).is_none() {
        return Ok(false);
    }
    for result in results(claim) {
        if conditions(result).is_empty() {
            continue;
        }
        let Some(device) = status_of(claim, result) else {
            return Ok(false);
        };
        let find = |name: &String| {
            let mut known = device.conditions.iter().flatten();
            known.find(|known| known.type_ == *name && known.status == "True")
        };
        let mut failures = result.binding_failure_conditions.iter().flatten();
        if let Some(failed) = failures.find_map(find) {
            return Err(format!(
                "device binding failed: claim={}, reason={}, message={:?}",
                claim.name_any(),
                failed.reason,
                failed.message
            ));
        }
        if !conditions(result).iter().all(|name| find(name).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the claim's devices took too long to become ready.
pub(crate) fn is_overdue(claim: &ResourceClaim, now: Timestamp) -> bool {
    let since = allocation(claim).and_then(|allocation| allocation.allocation_timestamp.as_ref());
    let overdue = since.is_some_and(|since| since.0 + PATIENCE < now);
    overdue
        && results(claim)
            .iter()
            .any(|result| result.binding_conditions.is_some())
}

fn status_of<'a>(
    claim: &'a ResourceClaim,
    result: &DeviceRequestAllocationResult,
) -> Option<&'a AllocatedDeviceStatus> {
    let devices = claim.status.as_ref()?.devices.as_ref()?;
    devices.iter().find(|device| {
        device.device == result.device
            && device.driver == result.driver
            && device.pool == result.pool
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::pod;

    fn claim(value: Value) -> ResourceClaim {
        let mut claim = json!({ "metadata": { "name": "c", "namespace": "default" }, "spec": {} });
        crate::testing::merge(&mut claim, value);
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn a_claim_is_protected_then_allocated_and_reserved() {
        let pod = pod(json!({}));
        let new = AllocationResult::default();
        let Ok(Next::Protect(protected)) = next(&claim(json!({})), Some(&new), &pod) else {
            panic!("the finalizer comes first");
        };
        assert_eq!(protected.finalizers(), [FINALIZER]);
        assert_eq!(protected.status, None);
        let Ok(Next::Reserve(reserved)) = next(&protected, Some(&new), &pod) else {
            panic!("the status comes second");
        };
        assert!(
            allocation(&reserved)
                .unwrap()
                .allocation_timestamp
                .is_some()
        );
        assert!(is_reserved_for(&reserved, "uid"));
        let why = next(&reserved, Some(&new), &pod).unwrap_err();
        assert_eq!(
            why,
            "claim default/c got allocated elsewhere in the meantime"
        );
        let why = next(&protected, None, &pod).unwrap_err();
        assert_eq!(
            why,
            "claim default/c got deallocated elsewhere in the meantime"
        );
    }

    #[test]
    fn devices_are_ready_when_their_conditions_hold() {
        let with = |conditions: Value| {
            claim(json!({ "status": {
                "allocation": { "allocationTimestamp": "2026-01-01T00:00:00Z", "devices": { "results": [
                    { "driver": "d", "pool": "p", "device": "x", "request": "r",
                        "bindingConditions": ["a", "b"], "bindingFailureConditions": ["f"] }] } },
                "devices": [{ "driver": "d", "pool": "p", "device": "x", "conditions": conditions }],
            } }))
        };
        let condition = |name: &str, status: &str| {
            json!({ "type": name, "status": status, "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
        };
        let (a, b) = (condition("a", "True"), condition("b", "True"));
        assert_eq!(is_ready(&with(json!([a]))), Ok(false));
        assert_eq!(is_ready(&with(json!([a, b]))), Ok(true));
        assert_eq!(
            is_ready(&with(json!([a, condition("b", "False")]))),
            Ok(false)
        );
        assert_eq!(
            is_ready(&with(json!([a, b, condition("f", "True")]))),
            Err("device binding failed: claim=c, reason=R, message=\"m\"".to_owned())
        );
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(!is_overdue(&with(json!([])), time("2026-01-01T00:10:00Z")));
        assert!(is_overdue(&with(json!([])), time("2026-01-01T00:10:01Z")));
    }
}
