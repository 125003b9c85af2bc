//! What is known of the API, and which Services have changed since the kernel was last told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use coracle_client::{Change, Changes, Informer, Informers};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt as _;

use crate::{
    Config, Error,
    desired::{desired, is_ignored},
    endpoints::Place,
    metrics,
    world::{ServiceName, World},
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The changes as they come from the informers.
pub struct Events {
    services: Changes<Service>,
    slices: Changes<EndpointSlice>,
    nodes: Changes<Node>,
}

impl Events {
    /// Changes from now on.
    pub fn of(state: &State) -> Self {
        Events {
            services: state.services.subscribe(),
            slices: state.slices.subscribe(),
            nodes: state.nodes.subscribe(),
        }
    }

    /// Waits for changes that matter, and takes all that there are.
    pub async fn gather(&mut self, config: &Config, state: &mut State) -> Result<(), Error> {
        while state.dirty.is_empty() {
            self.take(config, state).await?;
        }
        // What is there already comes along; a future that has to wait ends it.
        loop {
            let more = self.take(config, state);
            tokio::select! {
                biased;
                more = more => more?,
                () = std::future::ready(()) => break,
            }
        }
        state.queued();
        Ok(())
    }

    async fn take(&mut self, config: &Config, state: &mut State) -> Result<(), Error> {
        tokio::select! {
            change = self.services.next() => state.service(change.ok_or(Error::Informers)?, config),
            change = self.slices.next() => state.slice(change.ok_or(Error::Informers)?, config),
            change = self.nodes.next() => state.node(&change.ok_or(Error::Informers)?, config),
        }
        Ok(())
    }
}

/// What is known of the API, and of what the kernel was told.
pub struct State {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    by_service: HashMap<ServiceName, BTreeMap<String, Arc<EndpointSlice>>>,
    place: Place,
    pub world: World,
    dirty: BTreeSet<ServiceName>,
    /// When the changes of endpoints under way began.
    triggers: Vec<Timestamp>,
}

impl State {
    pub fn new(informers: &Informers) -> Self {
        State {
            services: informers.get(),
            slices: informers.get(),
            nodes: informers.get(),
            by_service: HashMap::new(),
            place: Place::default(),
            world: World::default(),
            dirty: BTreeSet::new(),
            triggers: Vec::new(),
        }
    }

    /// Returns once everything is known that there is.
    pub async fn informed(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.nodes.synced().await;
    }

    pub fn look_at_everything(&mut self, config: &Config) {
        self.by_service.clear();
        for slice in self.slices.list() {
            if let Some(name) = service_of(&slice) {
                let slices = self.by_service.entry(name).or_default();
                slices.insert(slice.name_any(), slice);
            }
        }
        self.place = place(config, self.nodes.get("", &config.node_name).as_deref());
        self.all_are_dirty();
    }

    fn all_are_dirty(&mut self) {
        let known = self.services.list();
        self.dirty
            .extend(known.iter().map(|service| name_of(&**service)));
        self.dirty.extend(self.world.names().cloned());
    }

    fn service(&mut self, change: Change<Service>, config: &Config) {
        match change {
            Change::Applied { new: service, .. } | Change::Deleted(service) => {
                metrics::service_changed();
                self.dirty.insert(name_of(&*service));
            }
            Change::Lagged => self.look_at_everything(config),
        }
    }

    fn slice(&mut self, change: Change<EndpointSlice>, config: &Config) {
        let (old, new) = match change {
            Change::Applied { old, new } => (old, Some(new)),
            Change::Deleted(old) => (Some(old), None),
            Change::Lagged => return self.look_at_everything(config),
        };
        metrics::endpoints_changed();
        if let Some(old) = old
            && let Some(name) = service_of(&old)
            && let Some(slices) = self.by_service.get_mut(&name)
        {
            slices.remove(&old.name_any());
            if slices.is_empty() {
                self.by_service.remove(&name);
            }
            self.dirty.insert(name);
        }
        if let Some(new) = new
            && let Some(name) = service_of(&new)
        {
            self.triggers.extend(trigger_time(&new));
            let slices = self.by_service.entry(name.clone()).or_default();
            slices.insert(new.name_any(), new);
            self.dirty.insert(name);
        }
    }

    fn node(&mut self, change: &Change<Node>, config: &Config) {
        let node = match change {
            Change::Applied { new, .. } => new,
            Change::Deleted(old) => old,
            Change::Lagged => return self.look_at_everything(config),
        };
        if node.name_any() != config.node_name {
            return;
        }
        // A heartbeat changes nothing of this.
        let place = place(config, Some(node));
        if place != self.place {
            self.place = place;
            self.all_are_dirty();
        }
    }

    /// Works out what the Services that changed want; returns which they were.
    pub fn settle(&mut self) -> BTreeSet<ServiceName> {
        let dirty = std::mem::take(&mut self.dirty);
        for name in &dirty {
            let desired = match self.services.get(&name.0, &name.1) {
                Some(service) => {
                    let slices = self.by_service.get(name);
                    let slices: Vec<&EndpointSlice> = slices
                        .into_iter()
                        .flat_map(|slices| slices.values().map(|slice| &**slice))
                        .collect();
                    desired(&service, &slices, &self.place)
                }
                None => Default::default(),
            };
            self.world.set(name, desired);
        }
        dirty
    }

    fn queued(&self) {
        let now = Timestamp::now().as_duration().as_secs_f64();
        metrics::queued(now);
    }

    /// The kernel is up to date.
    pub fn synced(&mut self, started: Instant) {
        let now = Timestamp::now();
        metrics::synced(now.as_duration().as_secs_f64(), started.elapsed());
        for trigger in self.triggers.drain(..) {
            let took = now.duration_since(trigger).as_secs_f64();
            metrics::programmed(took.max(0.0));
        }
        let without = self.world.without_local();
        metrics::without_local("internal", without.internal);
        metrics::without_local("external", without.external);
    }
}

fn name_of<K: kube::Resource<DynamicType = ()>>(object: &K) -> ServiceName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The Service whose endpoints the slice holds.
fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    if is_ignored(&slice.metadata) {
        return None;
    }
    let name = slice.labels().get(SERVICE_NAME)?;
    Some((slice.namespace().unwrap_or_default(), name.clone()))
}

fn trigger_time(slice: &EndpointSlice) -> Option<Timestamp> {
    slice.annotations().get(TRIGGER_TIME)?.parse().ok()
}

fn place(config: &Config, node: Option<&Node>) -> Place {
    let labels = node.and_then(|node| node.metadata.labels.as_ref());
    let zone = labels.and_then(|labels| labels.get(ZONE));
    let status = node.and_then(|node| node.status.as_ref());
    let known = status.and_then(|status| status.addresses.as_ref());
    let known = known
        .into_iter()
        .flatten()
        .filter_map(|of| of.address.parse::<IpAddr>().ok());
    let mut addresses = config.node_addresses.clone();
    addresses.extend(known);
    addresses.sort_unstable();
    addresses.dedup();
    Place {
        node: config.node_name.clone(),
        zone: zone.cloned().unwrap_or_default(),
        addresses,
    }
}
