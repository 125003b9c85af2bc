//! The result of an `ADD`, as the runtime reads it, and what `CHECK` compares with.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    error::Error,
    plan::{Cable, mac_text},
};

/// Where in `interfaces` the container's own stands.
const POD_INTERFACE: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    cni_version: String,
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    #[serde(default)]
    pub ips: Vec<Ip>,
    #[serde(default)]
    routes: Vec<Value>,
    #[serde(default)]
    dns: Value,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    #[serde(default)]
    pub mac: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ip {
    /// Only before version 1.0 of the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    pub interface: Option<u32>,
    pub address: ipnet::IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<std::net::IpAddr>,
}

/// The bridge and both ends of the cable as they came to be.
pub struct Macs {
    pub bridge: Vec<u8>,
    pub host_end: Vec<u8>,
    pub pod_end: Vec<u8>,
}

impl Report {
    pub fn new(version: &str, bridge: &str, cable: &Cable, macs: &Macs, sandbox: &str) -> Self {
        let interface = |name: &str, mac: &[u8], sandbox: &str| Interface {
            name: name.to_owned(),
            mac: mac_text(mac),
            sandbox: sandbox.to_owned(),
        };
        let routes = cable.addresses.iter().map(|of| {
            let destination = if of.gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            json!({ "dst": destination, "gw": of.gateway })
        });
        Report {
            cni_version: version.to_owned(),
            interfaces: vec![
                interface(bridge, &macs.bridge, ""),
                interface(&cable.host_end, &macs.host_end, ""),
                interface(&cable.pod_end, &macs.pod_end, sandbox),
            ],
            ips: cable
                .addresses
                .iter()
                .map(|of| Ip {
                    gateway: Some(of.gateway),
                    ..Ip::new(version, of.address.into(), POD_INTERFACE)
                })
                .collect(),
            routes: routes.collect(),
            dns: json!({}),
        }
    }

    /// The loopback device's.
    pub fn loopback(version: &str, sandbox: &str) -> Self {
        Report {
            cni_version: version.to_owned(),
            interfaces: vec![Interface {
                name: "lo".to_owned(),
                mac: mac_text(&[0; 6]),
                sandbox: sandbox.to_owned(),
            }],
            ips: vec![Ip::new(
                version,
                ipnet::IpNet::new_assert([127, 0, 0, 1].into(), 8),
                0,
            )],
            routes: Vec::new(),
            dns: json!({}),
        }
    }

    pub fn previous(value: Option<&Value>) -> Result<Self, Error> {
        let Some(value) = value else {
            return Err(Error::Config("required prevResult missing".to_owned()));
        };
        Report::deserialize(value).map_err(Error::Decode)
    }

    pub fn text(&self) -> String {
        json!(self).to_string()
    }
}

impl Ip {
    fn new(version: &str, address: ipnet::IpNet, interface: u32) -> Self {
        let family = if address.addr().is_ipv4() { "4" } else { "6" };
        Ip {
            version: version.starts_with("0.").then(|| family.to_owned()),
            interface: Some(interface),
            address,
            gateway: None,
        }
    }
}
