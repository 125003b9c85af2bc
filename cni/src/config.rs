//! The configuration of the plugin, and the list in which a container runtime finds it.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{PLUGIN, error::Error};

/// What the plugin needs to know of the node. At most one subnet of each address family.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The name of the network.
    #[serde(skip_serializing)]
    pub name: String,
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The pod CIDRs of this node. The first address of each is the gateway's.
    pub subnets: Vec<IpNet>,
    /// Where pods of any node are: traffic to there keeps its source address.
    #[serde(default, rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<IpNet>,
    /// Where addresses in use are kept. It need not outlive a reboot, which ends all pods.
    pub data_dir: PathBuf,
    /// The name of the plugin's nftables table, of family `inet`.
    pub table: String,
    /// The largest packet in bytes; that of the default route's link when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl Config {
    /// Bridge `cni0` and the table `coracle-cni`, as k3s users know the bridge's name.
    pub fn new(data_dir: &Path, subnets: Vec<IpNet>, cluster_cidrs: Vec<IpNet>) -> Self {
        Config {
            name: "coracle".to_owned(),
            bridge: "cni0".to_owned(),
            subnets,
            cluster_cidrs,
            data_dir: data_dir.to_owned(),
            table: PLUGIN.to_owned(),
            mtu: None,
        }
    }

    /// The addresses of the bridge, with their subnets' prefix lengths.
    pub fn gateways(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.subnets.iter().map(gateway)
    }

    /// The gateway of the address's family.
    pub(crate) fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.gateways()
            .map(|gateway| gateway.addr())
            .find(|gateway| gateway.is_ipv4() == address.is_ipv4())
    }

    /// Where this network's state lives.
    pub(crate) fn state(&self) -> PathBuf {
        self.data_dir.join(&self.name)
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Config(what));
        let word = |text: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        if !word(&self.name) || self.name.starts_with('.') {
            return wrong(format!("name: {:?}", self.name));
        }
        if !word(&self.bridge) || self.bridge.len() > 15 {
            return wrong(format!("bridge: {:?}", self.bridge));
        }
        if !word(&self.table) {
            return wrong(format!("table: {:?}", self.table));
        }
        if self.subnets.is_empty() {
            return wrong("subnets: at least one is needed".to_owned());
        }
        for subnet in &self.subnets {
            if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
                return wrong(format!("subnets: {subnet} is too small"));
            }
            let family = subnet.addr().is_ipv4();
            let same = |other: &&IpNet| other.addr().is_ipv4() == family;
            if self.subnets.iter().filter(same).count() > 1 {
                return wrong(format!(
                    "subnets: {subnet} is not the only one of its family"
                ));
            }
        }
        Ok(())
    }
}

fn gateway(subnet: &IpNet) -> IpNet {
    match subnet {
        IpNet::V4(subnet) => {
            let first = u32::from(subnet.network()) + 1;
            IpNet::new_assert(IpAddr::V4(first.into()), subnet.prefix_len())
        }
        IpNet::V6(subnet) => {
            let first = u128::from(subnet.network()) + 1;
            IpNet::new_assert(IpAddr::V6(first.into()), subnet.prefix_len())
        }
    }
}

/// The network configuration list (a `.conflist` file) that makes a runtime run the plugin.
pub fn conflist(config: &Config) -> String {
    let mut plugin = json!(config);
    plugin["type"] = json!(PLUGIN);
    plugin["capabilities"] = json!({ "portMappings": true });
    let list = json!({
        // The newest version that containerd 1.6 reads.
        "cniVersion": "1.0.0",
        "name": config.name,
        "plugins": [plugin],
    });
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(subnets: &[&str]) -> Config {
        let subnets = subnets.iter().map(|text| text.parse().expect("a subnet"));
        Config::new(Path::new("/run/x"), subnets.collect(), Vec::new())
    }

    #[test]
    fn the_list_is_read_back_as_it_was() {
        let mut config = config(&["10.42.0.0/24", "fd00:42::/64"]);
        config.cluster_cidrs = vec!["10.42.0.0/16".parse().expect("a CIDR")];
        let list: serde_json::Value = serde_json::from_str(&conflist(&config)).expect("JSON");
        let mut plugin = list["plugins"][0].clone();
        assert_eq!(plugin["type"], "coracle-cni");
        // The runtime adds the list's name and version to each plugin's part.
        plugin["name"] = list["name"].clone();
        let read: Config = serde_json::from_value(plugin).expect("the plugin's part");
        assert_eq!(format!("{read:?}"), format!("{config:?}"));
        assert!(read.validate().is_ok());
    }

    #[test]
    fn the_gateway_is_the_first_address() {
        let config = config(&["10.42.3.0/24", "fd00:42::/64"]);
        let gateways: Vec<String> = config.gateways().map(|net| net.to_string()).collect();
        assert_eq!(gateways, ["10.42.3.1/24", "fd00:42::1/64"]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for subnets in [&[][..], &["10.0.0.0/31"], &["10.0.0.0/24", "10.0.1.0/24"]] {
            assert!(config(subnets).validate().is_err(), "{subnets:?}");
        }
        let mut config = config(&["10.0.0.0/24"]);
        config.table = "x; flush ruleset".to_owned();
        assert!(config.validate().is_err());
    }
}
