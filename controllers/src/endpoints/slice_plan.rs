//! Which EndpointSlices a Service needs: a pure function of its pods and of the slices there are.
//!
//! Enter at [`plan`]. As few slices as possible are written, each change to an endpoint in place.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Pod, Service},
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode,
            ForZone,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;

use super::{
    HEADLESS, cluster_ip, is_headless, pod, publishes_not_ready,
    slices::{self, EndpointKey, MANAGED_BY, PortKey, SERVICE_NAME, Set},
    topology::{self, Part, Shares, Zones},
    trigger::LAST_CHANGE,
};
use crate::{labels::Labels, owner, pods};

pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The most endpoints in one slice.
pub(super) const MAX_ENDPOINTS: usize = 100;

/// What the caches show.
pub(super) struct World<'a> {
    pub service: &'a Service,
    /// The pods that the Service selects.
    pub pods: Vec<Arc<Pod>>,
    /// The zone of a node, if it is known; `None` when the node is not.
    pub zone: &'a dyn Fn(&str) -> Option<Option<String>>,
    /// The slices of the Service that this controller manages.
    pub slices: Vec<Arc<EndpointSlice>>,
    pub trigger: Option<Timestamp>,
    /// `None` when too little is known of the nodes.
    pub zones: Option<&'a Zones>,
}

/// One write.
#[derive(Debug)]
pub(super) enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(Arc<EndpointSlice>),
}

/// The writes, and the pods that had to be left out, with the reason.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub actions: Vec<Action>,
    pub skipped: Vec<String>,
    /// For a Service that asks for it, by address type: how its endpoints are spread over the
    /// zones, or why they are not.
    pub spread: BTreeMap<&'static str, Result<Shares, String>>,
}

pub(super) fn plan(world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    let families = families(world.service);
    for family in &families {
        let existing = world.slices.iter();
        let existing = existing
            .filter(|slice| slice.address_type == family.name())
            .cloned()
            .collect();
        let mut drafts = Drafts::default();
        drafts.reconcile(world, *family, existing, &mut plan.skipped);
        if topology::is_wanted(world.service) {
            plan.spread
                .insert(family.name(), drafts.spread(world.zones));
        } else {
            drafts.hint(world.service);
        }
        drafts.finish(world, &mut plan.actions);
    }
    for slice in &world.slices {
        let wanted = families
            .iter()
            .any(|family| slice.address_type == family.name());
        if !wanted {
            plan.actions.push(Action::Delete(slice.clone()));
        }
    }
    plan
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv6() == (self == Family::V6)
    }
}

fn families(service: &Service) -> BTreeSet<Family> {
    let listed = service.spec.iter().flat_map(|spec| &spec.ip_families);
    let families: BTreeSet<Family> = listed
        .flatten()
        .filter_map(|name| match name.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if !families.is_empty() {
        return families;
    }
    match cluster_ip(service).parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => [Family::V4].into(),
        Ok(IpAddr::V6(_)) => [Family::V6].into(),
        Err(_) => [Family::V4, Family::V6].into(),
    }
}

/// A slice as it will be.
#[derive(Debug)]
struct Draft {
    /// What it is now; `None` for a new one.
    known: Option<Arc<EndpointSlice>>,
    endpoints: Vec<Endpoint>,
    ports: Vec<EndpointPort>,
    changed: bool,
}

/// The slices of one address family.
#[derive(Debug, Default)]
struct Drafts {
    family: Option<Family>,
    kept: Vec<Draft>,
    removed: Vec<Arc<EndpointSlice>>,
}

impl Drafts {
    fn reconcile(
        &mut self,
        world: &World<'_>,
        family: Family,
        existing: Vec<Arc<EndpointSlice>>,
        skipped: &mut Vec<String>,
    ) {
        self.family = Some(family);
        let count = existing.len();
        let mut by_ports: BTreeMap<PortKey, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in existing {
            if is_owned_by(&slice, world.service) {
                let key = PortKey::of_slice(&slice);
                by_ports.entry(key).or_default().push(slice);
            } else {
                self.removed.push(slice);
            }
        }
        for (key, (ports, desired)) in desired(world, family, skipped) {
            let slices = by_ports.remove(&key).unwrap_or_default();
            self.reconcile_ports(world.service, slices, &ports, desired);
        }
        self.removed.extend(by_ports.into_values().flatten());
        // Without endpoints there is one empty slice, so that watchers know of the Service.
        let created = self.kept.iter().any(|draft| draft.known.is_none());
        if self.removed.len() == count && !created {
            let placeholder = match &self.removed[..] {
                [one] => is_placeholder(one, world.service),
                _ => false,
            };
            if placeholder {
                self.removed.clear();
            } else {
                self.kept.push(Draft {
                    known: None,
                    endpoints: Vec::new(),
                    ports: Vec::new(),
                    changed: true,
                });
            }
        }
    }

    /// Puts the endpoints that have these ports into the slices that have them too, and into new
    /// ones as needed.
    fn reconcile_ports(
        &mut self,
        service: &Service,
        existing: Vec<Arc<EndpointSlice>>,
        ports: &[EndpointPort],
        mut desired: Set,
    ) {
        let mut drafts = Vec::new();
        for slice in existing {
            let mut changed = slices::own_labels(slice.metadata.labels.as_ref())
                != slices::own_labels(service.metadata.labels.as_ref());
            let mut endpoints = Vec::new();
            for endpoint in slices::endpoints(&slice) {
                match desired.remove(&EndpointKey::of(endpoint)) {
                    Some(wanted) => {
                        changed |= !slices::same_state(&wanted, endpoint);
                        endpoints.push(Endpoint {
                            hints: endpoint.hints.clone(),
                            ..wanted
                        });
                    }
                    None => changed = true,
                }
            }
            if endpoints.is_empty() && !slices::endpoints(&slice).is_empty() {
                self.removed.push(slice);
                continue;
            }
            drafts.push(Draft {
                ports: slice.ports.clone().unwrap_or_default(),
                known: Some(slice),
                endpoints,
                changed,
            });
        }
        // Those written anyway take what is new first, the fullest before the others.
        let mut written: Vec<usize> = (0..drafts.len())
            .filter(|index| drafts[*index].changed)
            .collect();
        written.sort_by_key(|index| std::cmp::Reverse(drafts[*index].endpoints.len()));
        for index in written {
            fill(&mut drafts[index], &mut desired);
        }
        while !desired.is_empty() {
            let index = room_for(&drafts, desired.len()).unwrap_or_else(|| {
                drafts.push(Draft {
                    known: None,
                    endpoints: Vec::new(),
                    ports: ports.to_vec(),
                    changed: true,
                });
                drafts.len() - 1
            });
            drafts[index].changed = true;
            fill(&mut drafts[index], &mut desired);
        }
        self.kept.extend(drafts);
    }

    fn spread(&mut self, zones: Option<&Zones>) -> Result<Shares, String> {
        let parts = self.kept.iter_mut().map(|draft| Part {
            endpoints: &mut draft.endpoints,
            changed: &mut draft.changed,
        });
        topology::spread(&mut parts.collect::<Vec<_>>(), zones)
    }

    fn hint(&mut self, service: &Service) {
        for draft in &mut self.kept {
            draft.changed |= hint(&mut draft.endpoints, service);
        }
    }

    fn finish(mut self, world: &World<'_>, actions: &mut Vec<Action>) {
        let service = world.service;
        let (new, old): (Vec<Draft>, Vec<Draft>) = self
            .kept
            .into_iter()
            .partition(|draft| draft.known.is_none());
        let mut creations = Vec::new();
        let mut updates: Vec<Draft> = old.into_iter().filter(|draft| draft.changed).collect();
        // A slice that would go is turned into one that would come.
        for mut draft in new {
            let place = self
                .removed
                .iter()
                .position(|slice| is_owned_by(slice, service));
            match place {
                Some(place) => {
                    draft.known = Some(self.removed.remove(place));
                    updates.push(draft);
                }
                None => creations.push(draft),
            }
        }
        let family = self.family.map_or("IPv4", Family::name);
        if service.metadata.deletion_timestamp.is_none() {
            let created = creations.into_iter();
            actions.extend(created.map(|draft| Action::Create(draft.into_slice(world, family))));
        }
        let updated = updates.into_iter();
        actions.extend(updated.map(|draft| Action::Update(draft.into_slice(world, family))));
        actions.extend(self.removed.into_iter().map(Action::Delete));
    }
}

impl Draft {
    fn into_slice(self, world: &World<'_>, family: &str) -> EndpointSlice {
        let service = world.service;
        let mut metadata = match &self.known {
            Some(known) => known.metadata.clone(),
            None => ObjectMeta {
                generate_name: Some(slices::name_prefix(&service.name_any())),
                namespace: service.namespace(),
                owner_references: Some(vec![owner::controller_reference(service)]),
                ..ObjectMeta::default()
            },
        };
        metadata.labels = Some(labels(service));
        let annotations = metadata.annotations.get_or_insert_default();
        match world.trigger {
            Some(at) => annotations.insert(LAST_CHANGE.to_owned(), at.to_string()),
            None => annotations.remove(LAST_CHANGE),
        };
        if annotations.is_empty() {
            metadata.annotations = None;
        }
        EndpointSlice {
            metadata,
            address_type: family.to_owned(),
            endpoints: Some(self.endpoints),
            ports: Some(self.ports),
        }
    }
}

fn fill(draft: &mut Draft, desired: &mut Set) {
    while draft.endpoints.len() < MAX_ENDPOINTS {
        let Some((_, endpoint)) = desired.pop_first() else {
            return;
        };
        draft.endpoints.push(endpoint);
    }
}

/// The untouched slice that so many endpoints fill best without overflowing.
fn room_for(drafts: &[Draft], count: usize) -> Option<usize> {
    let candidates = drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| !draft.changed && draft.endpoints.len() + count <= MAX_ENDPOINTS);
    candidates
        .max_by_key(|(index, draft)| (draft.endpoints.len(), std::cmp::Reverse(*index)))
        .filter(|_| count < MAX_ENDPOINTS)
        .map(|(index, _)| index)
}

/// The endpoints there should be, by their ports.
fn desired(
    world: &World<'_>,
    family: Family,
    skipped: &mut Vec<String>,
) -> BTreeMap<PortKey, (Vec<EndpointPort>, Set)> {
    let service = world.service;
    let mut desired: BTreeMap<PortKey, (Vec<EndpointPort>, Set)> = BTreeMap::new();
    for pod in &world.pods {
        if !pod::is_endpoint(pod, true) {
            continue;
        }
        let ports = ports(service, pod);
        let (_, set) = desired
            .entry(PortKey::of(&ports))
            .or_insert_with(|| (ports, Set::new()));
        let node = pods::node_name(pod);
        let zone = match (world.zone)(node) {
            Some(zone) => zone,
            None if publishes_not_ready(service) => None,
            None => {
                skipped.push(format!(
                    "skipping Pod {} for Service {}/{}: Node {node} Not Found",
                    pod.name_any(),
                    service.namespace().unwrap_or_default(),
                    service.name_any(),
                ));
                continue;
            }
        };
        let endpoint = endpoint(service, pod, zone, family);
        if !endpoint.addresses.is_empty() {
            set.insert(EndpointKey::of(&endpoint), endpoint);
        }
    }
    desired
}

fn endpoint(service: &Service, pod: &Pod, zone: Option<String>, family: Family) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let addresses = pod::addresses(pod).into_iter();
    let node = pods::node_name(pod);
    Endpoint {
        addresses: addresses
            .filter(|address| family.has(address))
            .map(|address| address.to_string())
            .collect(),
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pod::hostname(pod, service),
        node_name: (!node.is_empty()).then(|| node.to_owned()),
        target_ref: Some(pod::reference(pod)),
        zone: zone.filter(|zone| !zone.is_empty()),
        ..Endpoint::default()
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| &spec.ports).flatten();
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(pod::target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn labels(service: &Service) -> Labels {
    let mut labels = slices::own_labels(service.metadata.labels.as_ref());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn is_owned_by(slice: &EndpointSlice, service: &Service) -> bool {
    slice.owner_references().iter().any(|owner| {
        Some(&owner.uid) == service.metadata.uid.as_ref()
            && owner.kind == "Service"
            && owner.api_version == "v1"
    })
}

fn is_placeholder(slice: &EndpointSlice, service: &Service) -> bool {
    slices::endpoints(slice).is_empty()
        && slice.ports.as_ref().is_none_or(Vec::is_empty)
        && slice.metadata.labels.as_ref() == Some(&labels(service))
}

/// Gives the endpoints the hints that the Service's traffic distribution asks for. Returns whether
/// any changed.
fn hint(endpoints: &mut [Endpoint], service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let distribution = spec.and_then(|spec| spec.traffic_distribution.as_deref());
    let (zones, nodes) = match distribution {
        Some("PreferClose" | "PreferSameZone") => (true, false),
        Some("PreferSameNode") => (true, true),
        _ => (false, false),
    };
    let mut changed = false;
    for endpoint in endpoints {
        let ready = endpoint
            .conditions
            .as_ref()
            .is_some_and(|conditions| conditions.ready == Some(true));
        if zones && !ready {
            continue;
        }
        let for_zones = endpoint.zone.clone().filter(|_| zones);
        let for_nodes = endpoint.node_name.clone().filter(|_| nodes);
        let hints = (for_zones.is_some() || for_nodes.is_some()).then(|| EndpointHints {
            for_zones: for_zones.map(|name| vec![ForZone { name }]),
            for_nodes: for_nodes.map(|name| vec![ForNode { name }]),
        });
        if endpoint.hints != hints {
            endpoint.hints = hints;
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
#[path = "slice_plan_tests.rs"]
mod tests;
