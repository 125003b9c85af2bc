//! What a runtime asks for: the environment variables and the JSON on standard input, checked.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{LOOPBACK, config::Config, error::Error};

/// From oldest to newest.
pub const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One invocation of the plugin.
#[derive(Debug)]
pub struct Request {
    pub verb: Verb,
    /// Of the specification, as the configuration says; answers are of the same version.
    pub version: String,
    pub container_id: String,
    /// Empty when the container's network namespace is gone already, which only `DEL` accepts.
    pub netns: PathBuf,
    pub ifname: String,
    pub network: Network,
    pub port_mappings: Vec<PortMapping>,
    pub previous: Option<Value>,
    /// For `GC`: everything else may go.
    pub valid_attachments: Vec<AttachmentKey>,
}

/// Which of the two plugins that this program is.
#[derive(Debug)]
pub enum Network {
    Loopback,
    Pods(Config),
    /// `VERSION` has no configuration.
    None,
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentKey {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[serde(alias = "TCP")]
    Tcp,
    #[serde(alias = "UDP")]
    Udp,
    #[serde(alias = "SCTP")]
    Sctp,
}

impl Protocol {
    /// As nftables names it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of the node that leads to one of the container. The plugins' conventions write the names
/// in camel case; containerd capitalises them and relies on Go's reading, which ignores case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    #[serde(alias = "HostPort", default)]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(alias = "Protocol")]
    pub protocol: Protocol,
    #[serde(
        rename = "hostIP",
        alias = "HostIP",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub host_ip: String,
}

impl PortMapping {
    /// The only address of the node at which the port is open; `None` for all of the family.
    pub fn address(&self) -> Option<IpAddr> {
        let address: IpAddr = self.host_ip.parse().ok()?;
        (!address.is_unspecified()).then_some(address)
    }

    /// Whether the mapping leads to pod addresses of this family.
    pub fn is_for(&self, ipv4: bool) -> bool {
        let address = self.host_ip.parse::<IpAddr>();
        address.map_or(true, |address| address.is_ipv4() == ipv4)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    #[serde(default)]
    cni_version: String,
    #[serde(default, rename = "type")]
    plugin: String,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<AttachmentKey>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Option<Vec<PortMapping>>,
}

impl Request {
    /// An error comes with the version in which it is to be told.
    pub fn new(
        variable: impl Fn(&str) -> Option<String>,
        input: &[u8],
    ) -> Result<Self, (String, Error)> {
        let variable = |name: &str| variable(name).unwrap_or_default();
        let command = variable("CNI_COMMAND");
        let verb = match command.as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            "" => {
                let missing = "required env variables [CNI_COMMAND] missing";
                return Err((String::new(), Error::Environment(missing.to_owned())));
            }
            other => {
                let unknown = format!("unknown CNI_COMMAND: {other}");
                return Err((String::new(), Error::Environment(unknown)));
            }
        };
        let parsed: Input =
            serde_json::from_slice(input).map_err(|error| (String::new(), Error::Decode(error)))?;
        let version = match parsed.cni_version.as_str() {
            // Before 0.2 there was no field.
            "" => "0.1.0".to_owned(),
            version => version.to_owned(),
        };
        let request = Request {
            verb,
            version: version.clone(),
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS").into(),
            ifname: variable("CNI_IFNAME"),
            network: Network::None,
            port_mappings: mapped(parsed.runtime_config.port_mappings),
            previous: parsed.prev_result,
            valid_attachments: parsed.valid_attachments.unwrap_or_default(),
        };
        let told = |error| (version.clone(), error);
        if verb == Verb::Version {
            return Ok(request);
        }
        request.check().map_err(told)?;
        let network = network(&parsed.plugin, input).map_err(told)?;
        Ok(Request { network, ..request })
    }

    fn check(&self) -> Result<(), Error> {
        if !SUPPORTED_VERSIONS.contains(&self.version.as_str()) {
            return Err(Error::IncompatibleVersion(self.version.clone()));
        }
        if matches!(self.verb, Verb::Gc | Verb::Status) {
            return Ok(());
        }
        let netns = self.netns.as_os_str();
        let needs_netns = self.verb != Verb::Del;
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", self.container_id.is_empty()),
            ("CNI_NETNS", needs_netns && netns.is_empty()),
            ("CNI_IFNAME", self.ifname.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if !missing.is_empty() {
            let missing = missing.join(",");
            return Err(Error::Environment(format!(
                "required env variables [{missing}] missing"
            )));
        }
        if !is_container_id(&self.container_id) {
            return Err(Error::Environment(format!(
                "invalid characters in containerID: {:?}",
                self.container_id
            )));
        }
        if !is_interface_name(&self.ifname) {
            return Err(Error::Environment(format!(
                "invalid interface name: {:?}",
                self.ifname
            )));
        }
        Ok(())
    }

    pub fn key(&self) -> AttachmentKey {
        AttachmentKey {
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

/// A mapping without a port of the node maps nothing.
fn mapped(mappings: Option<Vec<PortMapping>>) -> Vec<PortMapping> {
    let mut mappings = mappings.unwrap_or_default();
    mappings.retain(|mapping| mapping.host_port != 0);
    mappings
}

fn network(plugin: &str, input: &[u8]) -> Result<Network, Error> {
    if plugin == LOOPBACK {
        return Ok(Network::Loopback);
    }
    let config: Config = serde_json::from_slice(input).map_err(Error::Decode)?;
    config.validate()?;
    Ok(Network::Pods(config))
}

fn is_container_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn is_interface_name(text: &str) -> bool {
    let wrong = |c: char| c == '/' || c == ':' || c.is_whitespace();
    text.len() <= 15 && text != "." && text != ".." && !text.contains(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"n","type":"coracle-cni",
        "bridge":"b","subnets":["10.1.0.0/24"],"dataDir":"/x","table":"t",
        "runtimeConfig":{"portMappings":[
            {"hostPort":80,"containerPort":8080,"protocol":"tcp","hostIP":"0.0.0.0"},
            {"hostPort":0,"containerPort":1,"protocol":"TCP"},
            {"HostPort":53,"ContainerPort":53,"Protocol":"UDP","HostIP":"127.0.0.1"}]}}"#;

    fn ask(variables: &[(&str, &str)], input: &str) -> Result<Request, u32> {
        let find = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Request::new(find, input.as_bytes()).map_err(|(version, error)| {
            let report: Value = serde_json::from_str(&error.report(&version)).expect("JSON");
            assert!(report["msg"].is_string() && report["cniVersion"].is_string());
            report["code"].as_u64().expect("a code") as u32
        })
    }

    #[test]
    fn a_request_is_read_whole() {
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "a1"),
            ("CNI_NETNS", "/n"),
            ("CNI_IFNAME", "eth0"),
        ];
        let request = ask(&variables, CONFIG).expect("a good request");
        assert_eq!(request.port_mappings.len(), 2);
        assert_eq!(request.port_mappings[0].address(), None);
        assert!(request.port_mappings[0].is_for(true) && !request.port_mappings[0].is_for(false));
        assert_eq!(
            request.port_mappings[1].address(),
            Some([127, 0, 0, 1].into())
        );
        assert!(matches!(request.network, Network::Pods(_)));
    }

    #[test]
    fn errors_have_the_codes_of_the_specification() {
        let add = |container: &'static str, ifname: &'static str| {
            vec![
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", container),
                ("CNI_NETNS", "/n"),
                ("CNI_IFNAME", ifname),
            ]
        };
        let code = |variables: &[(&str, &str)], input: &str| ask(variables, input).err();
        assert_eq!(code(&[], CONFIG), Some(4));
        assert_eq!(code(&[("CNI_COMMAND", "EAT")], CONFIG), Some(4));
        assert_eq!(code(&[("CNI_COMMAND", "ADD")], CONFIG), Some(4));
        assert_eq!(code(&add("../x", "eth0"), CONFIG), Some(4));
        assert_eq!(code(&add("x", "far-too-long-name"), CONFIG), Some(4));
        assert_eq!(code(&add("x", "eth0"), "{"), Some(6));
        let other = CONFIG.replace("1.0.0", "9.9.9");
        assert_eq!(code(&add("x", "eth0"), &other), Some(1));
        let other = CONFIG.replace("10.1.0.0/24", "10.1.0.0/32");
        assert_eq!(code(&add("x", "eth0"), &other), Some(7));
        assert_eq!(code(&[("CNI_COMMAND", "VERSION")], "{}"), None);
    }
}
