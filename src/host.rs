//! What the host says of its own name and addresses.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// The host's name, in the form that a node may have.
pub fn name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host's name")?;
    let name = name.to_string_lossy().to_lowercase().replace('_', "-");
    if name.is_empty() {
        bail!("the host has no name: choose one with --node-name");
    }
    Ok(name)
}

/// The address of this host among others: the one from which it would speak to them, or the first
/// that an interface has when it is cut off. `None` when it has none.
pub fn address() -> Option<IpAddr> {
    routed_address().or_else(interface_address)
}

/// The address of the default route.
fn routed_address() -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing; it only looks up the route.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(names_a_host)
}

/// The first address of an interface that is up.
fn interface_address() -> Option<IpAddr> {
    let mut interfaces = getifaddrs().ok()?;
    interfaces.find_map(|interface| {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        let address = interface.address?.as_sockaddr_in()?.ip();
        Some(IpAddr::from(address)).filter(|address| up && names_a_host(address))
    })
}

/// Whether others may reach a host by the address; an Endpoints object may have no other.
pub fn names_a_host(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_link_local)
}

/// The first address of a range: of the Services' the `kubernetes` Service's, of the pods' the
/// host's.
pub fn first_address(range: &IpNet) -> anyhow::Result<IpAddr> {
    range
        .hosts()
        .next()
        .with_context(|| format!("{range} has no addresses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_service_has_the_first_address() {
        let range = "10.43.0.0/16".parse().unwrap();
        assert_eq!(first_address(&range).unwrap().to_string(), "10.43.0.1");
    }

    #[test]
    fn only_some_addresses_name_a_host() {
        let names = |address: &str| names_a_host(&address.parse().unwrap());
        for address in ["192.0.2.1", "10.42.0.1", "2001:db8::1", "fd00::1"] {
            assert!(names(address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.3.4",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!names(address), "{address}");
        }
    }
}
