//! What Services are given: addresses and node ports, each to one Service only.
//!
//! Enter at [`Services`]. What is taken follows from what is stored: an address from its
//! `IPAddress` object, a node port from the Services themselves. What a Service is given is
//! written in the same transaction as the Service: the `IPAddress`, on the condition that it does
//! not exist, and the object that says which ports are taken, on the condition that it is as it
//! was read. So nothing is given twice, whatever runs at the same time, and nothing is lost when
//! the process dies at any point.

mod addresses;
mod families;
mod port_range;
mod ports;
mod repair;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use coracle_api::{
    core::service::allocation::{
        keep_allocated, needs_cluster_ip, needs_health_check_node_port, node_ports,
        normalize_cluster_ips,
    },
    field::Path,
};
use coracle_store::{Compare, Error as StoreError, Write};
use k8s_openapi::api::{
    core::v1::{Service, ServiceSpec},
    networking::v1::{IPAddress, ServiceCIDR},
};

use crate::{
    Config, Lister,
    error::ApiError,
    registry::{Registry, Resource},
};

use addresses::Ranges;
use families::Family;
use port_range::PortRange;
use ports::Ports;

const NONE: &str = "None";

/// Writes that go with the write of an object, in one transaction.
#[derive(Debug, Default)]
pub struct Companions {
    pub compares: Vec<Compare>,
    pub writes: Vec<Write>,
}

/// Gives Services what they need. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    registry: Registry,
    config: Config,
    services: Lister<Service>,
    addresses: Lister<IPAddress>,
    ranges: Lister<ServiceCIDR>,
    ip_addresses: Arc<Resource>,
    endpoints_prefix: String,
}

/// What one Service is given or gives back.
#[derive(Debug, Default, PartialEq, Eq)]
struct Delta {
    addresses: Vec<IpAddr>,
    freed_addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    freed_ports: Vec<u16>,
}

impl Services {
    /// `None` when the registry serves no Services, as in tests of a few kinds.
    pub fn new(registry: &Registry, config: &Config) -> Option<Self> {
        let ip_addresses = registry.find("networking.k8s.io", "v1", "ipaddresses")?;
        let endpoints = registry.find("", "v1", "endpoints")?.cache.clone()?;
        registry.find("", "v1", "services")?;
        registry.find("networking.k8s.io", "v1", "servicecidrs")?;
        Some(Services {
            services: registry.lister(),
            addresses: registry.lister(),
            ranges: registry.lister(),
            registry: registry.clone(),
            config: config.clone(),
            ip_addresses,
            endpoints_prefix: endpoints.prefix().to_owned(),
        })
    }

    /// Fills in what a new Service needs.
    pub async fn create(&self, service: &mut Service) -> Result<Companions, ApiError> {
        let name = service.metadata.name.clone().unwrap_or_default();
        let spec = service.spec.get_or_insert_default();
        normalize_cluster_ips(spec, None);
        families::initialize(spec, None, &self.families()).map_err(|e| invalid(&name, &e))?;
        let mut delta = Delta::default();
        if needs_cluster_ip(spec) && !is_headless(spec) {
            delta.addresses = self.give_addresses(&name, spec)?;
        }
        let range = self.port_range(spec, None).await?;
        let mut ports = self.ports(range.as_ref());
        ports.give_new(spec).map_err(|error| error.at(&name))?;
        if needs_health_check_node_port(spec) {
            ports
                .give_health_check(spec)
                .map_err(|error| error.at(&name))?;
        }
        delta.ports = ports.given();
        Ok(self.companions(service, &delta, range.as_ref()))
    }

    /// Fills in what a changed Service needs beside what it has, and lets go what it no longer
    /// needs.
    pub async fn update(&self, new: &mut Service, old: &Service) -> Result<Companions, ApiError> {
        let name = new.metadata.name.clone().unwrap_or_default();
        let before = old.spec.clone().unwrap_or_default();
        let spec = new.spec.get_or_insert_default();
        keep_allocated(spec, &before);
        normalize_cluster_ips(spec, Some(&before));
        families::initialize(spec, Some(&before), &self.families())
            .map_err(|e| invalid(&name, &e))?;
        let mut delta = Delta::default();
        self.change_addresses(&name, spec, &before, &mut delta)?;
        let range = self.port_range(spec, Some(&before)).await?;
        let mut ports = self.ports(range.as_ref());
        ports
            .give_changed(spec, &before)
            .map_err(|error| error.at(&name))?;
        if needs_health_check_node_port(spec) && !needs_health_check_node_port(&before) {
            ports
                .give_health_check(spec)
                .map_err(|error| error.at(&name))?;
        }
        delta.ports = ports.given();
        // Those that the new type cannot have are dropped after this.
        let kept = if ports::may_have_any(spec) {
            ports_of(spec)
        } else {
            Vec::new()
        };
        delta.freed_ports = ports_of(&before);
        delta.freed_ports.retain(|port| !kept.contains(port));
        Ok(self.companions(new, &delta, range.as_ref()))
    }

    /// Lets go what a Service has that is deleted, and deletes its Endpoints, so that a Service
    /// of the same name does not begin with them.
    pub async fn delete(&self, service: &Service) -> Result<Companions, StoreError> {
        let spec = service.spec.clone().unwrap_or_default();
        let delta = Delta {
            freed_addresses: addresses_of(&spec),
            freed_ports: ports_of(&spec),
            ..Delta::default()
        };
        let range = match delta.freed_ports.is_empty() {
            true => None,
            false => Some(self.read_port_range().await?),
        };
        let mut companions = self.companions(service, &delta, range.as_ref());
        let (namespace, name) = names(service);
        companions.writes.push(Write::Delete {
            key: format!("{}{namespace}/{name}", self.endpoints_prefix).into(),
        });
        Ok(companions)
    }

    fn families(&self) -> Vec<Family> {
        vec![Family::of(self.config.service_cidr.addr())]
    }

    /// What the ports of a Service are taken from, when it has or had any.
    async fn port_range(
        &self,
        spec: &ServiceSpec,
        before: Option<&ServiceSpec>,
    ) -> Result<Option<PortRange>, ApiError> {
        let has_any = |spec: &ServiceSpec| ports::may_have_any(spec) || !ports_of(spec).is_empty();
        if has_any(spec) || before.is_some_and(has_any) {
            return Ok(Some(self.read_port_range().await?));
        }
        Ok(None)
    }

    async fn read_port_range(&self) -> Result<PortRange, StoreError> {
        let found = self.registry.store().get(&PortRange::key()).await?;
        Ok(PortRange::read(self.config.node_ports.clone(), found))
    }

    /// The ports of all Services that are stored.
    fn ports_in_use(&self) -> BTreeSet<u16> {
        let services = self.services.list("");
        let specs = services.iter().filter_map(|service| service.spec.as_ref());
        specs.flat_map(ports_of).collect()
    }

    fn ports(&self, range: Option<&PortRange>) -> Ports {
        let mut used = self.ports_in_use();
        used.extend(range.into_iter().flat_map(|range| &range.taken));
        Ports::new(self.config.node_ports.clone(), used.into_iter().collect())
    }

    fn ranges(&self) -> Ranges {
        Ranges::new(self.config.service_cidr, &self.ranges.list(""))
    }

    /// Gives an address of each of the Service's families, those that it asks for first.
    fn give_addresses(&self, name: &str, spec: &mut ServiceSpec) -> Result<Vec<IpAddr>, ApiError> {
        let families: Vec<Family> = spec
            .ip_families
            .iter()
            .flatten()
            .filter_map(|name| Family::named(name))
            .collect();
        let mut ips = spec.cluster_ips.take().unwrap_or_default();
        ips.resize(families.len().max(ips.len()), String::new());
        let ranges = self.ranges();
        let mut given = Vec::new();
        for (family, ip) in families.into_iter().zip(&mut ips) {
            let address = self.give_address(name, &ranges, family, ip)?;
            *ip = address.to_string();
            given.push(address);
        }
        spec.cluster_ip = ips.first().cloned();
        spec.cluster_ips = Some(ips);
        Ok(given)
    }

    fn give_address(
        &self,
        name: &str,
        ranges: &Ranges,
        family: Family,
        wanted: &str,
    ) -> Result<IpAddr, ApiError> {
        let is_free = |address: IpAddr| self.addresses.get("", &address.to_string()).is_none();
        if wanted.is_empty() {
            return ranges.choose(family, is_free).ok_or_else(|| {
                ApiError::internal(format!(
                    "failed to allocate a serviceIP for Service {name:?}: range is full"
                ))
            });
        }
        let address: IpAddr = wanted
            .parse()
            .map_err(|_| ApiError::internal(format!("failed to parse service IP {wanted:?}")))?;
        let refused = match ranges.contains(address) {
            Err(why) => Some(why.to_string()),
            Ok(()) if !is_free(address) => Some("provided IP is already allocated".to_owned()),
            Ok(()) => None,
        };
        match refused {
            None => Ok(address),
            Some(why) => {
                let path = Path::new("spec").child("clusterIPs");
                let detail = format!("failed to allocate IP {wanted}: {why}");
                Err(invalid(name, &vec![path.invalid(vec![wanted], detail)]))
            }
        }
    }

    fn change_addresses(
        &self,
        name: &str,
        spec: &mut ServiceSpec,
        before: &ServiceSpec,
        delta: &mut Delta,
    ) -> Result<(), ApiError> {
        let had = addresses_of(before);
        if !needs_cluster_ip(before) {
            if needs_cluster_ip(spec) && !is_headless(spec) {
                delta.addresses = self.give_addresses(name, spec)?;
            }
            return Ok(());
        }
        if is_headless(before) {
            return Ok(());
        }
        if !needs_cluster_ip(spec) {
            delta.freed_addresses = had;
            return Ok(());
        }
        // A second address comes or goes; the first stays, or validation refuses the change.
        let families = spec.ip_families.as_ref().map_or(0, Vec::len);
        match (had.len(), families) {
            (1, 2) => {
                let second = spec.ip_families.as_ref().and_then(|f| Family::named(&f[1]));
                let ips = spec.cluster_ips.get_or_insert_default();
                ips.resize(2, String::new());
                if let Some(family) = second {
                    let address = self.give_address(name, &self.ranges(), family, &ips[1])?;
                    ips[1] = address.to_string();
                    delta.addresses.push(address);
                }
            }
            (2, 1) => delta.freed_addresses = had[1..].to_vec(),
            _ => {}
        }
        Ok(())
    }

    /// `range`: as it was read when the ports were chosen.
    fn companions(
        &self,
        service: &Service,
        delta: &Delta,
        range: Option<&PortRange>,
    ) -> Companions {
        let mut companions = Companions::default();
        for address in &delta.addresses {
            let key = self.address_key(*address);
            let value = addresses::object(&self.ip_addresses, *address, service);
            companions.compares.push(Compare::Absent(key.clone()));
            companions.writes.push(Write::Put { key, value });
        }
        for address in &delta.freed_addresses {
            if self.is_of(*address, service) {
                let key = self.address_key(*address);
                companions.writes.push(Write::Delete { key });
            }
        }
        if let Some(range) = range {
            let mut taken = range.taken.clone();
            taken.retain(|port| !delta.freed_ports.contains(port));
            taken.extend(&delta.ports);
            if let Some((compare, write)) = range.replace(&taken) {
                companions.compares.push(compare);
                companions.writes.push(write);
            }
        }
        companions
    }

    fn address_key(&self, address: IpAddr) -> Arc<str> {
        let prefix = self.ip_addresses.cache.as_ref().map_or("", |c| c.prefix());
        format!("{prefix}{address}").into()
    }

    /// Whether the address was given to this Service.
    fn is_of(&self, address: IpAddr, service: &Service) -> bool {
        let (namespace, name) = names(service);
        self.addresses
            .get("", &address.to_string())
            .is_some_and(|address| {
                let parent = &address.spec.parent_ref;
                parent.resource == "services"
                    && parent.name == name
                    && parent.namespace.as_deref().unwrap_or_default() == namespace
            })
    }
}

fn names(service: &Service) -> (&str, &str) {
    let meta = &service.metadata;
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips
        .as_ref()
        .and_then(|ips| ips.first())
        .is_some_and(|ip| ip == NONE)
}

/// The addresses that a stored Service was given.
fn addresses_of(spec: &ServiceSpec) -> Vec<IpAddr> {
    let ips = spec.cluster_ips.iter().flatten();
    ips.filter_map(|ip| ip.parse().ok()).collect()
}

/// The node ports that a stored Service was given, that of its health check too.
fn ports_of(spec: &ServiceSpec) -> Vec<u16> {
    let health = spec
        .health_check_node_port
        .filter(|_| needs_health_check_node_port(spec));
    node_ports(spec)
        .into_iter()
        .chain(health)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .collect()
}

fn invalid(name: &str, errors: &coracle_api::field::ErrorList) -> ApiError {
    ApiError::invalid("", "Service", name, errors)
}
