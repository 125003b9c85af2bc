//! From a Service and its EndpointSlices to what the kernel is to hold: a pure function.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::EndpointSlice,
};

use crate::{
    endpoints::{self, Categories, Endpoint, Place, Policies},
    model::{
        Desired, Dispatch, Family, Frontend, Group, HealthCheck, Key, List, Protocol, Refusal,
        Target, Value,
    },
};

/// Whoever labels an object so serves it by other means.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_TIMEOUT: i32 = 10800;

/// Whether these labels leave an object to another proxy, or to none.
pub fn is_ignored(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(OTHER_PROXY) || labels.contains_key(HEADLESS))
}

/// What the kernel is to hold for the Service on this node.
pub fn desired(service: &Service, slices: &[&EndpointSlice], place: &Place) -> Desired {
    let mut desired = Desired::default();
    let Some(spec) = service.spec.as_ref() else {
        return desired;
    };
    if is_ignored(&service.metadata) || spec.type_.as_deref() == Some("ExternalName") {
        return desired;
    }
    for address in cluster_ips(spec) {
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else {
                continue;
            };
            let Ok(number) = u16::try_from(port.port) else {
                continue;
            };
            let frontend = Frontend {
                family: Family::of(address),
                address: Some(address),
                protocol,
                port: number,
            };
            let mut builder = Builder::new(&mut desired, service, spec, port, frontend, place);
            builder.port(slices);
        }
    }
    if let Some(port) = health_check_port(spec) {
        let ports = spec.ports.as_deref().unwrap_or_default();
        let mut endpoints = [None, None];
        for family in cluster_ips(spec).into_iter().map(Family::of) {
            let ready = endpoints::local_ready(slices, ports, family, place);
            endpoints[family.index()] = Some(ready);
        }
        desired.health_check = Some(HealthCheck { port, endpoints });
    }
    desired
}

/// One address of each family at most; none for a headless Service.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let all = spec.cluster_ips.iter().flatten();
    let first = spec.cluster_ip.iter();
    let mut found: Vec<IpAddr> = Vec::new();
    for address in all.chain(first).filter_map(|text| text.parse().ok()) {
        let family = Family::of(address);
        if !found.iter().any(|known| Family::of(*known) == family) {
            found.push(address);
        }
    }
    found
}

fn health_check_port(spec: &ServiceSpec) -> Option<u16> {
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let port = spec.health_check_node_port.filter(|port| *port != 0)?;
    (is_balanced && is_local(&spec.external_traffic_policy)).then(|| u16::try_from(port).ok())?
}

fn is_local(policy: &Option<String>) -> bool {
    policy.as_deref() == Some("Local")
}

/// The rules of one Service port in one family.
struct Builder<'a> {
    desired: &'a mut Desired,
    service: &'a Service,
    spec: &'a ServiceSpec,
    port: &'a ServicePort,
    /// At the cluster IP.
    frontend: Frontend,
    place: &'a Place,
    policies: Policies,
    external: Vec<IpAddr>,
    balanced: Vec<IpAddr>,
    node_port: Option<u16>,
}

impl<'a> Builder<'a> {
    fn new(
        desired: &'a mut Desired,
        service: &'a Service,
        spec: &'a ServiceSpec,
        port: &'a ServicePort,
        frontend: Frontend,
        place: &'a Place,
    ) -> Self {
        let of_family = |address: &IpAddr| Family::of(*address) == frontend.family;
        let external: Vec<IpAddr> = spec
            .external_ips
            .iter()
            .flatten()
            .filter_map(|text| text.parse().ok())
            .filter(of_family)
            .collect();
        let mut balanced = load_balancer_ips(service);
        balanced.retain(of_family);
        let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
        let node_port = port.node_port.filter(|port| has_node_ports && *port != 0);
        let node_port = node_port.and_then(|port| u16::try_from(port).ok());
        Builder {
            policies: Policies {
                internal_local: is_local(&spec.internal_traffic_policy),
                external_local: is_local(&spec.external_traffic_policy),
                is_external: node_port.is_some() || !external.is_empty() || !balanced.is_empty(),
            },
            desired,
            service,
            spec,
            port,
            frontend,
            place,
            external,
            balanced,
            node_port,
        }
    }

    fn port(&mut self, slices: &[&EndpointSlice]) {
        let endpoints = endpoints::of_port(slices, self.port, self.frontend.family, self.place);
        let categories = endpoints::categorize(&endpoints, self.policies, self.place);
        let group = self.affinity(&categories);
        if let Some(address) = self.frontend.address {
            self.desired
                .elements
                .insert(Key::ClusterIp(address), Value::None);
        }
        self.hairpin(&endpoints, &categories);
        self.internal(&categories, group);
        let at = |address: Option<IpAddr>, port: u16| Frontend {
            address,
            port,
            ..self.frontend
        };
        let addresses = self.external.iter().chain(&self.balanced);
        let mut frontends: Vec<Frontend> = addresses
            .map(|address| at(Some(*address), self.frontend.port))
            .collect();
        frontends.extend(self.node_port.map(|port| at(None, port)));
        for frontend in &frontends {
            self.external(*frontend, &categories, group);
        }
        self.firewall();
        if self.frontend.protocol == Protocol::Udp {
            frontends.push(self.frontend);
            self.serving(&frontends, &endpoints);
        }
        if self.policies.is_external
            && self.policies.external_local
            && categories.any
            && categories.local.is_empty()
        {
            self.desired.without_local.external += 1;
        }
    }

    fn affinity(&mut self, categories: &Categories) -> Option<u64> {
        if self.spec.session_affinity.as_deref() != Some("ClientIP") || !categories.any {
            return None;
        }
        let config = self.spec.session_affinity_config.as_ref();
        let timeout = config
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .unwrap_or(AFFINITY_TIMEOUT);
        let metadata = &self.service.metadata;
        let identity = fnv(&[
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
            self.port.name.as_deref().unwrap_or_default(),
            &self.frontend.protocol.to_string(),
            &self.frontend.family.to_string(),
        ]);
        let group = Group {
            family: self.frontend.family,
            protocol: self.frontend.protocol,
            timeout: u32::try_from(timeout).unwrap_or(AFFINITY_TIMEOUT as u32),
            cluster: categories.cluster.clone(),
            local: categories.local.clone(),
        };
        self.desired.groups.insert(identity, group);
        Some(identity)
    }

    fn hairpin(&mut self, endpoints: &[Endpoint<'_>], categories: &Categories) {
        let used =
            |to: &SocketAddr| categories.cluster.contains(to) || categories.local.contains(to);
        for endpoint in endpoints.iter().filter(|of| of.is_local && used(&of.to)) {
            let key = Key::Hairpin(endpoint.to.ip());
            self.desired.elements.insert(key, Value::None);
        }
    }

    /// Traffic to the cluster IP.
    fn internal(&mut self, categories: &Categories, group: Option<u64>) {
        let local = self.policies.internal_local;
        let list = if local {
            &categories.local
        } else {
            &categories.cluster
        };
        // The one list of this frontend is its first, whichever endpoints are in it.
        match self.target(
            self.frontend,
            false,
            list,
            group.map(|group| (group, local)),
        ) {
            Some(target) => {
                let value = Value::Dispatch(Dispatch::Internal(target));
                let key = Key::Service(self.frontend);
                self.desired.elements.insert(key, value);
            }
            None => {
                self.desired.without_local.internal += u32::from(categories.any);
                self.refuse(self.frontend, categories);
            }
        }
    }

    /// Traffic to a node port, an external address or a load balancer's.
    fn external(&mut self, frontend: Frontend, categories: &Categories, group: Option<u64>) {
        let sticky = |local| group.map(|group| (group, local));
        let cluster = self.target(frontend, false, &categories.cluster, sticky(false));
        let dispatch = if self.policies.external_local {
            let local = self.target(frontend, true, &categories.local, sticky(true));
            if local.is_none() {
                self.refuse(frontend, categories);
            }
            (cluster.is_some() || local.is_some())
                .then_some(Dispatch::ExternalLocal { cluster, local })
        } else {
            if cluster.is_none() {
                self.refuse(frontend, categories);
            }
            cluster.map(Dispatch::External)
        };
        if let Some(dispatch) = dispatch {
            let key = Key::Service(frontend);
            self.desired.elements.insert(key, Value::Dispatch(dispatch));
        }
    }

    /// Where to choose from the endpoints, which are put in the frontend's list for it.
    fn target(
        &mut self,
        frontend: Frontend,
        local: bool,
        endpoints: &[SocketAddr],
        sticky: Option<(u64, bool)>,
    ) -> Option<Target> {
        if endpoints.is_empty() {
            return None;
        }
        if let Some((group, local)) = sticky {
            return Some(Target::Sticky { group, local });
        }
        let list = List { frontend, local };
        self.desired.lists.insert(list, endpoints.to_vec());
        Some(Target::Random {
            family: frontend.family,
            protocol: frontend.protocol,
            node_port: frontend.address.is_none(),
            local,
            count: endpoints.len() as u32,
        })
    }

    fn refuse(&mut self, frontend: Frontend, categories: &Categories) {
        let refusal = if categories.any {
            Refusal::Drop
        } else {
            Refusal::Reject
        };
        let key = Key::Refused(frontend);
        self.desired.elements.insert(key, Value::Refuse(refusal));
    }

    /// Who may come through a load balancer.
    fn firewall(&mut self) {
        let ranges = self.spec.load_balancer_source_ranges.iter().flatten();
        let family = self.frontend.family;
        let all: Vec<IpNet> = ranges
            .filter_map(|text| text.trim().parse::<IpNet>().ok())
            .collect();
        if all.is_empty() {
            return;
        }
        let mut allowed: Vec<IpNet> = all
            .into_iter()
            .filter(|range| Family::of(range.addr()) == family)
            .collect();
        let own = self.place.addresses.iter();
        let from_node = own
            .clone()
            .any(|own| allowed.iter().any(|range| range.contains(own)));
        if from_node {
            // A balancer's address is often also one of the node's, and then is the source of
            // the node's own requests to it.
            allowed.extend(self.balanced.iter().map(|address| IpNet::from(*address)));
        }
        for address in &self.balanced {
            let frontend = Frontend {
                address: Some(*address),
                ..self.frontend
            };
            self.desired
                .elements
                .insert(Key::Firewalled(frontend), Value::None);
            // Ranges within ranges are no good in a set.
            for range in IpNet::aggregate(&allowed) {
                let key = Key::Allowed(frontend, range.trunc());
                self.desired.elements.insert(key, Value::None);
            }
        }
    }

    fn serving(&mut self, frontends: &[Frontend], endpoints: &[Endpoint<'_>]) {
        let serving: Vec<SocketAddr> = endpoints
            .iter()
            .filter(|endpoint| endpoint.serving)
            .map(|endpoint| endpoint.to)
            .collect();
        if serving.is_empty() {
            return;
        }
        for frontend in frontends {
            self.desired.serving.insert(*frontend, serving.clone());
        }
    }
}

/// The balancer's addresses that this proxy answers for: those of a balancer that passes packets
/// on with their destination unchanged.
fn load_balancer_ips(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .collect()
}

/// FNV-1a over the parts and their borders: the same on every start.
pub fn fnv(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
