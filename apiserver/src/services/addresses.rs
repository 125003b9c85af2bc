//! The ranges of Service addresses, and the objects that say which are taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::Service,
        networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{families::Family, names};
use crate::{lister::Shared, registry::Resource, strategy};

/// Addresses that are tried before a range counts as full. Most ranges are smaller.
const MAX_TRIES: u64 = 1 << 17;

/// Why an address may not be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInRange {
    #[error("the provided network does not match the current range")]
    Mismatched,
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    Reserved(IpAddr, IpNet),
}

/// Where addresses are taken from.
pub struct Ranges(Vec<IpNet>);

impl Ranges {
    /// The configured range, and those that were added as objects and are ready.
    pub fn new(configured: IpNet, objects: &[Shared<ServiceCIDR>]) -> Self {
        let mut ranges = vec![configured.trunc()];
        for object in objects.iter().filter(|object| is_usable(object)) {
            let cidrs = object
                .spec
                .iter()
                .flat_map(|spec| spec.cidrs.iter().flatten());
            ranges.extend(cidrs.filter_map(|cidr| cidr.parse::<IpNet>().ok()));
        }
        ranges.sort();
        ranges.dedup();
        // The configured range is used up first.
        ranges.sort_by_key(|range| *range != configured.trunc());
        Ranges(ranges)
    }

    /// Whether the address may be given.
    pub fn contains(&self, address: IpAddr) -> Result<(), NotInRange> {
        if self.0.is_empty() {
            return Ok(());
        }
        let around = self.0.iter().find(|range| range.contains(&address));
        let range = around.ok_or(NotInRange::Mismatched)?;
        let (first, last) = bounds(range);
        if (first..=last).contains(&number(address)) {
            Ok(())
        } else {
            Err(NotInRange::Reserved(address, *range))
        }
    }

    /// Any free address. The lower part of a range is spared for addresses that are asked for,
    /// as upstream.
    pub fn choose(&self, family: Family, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        self.0
            .iter()
            .filter(|range| Family::of(range.addr()) == family)
            .find_map(|range| {
                let (first, last) = bounds(range);
                let split = first + spared(last.saturating_sub(first).saturating_add(1));
                from(split, last, family, &is_free).or_else(|| {
                    (split > first).then(|| from(first, split - 1, family, &is_free))?
                })
            })
    }
}

fn is_usable(range: &ServiceCIDR) -> bool {
    let conditions = range
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let refused = conditions
        .clone()
        .any(|condition| condition.type_ == "Ready" && condition.status != "True");
    range.metadata.deletion_timestamp.is_none() && !refused
}

/// The first free address from a random one on, around the end.
fn from(
    first: u128,
    last: u128,
    family: Family,
    is_free: &impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let size = last.checked_sub(first)?.saturating_add(1);
    let start = u128::from(random()) % size;
    let tries = size.min(u128::from(MAX_TRIES));
    (0..tries)
        .map(|step| address(first + (start + step) % size, family))
        .find(|address| is_free(*address))
}

/// How many addresses at the beginning of a range are spared.
fn spared(size: u128) -> u128 {
    if size <= 16 {
        return 0;
    }
    (size / 16).clamp(16, 256)
}

/// The first and last address that can be given: neither that of the network nor, for IPv4, the
/// broadcast address.
fn bounds(range: &IpNet) -> (u128, u128) {
    let (network, last) = (number(range.network()), number(range.broadcast()));
    let last = if range.network().is_ipv4() {
        last - 1
    } else {
        last
    };
    (network + 1, last)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// A random number; not secret.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // The system's generator does not fail once it is seeded; zero would only be a bad choice.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    u64::from_ne_bytes(bytes)
}

/// The stored form of the object that says that a Service has an address.
pub fn object(ip_addresses: &Resource, address: IpAddr, service: &Service) -> Bytes {
    let (namespace, name) = names(service);
    let mut object = IPAddress {
        metadata: ObjectMeta {
            name: Some(address.to_string()),
            labels: Some(
                [
                    (
                        "ipaddress.kubernetes.io/ip-family",
                        Family::of(address).name(),
                    ),
                    ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: None,
                resource: "services".to_owned(),
                namespace: Some(namespace.to_owned()),
                name: name.to_owned(),
            },
        },
    };
    strategy::prepare_for_create(&ip_addresses.kind, &mut object, false);
    strategy::to_bytes(ip_addresses, &object)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ranges(cidr: &str) -> Ranges {
        Ranges::new(cidr.parse().unwrap(), &[])
    }

    #[test]
    fn every_address_of_a_range_can_be_given_once() {
        let ranges = ranges("10.0.0.0/27");
        let mut taken = HashSet::new();
        for _ in 0..30 {
            let address = ranges.choose(Family::V4, |a| !taken.contains(&a)).unwrap();
            assert!(ranges.contains(address).is_ok());
            taken.insert(address);
        }
        assert_eq!(ranges.choose(Family::V4, |a| !taken.contains(&a)), None);
        assert!(!taken.contains(&"10.0.0.0".parse().unwrap()));
        assert!(!taken.contains(&"10.0.0.31".parse().unwrap()));
    }

    #[test]
    fn the_beginning_of_a_range_is_spared() {
        let ranges = ranges("10.43.0.0/16");
        for _ in 0..100 {
            let IpAddr::V4(address) = ranges.choose(Family::V4, |_| true).unwrap() else {
                panic!("not IPv4");
            };
            assert!(address >= Ipv4Addr::new(10, 43, 1, 1), "{address}");
        }
        let outside = ranges.contains("10.44.0.1".parse().unwrap());
        assert_eq!(outside, Err(NotInRange::Mismatched));
        assert!(ranges.contains("10.43.0.10".parse().unwrap()).is_ok());
    }

    #[test]
    fn of_six_bytes_more() {
        let ranges = ranges("fd00:43::/112");
        let address = ranges.choose(Family::V6, |_| true).unwrap();
        assert!(ranges.contains(address).is_ok());
        assert_eq!(ranges.choose(Family::V4, |_| true), None);
    }
}
