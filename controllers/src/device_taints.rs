//! Evicts pods from devices with taints that their claims do not tolerate, or no longer.
//!
//! Drivers tell of taints in their ResourceSlices; which claim tolerates what, its allocation says.
//! Upstream: `pkg/controller/devicetainteviction`, without DeviceTaintRules, which are not served.

use std::{collections::HashSet, time::Duration};

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{
        Device, DeviceRequestAllocationResult, DeviceTaint, DeviceToleration, ResourceClaim,
        ResourceSlice,
    },
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Seen},
    objects::Objects,
    pods::{self, Disruption},
    resource_claim::{consumers, is_pod, names},
    work::{self, Done, Key},
};

const NAME: &str = "device-taint-eviction";
const WORKERS: usize = 10;
const NO_EXECUTE: &str = "NoExecute";

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    Controller::new(&context).run(shutdown).await
}

struct Controller {
    pods: Objects<Pod>,
    claims: Informer<ResourceClaim>,
    slices: Informer<ResourceSlice>,
    recorder: EventRecorder,
    queue: Queue<Key>,
    /// Pods that are to go, for now.
    condemned: Mutex<HashSet<Key>>,
}

/// The device that was allocated, as the newest slices of its pool describe it.
fn device<'a>(
    slices: &'a [std::sync::Arc<ResourceSlice>],
    allocated: &DeviceRequestAllocationResult,
) -> Option<&'a Device> {
    let pool = slices
        .iter()
        .map(|slice| &slice.spec)
        .filter(|spec| spec.driver == allocated.driver && spec.pool.name == allocated.pool);
    let newest = pool.clone().map(|spec| spec.pool.generation).max()?;
    let mut devices = pool
        .filter(|spec| spec.pool.generation == newest)
        .flat_map(|spec| spec.devices.iter().flatten());
    devices.find(|device| device.name == allocated.device)
}

/// Whether the toleration is for this taint, and for its effect by name.
fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let key = text(&toleration.key);
    toleration.effect.as_deref() == Some(NO_EXECUTE)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref() {
            None | Some("" | "Equal") => text(&toleration.value) == text(&taint.value),
            Some("Exists") => true,
            Some(_) => false,
        }
}

/// When the taint is no longer tolerated; `None` when it always is.
fn tolerated_until(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Timestamp> {
    let added = taint.time_added.as_ref()?.0;
    let matching = tolerations.iter().filter(|one| tolerates(one, taint));
    let mut seconds: Option<i64> = None;
    for toleration in matching {
        let this = toleration.toleration_seconds?.max(0);
        seconds = Some(seconds.map_or(this, |known| known.min(this)));
    }
    let grace = SignedDuration::from_secs(seconds.unwrap_or(0));
    Some(added.checked_add(grace).unwrap_or(Timestamp::MAX))
}

/// When pods that use the claim have to go.
fn eviction(claim: &ResourceClaim, slices: &[std::sync::Arc<ResourceSlice>]) -> Option<Timestamp> {
    let allocation = claim.status.as_ref()?.allocation.as_ref()?;
    let results = allocation.devices.as_ref()?.results.iter().flatten();
    results
        .flat_map(|allocated| {
            let tolerations = allocated.tolerations.as_deref().unwrap_or_default();
            let device = device(slices, allocated);
            let taints = device
                .into_iter()
                .flat_map(|device| device.taints.iter().flatten());
            taints
                .filter(|taint| taint.effect == NO_EXECUTE)
                .filter_map(|taint| tolerated_until(taint, tolerations))
        })
        .min()
}

fn is_reserved_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    let uid = pod.metadata.uid.as_deref();
    let mut consumers = consumers(claim).iter();
    consumers.any(|one| is_pod(one) && Some(one.uid.as_str()) == uid)
}

impl Controller {
    fn new(context: &Context) -> Self {
        Controller {
            pods: context.objects(),
            claims: context.informers.get(),
            slices: context.informers.get(),
            recorder: context.recorder(NAME),
            queue: Queue::named("device_taint_eviction"),
            condemned: Mutex::default(),
        }
    }

    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let pods = changes::each(&self.pods.cache, |seen| match seen {
            Seen::Applied { new: pod, .. } if names(&pod).is_empty() => {}
            Seen::Applied { new: pod, .. } | Seen::Deleted(pod) => {
                self.queue.add(Key::of(&pod.metadata));
            }
            Seen::Lagged => {}
        });
        let claims = changes::each(&self.claims, |seen| match seen {
            Seen::Applied { old, new } => {
                old.iter().for_each(|old| self.queue_users(old));
                self.queue_users(&new);
            }
            Seen::Deleted(claim) => self.queue_users(&claim),
            Seen::Lagged => {}
        });
        let slices = changes::each(&self.slices, |seen| match seen {
            Seen::Applied { old, new } => {
                old.iter().for_each(|old| self.queue_pool(old));
                self.queue_pool(&new);
            }
            Seen::Deleted(slice) => self.queue_pool(&slice),
            Seen::Lagged => {
                for claim in self.claims.list() {
                    self.queue_users(&claim);
                }
            }
        });
        let workers = async {
            self.pods.cache.synced().await;
            self.claims.synced().await;
            self.slices.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = pods => {}
            () = claims => {}
            () = slices => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    fn queue_users(&self, claim: &ResourceClaim) {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        for consumer in consumers(claim).iter().filter(|one| is_pod(one)) {
            self.queue.add(Key::new(namespace, consumer.name.as_str()));
        }
    }

    /// Looks at the pods again that have devices of the slice's pool.
    fn queue_pool(&self, slice: &ResourceSlice) {
        for claim in self.claims.list() {
            let allocation = claim.status.as_ref();
            let allocation = allocation.and_then(|status| status.allocation.as_ref());
            let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
            let mut results = devices
                .into_iter()
                .flat_map(|devices| devices.results.iter().flatten());
            if results
                .any(|one| one.driver == slice.spec.driver && one.pool == slice.spec.pool.name)
            {
                self.queue_users(&claim);
            }
        }
    }

    /// When the pod has to go.
    fn due(&self, pod: &Pod) -> Option<Timestamp> {
        if pods::node_name(pod).is_empty() || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let claims = names(pod).into_iter();
        let claims = claims.filter_map(|name| self.claims.get(namespace, name));
        let slices = self.slices.list();
        claims
            .filter(|claim| is_reserved_for(claim, pod))
            .filter_map(|claim| eviction(&claim, &slices))
            .min()
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else {
            self.condemned.lock().remove(&key);
            return Ok(Done::Settled);
        };
        let Some(due) = self.due(&pod) else {
            let condemned = self.condemned.lock().remove(&key);
            if condemned && pod.metadata.deletion_timestamp.is_none() {
                self.tell(&pod, "Cancelling deletion");
            }
            return Ok(Done::Settled);
        };
        self.condemned.lock().insert(key);
        let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
        if !left.is_zero() {
            return Ok(Done::Again(left));
        }
        self.evict(&pod).await?;
        Ok(Done::Settled)
    }

    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        self.tell(pod, "Marking for deletion");
        let disruption = Disruption {
            reason: "DeletionByDeviceTaintManager",
            message: "Device Taint manager: deleting due to NoExecute taint",
        };
        pods::evict(&self.pods, pod, &disruption).await
    }

    fn tell(&self, pod: &Pod, what: &str) {
        let reason = "DeviceTaintManagerEviction";
        self.recorder.on(pod, EventType::Normal, reason, what);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{Config, fakes::FakeApi};

    fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn slice(generation: i64, device: &str, taints: &Value) -> Value {
        json!({ "metadata": { "name": format!("s{generation}{device}"), "uid": device,
                "resourceVersion": "1" },
            "spec": { "driver": "d", "nodeName": "n",
                "pool": { "name": "p", "generation": generation, "resourceSliceCount": 1 },
                "devices": [{ "name": device, "taints": taints }] } })
    }

    fn claim(device: &str, tolerations: &Value) -> Value {
        json!({ "metadata": { "name": "c", "namespace": "ns", "uid": "c", "resourceVersion": "1" },
            "spec": {},
            "status": { "reservedFor": [{ "resource": "pods", "name": "web", "uid": "w" }],
                "allocation": { "devices": { "results": [{ "request": "r", "driver": "d",
                    "pool": "p", "device": device, "tolerations": tolerations }] } } } })
    }

    fn taint(effect: &str, added: &str) -> Value {
        json!({ "key": "k", "value": "v", "effect": effect,
            "timeAdded": format!("2026-01-01T00:{added}Z") })
    }

    #[test]
    fn a_claim_has_to_go_when_its_tolerations_are_over() {
        let now = taint("NoExecute", "01:00");
        let exists = |seconds: Value| {
            json!({ "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds })
        };
        let equal = |value: &str| {
            json!({ "key": "k", "operator": "Equal", "value": value,
            "effect": "NoExecute" })
        };
        let any_effect = json!({ "operator": "Exists" });
        for (taints, tolerations, due) in [
            (json!([]), json!([]), None),
            (json!([taint("NoSchedule", "01:00")]), json!([]), None),
            (json!([now]), json!([]), Some("01:00")),
            (
                json!([now, taint("NoExecute", "00:30")]),
                json!([]),
                Some("00:30"),
            ),
            (json!([now]), json!([exists(Value::Null)]), None),
            (json!([now]), json!([equal("v")]), None),
            (json!([now]), json!([equal("w")]), Some("01:00")),
            (json!([now]), json!([any_effect]), Some("01:00")),
            (json!([now]), json!([exists(json!(20))]), Some("01:20")),
            (
                json!([now]),
                json!([exists(json!(20)), exists(json!(5))]),
                Some("01:05"),
            ),
            (json!([now]), json!([exists(json!(-5))]), Some("01:00")),
            (
                json!([now]),
                json!([exists(json!(20)), exists(Value::Null)]),
                None,
            ),
        ] {
            let slices = [Arc::new(parsed(slice(1, "x", &taints)))];
            let found = eviction(&parsed(claim("x", &tolerations)), &slices);
            let due = due.map(|due| format!("2026-01-01T00:{due}Z"));
            assert_eq!(
                found.map(|at| at.to_string()),
                due,
                "{taints} {tolerations}"
            );
            // Another device, and what an older slice says, do not matter.
            assert_eq!(eviction(&parsed(claim("y", &tolerations)), &slices), None);
            let newer = Arc::new(parsed(slice(2, "x", &json!([]))));
            let both = [slices[0].clone(), newer];
            assert_eq!(eviction(&parsed(claim("x", &tolerations)), &both), None);
        }
    }

    #[tokio::test]
    async fn only_the_pod_that_has_the_device_is_evicted() {
        for (uid, node, evicted) in [("w", "n", true), ("other", "n", false), ("w", "", false)] {
            let api = FakeApi::new();
            let list = |item: Value| {
                json!({ "metadata": { "resourceVersion": "5" },
                "items": [item] })
            };
            let pod = json!({ "metadata": { "name": "web", "namespace": "ns", "uid": uid,
                    "resourceVersion": "2" },
                "spec": { "nodeName": node, "containers": [],
                    "resourceClaims": [{ "name": "c", "resourceClaimName": "c" }] },
                "status": { "phase": "Running" } });
            api.answer("GET /api/v1/pods", 200, list(pod.clone()));
            api.answer(
                "PATCH /api/v1/namespaces/ns/pods/web/status",
                200,
                pod.clone(),
            );
            let claims = "GET /apis/resource.k8s.io/v1/resourceclaims";
            api.answer(claims, 200, list(claim("x", &json!([]))));
            let taints = json!([taint("NoExecute", "01:00")]);
            let slices = "GET /apis/resource.k8s.io/v1/resourceslices";
            api.answer(slices, 200, list(slice(1, "x", &taints)));
            let client = api.client();
            let informers = coracle_client::Informers::new(client.clone());
            let controller = Controller::new(&Context::new(client, informers, Config::default()));
            controller.pods.cache.synced().await;
            controller.claims.synced().await;
            controller.slices.synced().await;
            let sync = controller.sync(Key::new("ns", "web"));
            if !evicted {
                assert_eq!(sync.await.expect("nothing to do"), Done::Settled);
                continue;
            }
            tokio::select! {
                // It would wait until the pod is seen to be gone.
                _ = sync => {}
                _ = api.asked("DELETE /api/v1/namespaces/ns/pods/web", |_| true) => {}
            }
            let patch = "PATCH /api/v1/namespaces/ns/pods/web/status";
            let patch = api.asked(patch, |_| true).await.body;
            let condition = &patch["status"]["conditions"][0];
            assert_eq!(condition["reason"], "DeletionByDeviceTaintManager");
            let event = api
                .asked("POST /api/v1/namespaces/ns/events", |_| true)
                .await;
            assert_eq!(event.body["message"], "Marking for deletion");
        }
    }
}
