//! The endpoints of a Service port, and which of them take which traffic: upstream's rules for
//! terminating endpoints, traffic policies and topology hints (`pkg/proxy/topology.go`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::{
    core::v1::ServicePort,
    discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice},
};

use crate::model::{Family, Protocol};

/// This node, as far as traffic is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub node: String,
    pub zone: String,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
}

/// One address and port behind a Service port.
#[derive(Clone, Debug)]
pub struct Endpoint<'a> {
    pub to: SocketAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub is_local: bool,
    source: &'a SliceEndpoint,
}

impl Endpoint<'_> {
    fn is_last_resort(&self) -> bool {
        self.serving && self.terminating
    }

    fn hints_node(&self, node: &str) -> Option<bool> {
        let hints = self.source.hints.as_ref()?.for_nodes.as_ref()?;
        (!hints.is_empty()).then(|| hints.iter().any(|hint| hint.name == node))
    }

    fn hints_zone(&self, zone: &str) -> Option<bool> {
        let hints = self.source.hints.as_ref()?.for_zones.as_ref()?;
        (!hints.is_empty()).then(|| hints.iter().any(|hint| hint.name == zone))
    }
}

/// The endpoints of one port in one family, by address; none twice.
pub fn of_port<'a>(
    slices: &[&'a EndpointSlice],
    port: &ServicePort,
    family: Family,
    place: &Place,
) -> Vec<Endpoint<'a>> {
    let address_type = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let protocol = Protocol::parse(port.protocol.as_deref());
    let mut endpoints = BTreeMap::new();
    for slice in slices.iter().filter(|of| of.address_type == address_type) {
        let ports = slice.ports.iter().flatten().filter(|of| {
            name(&of.name) == name(&port.name)
                && Protocol::parse(of.protocol.as_deref()) == protocol
        });
        for number in ports.filter_map(|of| u16::try_from(of.port?).ok()) {
            for source in slice.endpoints.iter().flatten() {
                if let Some(endpoint) = endpoint(source, number, place) {
                    endpoints.insert(endpoint.to, endpoint);
                }
            }
        }
    }
    endpoints.into_values().collect()
}

fn endpoint<'a>(source: &'a SliceEndpoint, port: u16, place: &Place) -> Option<Endpoint<'a>> {
    // All addresses of an endpoint are the same endpoint's; upstream uses the first.
    let address: IpAddr = source.addresses.first()?.parse().ok()?;
    let conditions = source.conditions.as_ref();
    Some(Endpoint {
        to: (address, port).into(),
        ready: conditions.and_then(|of| of.ready).unwrap_or(true),
        serving: conditions.and_then(|of| of.serving).unwrap_or(true),
        terminating: conditions.and_then(|of| of.terminating).unwrap_or(false),
        is_local: source.node_name.as_deref() == Some(place.node.as_str()),
        source,
    })
}

/// Which policies a Service port follows.
#[derive(Clone, Copy, Debug)]
pub struct Policies {
    pub internal_local: bool,
    pub external_local: bool,
    /// Whether anything outside the cluster can reach the port.
    pub is_external: bool,
}

impl Policies {
    /// Pods and the node itself reach all endpoints by an external address, whatever its policy.
    fn uses_cluster(self) -> bool {
        !self.internal_local || self.is_external
    }

    fn uses_local(self) -> bool {
        self.internal_local || (self.external_local && self.is_external)
    }
}

/// The endpoints of a port sorted by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Categories {
    /// For traffic that may go to any node.
    pub cluster: Vec<SocketAddr>,
    /// For traffic that has to stay on this node.
    pub local: Vec<SocketAddr>,
    /// Whether there is a usable endpoint on any node.
    pub any: bool,
}

/// Sorts the endpoints. Where no ready endpoint is left, those that still serve while they
/// terminate take the traffic.
pub fn categorize(endpoints: &[Endpoint<'_>], policies: Policies, place: &Place) -> Categories {
    let select = |wanted: &dyn Fn(&Endpoint<'_>) -> bool| -> Vec<SocketAddr> {
        let selected = endpoints.iter().filter(|endpoint| wanted(endpoint));
        selected.map(|endpoint| endpoint.to).collect()
    };
    let mut categories = Categories::default();
    if policies.uses_cluster() {
        let topology = topology(endpoints, place);
        categories.cluster = select(&|of| of.ready && available(of, topology, place));
        if categories.cluster.is_empty() {
            categories.cluster = select(&|of| of.is_last_resort());
        }
        categories.any = !categories.cluster.is_empty();
    }
    if policies.uses_local() {
        categories.local = select(&|of| of.is_local && of.ready);
        if categories.local.is_empty() {
            categories.local = select(&|of| of.is_local && of.is_last_resort());
        }
        categories.any |= endpoints.iter().any(|of| of.ready || of.is_last_resort());
    }
    categories
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Any,
    SameNode,
    SameZone,
}

/// Hints are followed only if every ready endpoint has one, and one is for here.
fn topology(endpoints: &[Endpoint<'_>], place: &Place) -> Topology {
    let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
    let followed = |hint: &dyn Fn(&Endpoint<'_>) -> Option<bool>| {
        let hints: Option<Vec<bool>> = ready().map(hint).collect();
        hints.is_some_and(|hints| hints.contains(&true))
    };
    if followed(&|of| of.hints_node(&place.node)) {
        Topology::SameNode
    } else if !place.zone.is_empty() && followed(&|of| of.hints_zone(&place.zone)) {
        Topology::SameZone
    } else {
        Topology::Any
    }
}

fn available(endpoint: &Endpoint<'_>, topology: Topology, place: &Place) -> bool {
    match topology {
        Topology::Any => true,
        Topology::SameNode => endpoint.hints_node(&place.node) == Some(true),
        Topology::SameZone => endpoint.hints_zone(&place.zone) == Some(true),
    }
}

/// The number of this node's addresses with a ready endpoint: what a load balancer weighs.
pub fn local_ready(
    slices: &[&EndpointSlice],
    ports: &[ServicePort],
    family: Family,
    place: &Place,
) -> usize {
    let mut addresses = BTreeSet::new();
    for port in ports {
        let endpoints = of_port(slices, port, family, place);
        let ready = endpoints.iter().filter(|of| of.ready && of.is_local);
        addresses.extend(ready.map(|of| of.to.ip()));
    }
    addresses.len()
}
