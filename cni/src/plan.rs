//! What is done for one container, as data: pure decisions, carried out by `links` and `verbs`.

use std::net::IpAddr;

use crate::{config::Config, invocation::AttachmentKey};

/// A hardware address.
pub type Mac = [u8; 6];

/// The cable between a container and the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    /// The name of the end on the bridge.
    pub host_end: String,
    /// The name of the container's end.
    pub pod_end: String,
    pub pod_mac: Option<Mac>,
    pub mtu: u32,
    /// Each with the gateway of its family.
    pub addresses: Vec<PodAddress>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddress {
    pub address: IpAddr,
    pub gateway: IpAddr,
}

impl Cable {
    pub fn new(config: &Config, key: &AttachmentKey, addresses: &[IpAddr], mtu: u32) -> Self {
        Cable {
            host_end: host_end(key),
            pod_end: key.ifname.clone(),
            pod_mac: addresses.iter().find_map(|address| mac(*address)),
            mtu,
            addresses: addresses
                .iter()
                .filter_map(|&address| {
                    let gateway = config.gateway_for(address)?;
                    Some(PodAddress { address, gateway })
                })
                .collect(),
        }
    }
}

/// The name of the cable's end on the bridge. It follows from the container's identity alone, so
/// that `DEL` finds it when the container's namespace is gone.
pub fn host_end(key: &AttachmentKey) -> String {
    // FNV-1a: stable over versions, and 44 bits of it are plenty for the pods of a node.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key
        .container_id
        .bytes()
        .chain([0])
        .chain(key.ifname.bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("veth{:011x}", hash >> 20)
}

/// A locally administered hardware address made of an IPv4 address. So an address that is used
/// again keeps its hardware address, and no neighbour's memory of it is wrong.
pub fn mac(address: IpAddr) -> Option<Mac> {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Some([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(_) => None,
    }
}

/// As people write it.
pub fn mac_text(mac: &[u8]) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container: &str, ifname: &str) -> AttachmentKey {
        AttachmentKey {
            container_id: container.to_owned(),
            ifname: ifname.to_owned(),
        }
    }

    #[test]
    fn the_host_end_is_named_after_container_and_interface() {
        let name = host_end(&key("a", "eth0"));
        assert!(name.starts_with("veth") && name.len() == 15, "{name}");
        assert_eq!(name, host_end(&key("a", "eth0")));
        assert_ne!(name, host_end(&key("a", "eth1")));
        assert_ne!(host_end(&key("ae", "th0")), host_end(&key("a", "eth0")));
    }

    #[test]
    fn each_address_gets_the_gateway_of_its_family() {
        let subnets = ["10.42.0.0/24", "fd00::/64"].map(|text| text.parse().expect("a subnet"));
        let config = Config::new("/x".as_ref(), subnets.to_vec(), Vec::new());
        let addresses = ["10.42.0.9", "fd00::9"].map(|text| text.parse().expect("an address"));
        let cable = Cable::new(&config, &key("a", "eth0"), &addresses, 1400);
        let gateways: Vec<String> = cable
            .addresses
            .iter()
            .map(|of| of.gateway.to_string())
            .collect();
        assert_eq!(gateways, ["10.42.0.1", "fd00::1"]);
        assert_eq!(
            cable.pod_mac.map(|mac| mac_text(&mac)).as_deref(),
            Some("0a:58:0a:2a:00:09")
        );
    }
}
