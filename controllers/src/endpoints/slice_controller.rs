//! Writes the EndpointSlices that [`super::slice_plan`] asks for. Upstream:
//! `pkg/controller/endpointslice`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use coracle_client::{Backoff, EventRecorder, EventType, Informer, Queue};
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{ResourceExt as _, api::DeleteParams};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    selector,
    slice_plan::{self, Action, MANAGER, MAX_ENDPOINTS, World},
    slices::{self, MANAGED_BY, SERVICE_NAME},
    topology::{self, Shares, ZONE, Zones},
    trigger::Triggers,
};
use crate::{
    Context, Error,
    changes::{self, Seen},
    error, labels,
    metrics::{self, Slices},
    objects::Objects,
    work::{self, Done, Key},
};

const NAME: &str = "endpointslice-controller";
const WORKERS: usize = 5;
/// Between a change of a slice and a look at its Service: most are our own.
const AFTER_SLICE: Duration = Duration::from_secs(1);
/// The reason of events that say why there are no hints for zones.
const NO_HINTS: &str = "TopologyAwareHintsDisabled";

/// Runs the EndpointSlice controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        services: context.informers.get(),
        pods: context.informers.get(),
        nodes: context.informers.get(),
        slices: context.objects(),
        recorder: context.recorder("endpoint-slice-controller"),
        queue: Queue::new(Backoff {
            base: Duration::from_millis(100),
            max: Duration::from_secs(1000),
        })
        .with_name("endpoint_slice"),
        triggers: Mutex::default(),
        counted: Mutex::default(),
        spread: Mutex::default(),
    };
    controller.run(shutdown).await
}

struct Controller {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Objects<EndpointSlice>,
    recorder: EventRecorder,
    queue: Queue<Key>,
    triggers: Mutex<Triggers>,
    /// What the metrics show of each Service.
    counted: Mutex<HashMap<Key, Slices>>,
    /// How the endpoints of Services are spread over zones, by address type.
    spread: Mutex<HashMap<Key, BTreeMap<&'static str, Shares>>>,
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let services = changes::each(&self.services, |seen| match seen {
            Seen::Applied { new: service, .. } | Seen::Deleted(service) => {
                self.queue.add(Key::of(&service.metadata));
            }
            Seen::Lagged => {}
        });
        let pods = async {
            self.services.synced().await;
            changes::each(&self.pods, |seen| {
                super::pod_seen(&self.services, &self.queue, seen);
            })
            .await;
        };
        let slices = changes::each(&self.slices.cache, |seen| self.slice_seen(seen));
        let nodes = changes::each(&self.nodes, |seen| self.node_seen(&seen));
        let workers = async {
            self.services.synced().await;
            self.pods.synced().await;
            self.nodes.synced().await;
            self.slices.cache.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = services => {}
            () = pods => {}
            () = slices => {}
            () = nodes => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    fn slice_seen(&self, seen: Seen<EndpointSlice>) {
        match seen {
            Seen::Applied { old, new } => {
                if let Some(old) = old {
                    self.queue_service(&old);
                }
                self.queue_service(&new);
            }
            Seen::Deleted(slice) => self.queue_service(&slice),
            Seen::Lagged => {
                for service in self.services.list() {
                    self.queue.add(Key::of(&service.metadata));
                }
            }
        }
    }

    /// Services whose endpoints do not suit the zones any more are looked at again.
    fn node_seen(&self, seen: &Seen<Node>) {
        if let Seen::Applied {
            old: Some(old),
            new,
        } = seen
        {
            let place = |node: &Node| (topology::is_ready(node), node.labels().get(ZONE).cloned());
            if place(old) == place(new) {
                return;
            }
        }
        let spread = self.spread.lock();
        if spread.is_empty() {
            return;
        }
        let zones = self.zones();
        for (key, families) in &*spread {
            let mut shares = families.values();
            if shares.any(|shares| topology::is_overloaded(shares, zones.as_ref())) {
                self.queue.add(key.clone());
            }
        }
    }

    fn zones(&self) -> Option<Zones> {
        let nodes = self.nodes.list();
        Zones::of(nodes.iter().map(|node| &**node))
    }

    fn queue_service(&self, slice: &EndpointSlice) {
        let service = slices::label(slice, SERVICE_NAME);
        if slices::label(slice, MANAGED_BY) == MANAGER && !service.is_empty() {
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            self.queue
                .add_after(Key::new(namespace, service), AFTER_SLICE);
        }
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.triggers.lock().forget(&key);
            self.spread.lock().remove(&key);
            if let Some(known) = self.counted.lock().remove(&key) {
                metrics::slices(&known, &Slices::default());
            }
            return Ok(Done::Settled);
        };
        let Some(wanted) = selector(&service) else {
            return Ok(Done::Settled);
        };
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| labels::contains(pod.metadata.labels.as_ref(), Some(wanted)));
        let mut slices = self.slices.cache.list_namespace(&key.namespace);
        slices.retain(|slice| {
            slices::label(slice, SERVICE_NAME) == key.name
                && slices::label(slice, MANAGED_BY) == MANAGER
                && slice.metadata.deletion_timestamp.is_none()
        });
        let trigger = self
            .triggers
            .lock()
            .next(&key, &service, pods.iter().map(|pod| &**pod));
        let before = slices.clone();
        let zones = topology::is_wanted(&service)
            .then(|| self.zones())
            .flatten();
        let plan = slice_plan::plan(&World {
            service: &service,
            pods,
            zone: &|node| self.zone(node),
            slices,
            trigger,
            zones: zones.as_ref(),
        });
        let notes = self.note_spread(&key, &service, plan.spread);
        let mut outcome = Ok(());
        let after = after(&before, &plan.actions);
        for action in plan.actions {
            outcome = self.apply(&key, action).await;
            if outcome.is_err() {
                break;
            }
        }
        if let Some(skipped) = plan.skipped.into_iter().next() {
            outcome = outcome.and(Err(Error::Refused(skipped)));
        }
        for (type_, reason, message) in notes {
            self.recorder.on(&*service, type_, reason, message);
        }
        self.count(&key, &service, &before, &after, outcome.is_err());
        match outcome {
            Ok(()) => Ok(Done::Settled),
            Err(error) => {
                self.tell_failure(&service, &error);
                Err(error)
            }
        }
    }

    /// Remembers how the Service's endpoints are spread; returns the events that tell of it.
    fn note_spread(
        &self,
        key: &Key,
        service: &Service,
        spread: BTreeMap<&'static str, Result<Shares, String>>,
    ) -> Vec<(EventType, &'static str, String)> {
        let mut notes = Vec::new();
        let mut all = self.spread.lock();
        let known = all.remove(key).unwrap_or_default();
        if !topology::is_wanted(service) {
            notes.extend(known.keys().next().map(|family| {
                let message =
                    format!("Topology Aware Hints has been disabled, addressType: {family}");
                (EventType::Warning, NO_HINTS, message)
            }));
            return notes;
        }
        let mut next = BTreeMap::new();
        for (family, outcome) in spread {
            match outcome {
                Err(why) => {
                    let message = format!("{why}, addressType: {family}");
                    notes.push((EventType::Warning, NO_HINTS, message));
                }
                Ok(shares) => {
                    if known.is_empty() && next.is_empty() {
                        let message =
                            format!("Topology Aware Hints has been enabled, addressType: {family}");
                        let reason = "TopologyAwareHintsEnabled";
                        notes.push((EventType::Normal, reason, message));
                    }
                    next.insert(family, shares);
                }
            }
        }
        if !next.is_empty() {
            all.insert(key.clone(), next);
        }
        notes
    }

    /// Shows what the Service's slices were and are in the metrics.
    fn count(
        &self,
        key: &Key,
        service: &Service,
        before: &[Arc<EndpointSlice>],
        after: &[Arc<EndpointSlice>],
        failed: bool,
    ) {
        let spec = service.spec.as_ref();
        let (old, new) = (addresses(before), addresses(after));
        let added = new.difference(&old).count();
        metrics::endpoints_synced(added, old.difference(&new).count(), failed);
        let types: BTreeSet<&str> = after.iter().map(|slice| &*slice.address_type).collect();
        let shown = Slices {
            slices: after.len(),
            desired: new.len().div_ceil(MAX_ENDPOINTS).max(types.len()),
            endpoints: new.len(),
            distribution: spec
                .filter(|_| !topology::is_wanted(service))
                .and_then(|spec| spec.traffic_distribution.clone()),
        };
        let known = self.counted.lock().insert(key.clone(), shown.clone());
        metrics::slices(&known.unwrap_or_default(), &shown);
    }

    /// The node's zone, if it has one; `None` when there is no such node.
    fn zone(&self, node: &str) -> Option<Option<String>> {
        let node = self.nodes.get("", node)?;
        Some(node.labels().get(ZONE).cloned())
    }

    fn tell_failure(&self, service: &Arc<Service>, error: &Error) {
        if error.is_conflict() {
            return;
        }
        let message = format!(
            "Error updating Endpoint Slices for Service {}/{}: {error}",
            service.namespace().unwrap_or_default(),
            service.name_any(),
        );
        self.recorder.on(
            &**service,
            EventType::Warning,
            "FailedToUpdateEndpointSlices",
            message,
        );
    }

    async fn apply(&self, key: &Key, action: Action) -> Result<(), Error> {
        metrics::slice_changed(match &action {
            Action::Create(_) => "create",
            Action::Update(_) => "update",
            Action::Delete(_) => "delete",
        });
        match action {
            Action::Create(slice) => match self.slices.create(&slice).await {
                Ok(_) => Ok(()),
                Err(error) if error::is_namespace_terminating(&error) => Ok(()),
                Err(error) => Err(Error::doing(format!(
                    "failed to create EndpointSlice for Service {key}"
                ))(error)),
            },
            Action::Update(slice) => {
                let name = slice.name_any();
                let updated = self.slices.replace(&slice).await;
                updated.map_err(Error::doing(format!(
                    "failed to update {name} EndpointSlice for Service {key}"
                )))?;
                Ok(())
            }
            Action::Delete(slice) => {
                let deleted = self.slices.delete(&slice, DeleteParams::default()).await;
                deleted.map_err(Error::doing(format!(
                    "failed to delete {} EndpointSlice for Service {key}",
                    slice.name_any()
                )))?;
                Ok(())
            }
        }
    }
}

/// The slices as they will be when these actions are done.
fn after(before: &[Arc<EndpointSlice>], actions: &[Action]) -> Vec<Arc<EndpointSlice>> {
    let mut slices = before.to_vec();
    for action in actions {
        let of = |slice: &EndpointSlice| slice.name_any();
        match action {
            Action::Create(slice) => slices.push(Arc::new(slice.clone())),
            Action::Update(new) => {
                if let Some(old) = slices.iter_mut().find(|old| of(old) == of(new)) {
                    *old = Arc::new(new.clone());
                }
            }
            Action::Delete(gone) => slices.retain(|slice| of(slice) != of(gone)),
        }
    }
    slices
}

fn addresses(slices: &[Arc<EndpointSlice>]) -> BTreeSet<&str> {
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    let first = endpoints.filter_map(|endpoint| endpoint.addresses.first());
    first.map(String::as_str).collect()
}
