//! What the names stand for: Services with their EndpointSlices, and the addresses of both.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    net::IpAddr,
    sync::Arc,
};

use coracle_client::{Change, Informer, Informers};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};
use parking_lot::RwLock;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// `(namespace, name)` of a Service.
type Key = (String, String);

/// A Service as DNS sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceNames {
    /// Empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// Set for a Service of type ExternalName.
    pub external_name: Option<String>,
    pub ports: Vec<Port>,
    /// The ready endpoints.
    pub endpoints: Vec<Ready>,
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    /// In lower case: `tcp`, `udp`, `sctp`.
    pub protocol: String,
    pub port: u16,
}

/// A ready endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub address: IpAddr,
    /// Its name below the Service's: the pod's host name, or the address with dashes.
    pub name: String,
    pub ports: Vec<Port>,
}

#[derive(Default)]
struct State {
    services: HashMap<Key, Arc<Service>>,
    slices: HashMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    names: HashMap<Key, Arc<ServiceNames>>,
    /// Every address, with the names below the zone that it has.
    addresses: HashMap<IpAddr, BTreeSet<String>>,
    namespaces: BTreeSet<String>,
}

/// The index. One writer follows the informers, many readers answer queries.
#[derive(Default)]
pub struct Index {
    state: RwLock<State>,
}

impl Index {
    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceNames>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.state.read().names.get(&key).cloned()
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.state.read().namespaces.contains(namespace)
    }

    /// The names of an address, below the cluster's zone: `web.default.svc`.
    pub fn names_of(&self, address: IpAddr) -> Vec<String> {
        let state = self.state.read();
        state
            .addresses
            .get(&address)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    pub fn apply_namespace(&self, name: &str) {
        self.state.write().namespaces.insert(name.to_owned());
    }

    pub fn delete_namespace(&self, name: &str) {
        self.state.write().namespaces.remove(name);
    }

    pub fn apply_service(&self, service: Arc<Service>) {
        let key = key(&service.metadata.namespace, &service.metadata.name);
        let mut state = self.state.write();
        state.services.insert(key.clone(), service);
        state.renew(key);
    }

    pub fn delete_service(&self, service: &Service) {
        let key = key(&service.metadata.namespace, &service.metadata.name);
        let mut state = self.state.write();
        state.services.remove(&key);
        state.renew(key);
    }

    pub fn apply_slice(&self, slice: Arc<EndpointSlice>) {
        let Some(service) = service_of(&slice) else {
            return;
        };
        let name = slice.metadata.name.clone().unwrap_or_default();
        let mut state = self.state.write();
        state
            .slices
            .entry(service.clone())
            .or_default()
            .insert(name, slice);
        state.renew(service);
    }

    pub fn delete_slice(&self, slice: &EndpointSlice) {
        let Some(service) = service_of(slice) else {
            return;
        };
        let mut state = self.state.write();
        if let Some(slices) = state.slices.get_mut(&service) {
            slices.remove(slice.metadata.name.as_deref().unwrap_or_default());
            if slices.is_empty() {
                state.slices.remove(&service);
            }
        }
        state.renew(service);
    }
}

impl State {
    /// Derives the names of one Service afresh.
    fn renew(&mut self, key: Key) {
        if let Some(old) = self.names.remove(&key) {
            for (address, name) in reverse(&key, &old) {
                if let Some(names) = self.addresses.get_mut(&address) {
                    names.remove(&name);
                    if names.is_empty() {
                        self.addresses.remove(&address);
                    }
                }
            }
        }
        let Some(service) = self.services.get(&key) else {
            return;
        };
        let slices = self.slices.get(&key).into_iter().flat_map(BTreeMap::values);
        let names = names(service, slices.map(Arc::as_ref));
        for (address, name) in reverse(&key, &names) {
            self.addresses.entry(address).or_default().insert(name);
        }
        self.names.insert(key, Arc::new(names));
    }
}

fn reverse(key: &Key, names: &ServiceNames) -> Vec<(IpAddr, String)> {
    let (namespace, name) = key;
    let service = format!("{name}.{namespace}.svc");
    let own = names
        .cluster_ips
        .iter()
        .map(|address| (*address, service.clone()));
    let endpoints = names
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.address, format!("{}.{service}", endpoint.name)));
    own.chain(endpoints).collect()
}

fn names<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> ServiceNames {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return ServiceNames {
            external_name: spec.external_name,
            ..ServiceNames::default()
        };
    }
    let ports = spec.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
        port: u16::try_from(port.port).unwrap_or_default(),
    });
    let cluster_ips = spec
        .cluster_ips
        .clone()
        .unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
    ServiceNames {
        cluster_ips: cluster_ips
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
        external_name: None,
        ports: ports.collect(),
        endpoints: slices.flat_map(ready_endpoints).collect(),
    }
}

fn ready_endpoints(slice: &EndpointSlice) -> impl Iterator<Item = Ready> {
    let ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            port: port
                .port
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or_default(),
        })
        .collect();
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| is_ready(endpoint))
        .flat_map(move |endpoint| {
            let ports = ports.clone();
            endpoint.addresses.iter().filter_map(move |text| {
                Some(Ready {
                    address: text.parse().ok()?,
                    name: endpoint
                        .hostname
                        .clone()
                        .filter(|name| !name.is_empty())
                        .unwrap_or_else(|| text.replace(['.', ':'], "-")),
                    ports: ports.clone(),
                })
            })
        })
}

/// `ready` unset means ready, as the API says.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

fn key(namespace: &Option<String>, name: &Option<String>) -> Key {
    (
        namespace.clone().unwrap_or_default(),
        name.clone().unwrap_or_default(),
    )
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((
        slice.metadata.namespace.clone().unwrap_or_default(),
        name.clone(),
    ))
}

/// Fills the index, then keeps it up with the informers for as long as the future is polled.
pub async fn follow(index: &Arc<Index>, informers: &Informers) -> impl Future<Output = ()> + use<> {
    let services = informers.get::<Service>();
    let slices = informers.get::<EndpointSlice>();
    let namespaces = informers.get::<Namespace>();
    let mut service_changes = services.subscribe();
    let mut slice_changes = slices.subscribe();
    let mut namespace_changes = namespaces.subscribe();
    services.synced().await;
    slices.synced().await;
    namespaces.synced().await;
    fill(index, &services, &slices, &namespaces);
    let index = index.clone();
    async move {
        loop {
            tokio::select! {
                change = service_changes.next() => match change {
                    Some(Change::Applied { new, .. }) => index.apply_service(new),
                    Some(Change::Deleted(old)) => index.delete_service(&old),
                    Some(Change::Lagged) => refill(&index, &services, &slices, &namespaces),
                    None => return,
                },
                change = slice_changes.next() => match change {
                    Some(Change::Applied { new, .. }) => index.apply_slice(new),
                    Some(Change::Deleted(old)) => index.delete_slice(&old),
                    Some(Change::Lagged) => refill(&index, &services, &slices, &namespaces),
                    None => return,
                },
                change = namespace_changes.next() => match change {
                    Some(Change::Applied { new, .. }) => {
                        index.apply_namespace(new.metadata.name.as_deref().unwrap_or_default());
                    }
                    Some(Change::Deleted(old)) => {
                        index.delete_namespace(old.metadata.name.as_deref().unwrap_or_default());
                    }
                    Some(Change::Lagged) => refill(&index, &services, &slices, &namespaces),
                    None => return,
                },
            }
        }
    }
}

fn refill(
    index: &Index,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    namespaces: &Informer<Namespace>,
) {
    let fresh = Index::default();
    fill(&fresh, services, slices, namespaces);
    *index.state.write() = fresh.state.into_inner();
}

fn fill(
    index: &Index,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    namespaces: &Informer<Namespace>,
) {
    for namespace in namespaces.list() {
        index.apply_namespace(namespace.metadata.name.as_deref().unwrap_or_default());
    }
    for slice in slices.list() {
        index.apply_slice(slice);
    }
    for service in services.list() {
        index.apply_service(service);
    }
}
