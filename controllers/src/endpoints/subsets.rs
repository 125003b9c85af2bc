//! The subsets of Endpoints: addresses grouped by the ports they have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};

use super::{cluster_ip, pod, publishes_not_ready};
use crate::pods;

/// The most addresses that one Endpoints object holds.
pub(super) const CAPACITY: usize = 1000;

/// An address, by what orders it: its IP and the uid of its pod.
type AddressKey = (String, Option<String>);
type PortKey = (String, i32, String, Option<String>);

fn address_key(address: &EndpointAddress) -> AddressKey {
    let target = address.target_ref.as_ref();
    (
        address.ip.clone(),
        target.and_then(|target| target.uid.clone()),
    )
}

fn port_key(port: &EndpointPort) -> PortKey {
    (
        port.name.clone().unwrap_or_default(),
        port.port,
        port.protocol.clone().unwrap_or_default(),
        port.app_protocol.clone(),
    )
}

/// The same endpoints with each address once for the same set of ports, in a fixed order. An
/// address that is ready in one subset and not in another counts as not ready.
pub(super) fn repack(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<AddressKey, &EndpointAddress> = BTreeMap::new();
    // `None` stands for addresses without any port.
    let mut by_port: BTreeMap<Option<PortKey>, BTreeMap<AddressKey, bool>> = BTreeMap::new();
    let mut ports: BTreeMap<PortKey, &EndpointPort> = BTreeMap::new();
    for subset in subsets {
        let listed = subset.ports.as_deref().unwrap_or_default();
        let mut keys: Vec<Option<PortKey>> = Vec::new();
        for port in listed {
            ports.insert(port_key(port), port);
            keys.push(Some(port_key(port)));
        }
        if keys.is_empty() {
            keys.push(None);
        }
        let ready = subset.addresses.iter().flatten().map(|one| (one, true));
        let not_ready = subset.not_ready_addresses.iter().flatten();
        for (address, ready) in ready.chain(not_ready.map(|one| (one, false))) {
            addresses.entry(address_key(address)).or_insert(address);
            for key in &keys {
                let known = by_port.entry(key.clone()).or_default();
                let state = known.entry(address_key(address)).or_insert(ready);
                *state &= ready;
            }
        }
    }
    let mut grouped: BTreeMap<Vec<(AddressKey, bool)>, BTreeSet<PortKey>> = BTreeMap::new();
    for (port, members) in by_port {
        let members: Vec<(AddressKey, bool)> = members.into_iter().collect();
        grouped.entry(members).or_default().extend(port);
    }
    grouped
        .into_iter()
        .map(|(members, keys)| {
            let pick = |wanted: bool| -> Option<Vec<EndpointAddress>> {
                let members = members.iter().filter(|(_, ready)| *ready == wanted);
                let picked: Vec<EndpointAddress> = members
                    .filter_map(|(key, _)| addresses.get(key).map(|address| (*address).clone()))
                    .collect();
                (!picked.is_empty()).then_some(picked)
            };
            let listed: Vec<EndpointPort> = keys
                .iter()
                .filter_map(|key| ports.get(key).map(|port| (*port).clone()))
                .collect();
            EndpointSubset {
                addresses: pick(true),
                not_ready_addresses: pick(false),
                ports: (!listed.is_empty()).then_some(listed),
            }
        })
        .collect()
}

/// The endpoints that the Service's pods make.
pub(super) fn of_service(service: &Service, selected: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let listed = service.spec.as_ref().and_then(|spec| spec.ports.as_deref());
    let ports = listed.unwrap_or_default();
    let mut subsets = Vec::new();
    for pod in selected {
        if !pod::is_endpoint(pod, publishes_not_ready(service)) {
            continue;
        }
        let Some(address) = address(service, pod) else {
            continue;
        };
        if ports.is_empty() && cluster_ip(service) == "None" {
            subsets.push(subset(service, pod, address.clone(), None));
        }
        for port in ports {
            if let Some(number) = pod::target_port(pod, port) {
                let port = EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: number,
                    protocol: port.protocol.clone(),
                    app_protocol: port.app_protocol.clone(),
                };
                subsets.push(subset(service, pod, address.clone(), Some(port)));
            }
        }
    }
    repack(&subsets)
}

fn subset(
    service: &Service,
    pod: &Pod,
    address: EndpointAddress,
    port: Option<EndpointPort>,
) -> EndpointSubset {
    let ready = publishes_not_ready(service) || pods::is_ready(pod);
    let (addresses, not_ready_addresses) = if ready {
        (Some(vec![address]), None)
    } else {
        (None, Some(vec![address]))
    };
    EndpointSubset {
        addresses,
        not_ready_addresses,
        ports: port.map(|port| vec![port]),
    }
}

/// The pod's address of the Service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref());
    let own = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref());
    let wants_v6 = match families.and_then(|families| families.first()) {
        Some(family) => family == "IPv6",
        None => match cluster_ip(service) {
            "" | "None" => is_v6(own.unwrap_or_default()),
            ip => is_v6(ip),
        },
    };
    let addresses = pod::addresses(pod);
    let ip = addresses
        .into_iter()
        .find(|address| address.is_ipv6() == wants_v6)?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: pod::hostname(pod, service),
        node_name: Some(pods::node_name(pod).to_owned()),
        target_ref: Some(pod::reference(pod)),
    })
}

fn is_v6(ip: &str) -> bool {
    matches!(ip.parse(), Ok(IpAddr::V6(_)))
}

/// The number of addresses, ready or not.
pub(super) fn count(subsets: &[EndpointSubset]) -> usize {
    let sizes = subsets
        .iter()
        .map(|subset| size(&subset.addresses) + size(&subset.not_ready_addresses));
    sizes.sum()
}

fn size(addresses: &Option<Vec<EndpointAddress>>) -> usize {
    addresses.as_ref().map_or(0, Vec::len)
}

/// Cuts what is beyond the capacity, in proportion over the subsets, what is not ready first.
/// Returns whether it had to.
pub(super) fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    if count(subsets) <= CAPACITY {
        return false;
    }
    let ready: usize = subsets.iter().map(|subset| size(&subset.addresses)).sum();
    let cut_ready = ready > CAPACITY;
    let (room, total) = if cut_ready {
        (CAPACITY, ready)
    } else {
        (CAPACITY - ready, count(subsets) - ready)
    };
    let mut left = room;
    for subset in subsets {
        if cut_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cut_ready {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        if let Some(addresses) = list {
            let share = (addresses.len() * room).div_ceil(total);
            addresses.truncate(share.min(left));
            left -= addresses.len();
            if addresses.is_empty() {
                *list = None;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(subsets: Value) -> Vec<EndpointSubset> {
        serde_json::from_value(subsets).expect("subsets")
    }

    #[test]
    fn addresses_are_grouped_by_the_ports_they_share() {
        let packed = repack(&parse(json!([
            { "addresses": [{ "ip": "10.0.0.2" }], "ports": [{ "name": "b", "port": 2 }] },
            { "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "name": "a", "port": 1 }] },
            { "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "name": "b", "port": 2 }] },
            { "addresses": [{ "ip": "10.0.0.2" }], "ports": [{ "name": "a", "port": 1 }] },
            { "notReadyAddresses": [{ "ip": "10.0.0.3" }], "ports": [{ "name": "c", "port": 3 }] },
        ])));
        assert_eq!(
            packed,
            parse(json!([
                {
                    "addresses": [{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2" }],
                    "ports": [{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }],
                },
                {
                    "notReadyAddresses": [{ "ip": "10.0.0.3" }],
                    "ports": [{ "name": "c", "port": 3 }],
                },
            ]))
        );
        assert_eq!(repack(&packed), packed);
    }

    #[test]
    fn what_is_not_ready_once_is_not_ready() {
        let packed = repack(&parse(json!([
            { "addresses": [{ "ip": "10.0.0.1" }] },
            { "notReadyAddresses": [{ "ip": "10.0.0.1" }] },
        ])));
        assert_eq!(
            packed,
            parse(json!([{ "notReadyAddresses": [{ "ip": "10.0.0.1" }] }]))
        );
    }

    #[test]
    fn too_many_addresses_are_cut_in_proportion() {
        let list = |count: usize| -> Vec<Value> {
            (0..count)
                .map(|n| json!({ "ip": format!("10.0.0.{n}") }))
                .collect()
        };
        // Sizes of each subset's ready and other addresses, before and after.
        let cases = [
            (vec![(500, 500)], vec![(500, 500)], false),
            (vec![(501, 500)], vec![(501, 499)], true),
            (vec![(1200, 10), (300, 0)], vec![(800, 0), (200, 0)], true),
            (vec![(900, 150), (0, 50)], vec![(900, 75), (0, 25)], true),
        ];
        for (before, after, cut) in cases {
            let subsets = before
                .iter()
                .map(|(ready, other)| {
                    json!({ "addresses": list(*ready), "notReadyAddresses": list(*other) })
                })
                .collect();
            let mut subsets = parse(subsets);
            assert_eq!(truncate(&mut subsets), cut);
            let sizes: Vec<(usize, usize)> = subsets
                .iter()
                .map(|subset| (size(&subset.addresses), size(&subset.not_ready_addresses)))
                .collect();
            assert_eq!(sizes, after);
        }
    }
}
