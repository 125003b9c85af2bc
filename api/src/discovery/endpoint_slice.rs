//! EndpointSlice.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};
use serde_json::Value;

use crate::{
    check,
    core::service::endpoint_ip,
    field::{ErrorList, Path},
    formats, names,
    strategy::{Behaviour, Column},
    zero::{list, list_mut, text},
};

const MAX_PORTS: usize = 20_000;
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_TOPOLOGY_LABELS: usize = 16;
const MAX_HINTS: usize = 8;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

impl Behaviour for EndpointSlice {
    fn default_fields(&mut self) {
        for port in list_mut(&mut self.ports) {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    /// The topology of older versions cannot be written any more.
    fn prepare_for_create(&mut self) {
        drop_topology(self);
    }

    fn prepare_for_update(&mut self, old: &Self) {
        if self.endpoints != old.endpoints {
            drop_topology(self);
        }
    }

    fn generation_changed(&self, old: &Self) -> Option<bool> {
        Some(
            self.endpoints != old.endpoints
                || self.ports != old.ports
                || self.address_type != old.address_type
                || self.metadata.labels != old.metadata.labels,
        )
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_slice(self, &mut errors);
        validate_endpoints(self, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_slice(self, &mut errors);
        if self.endpoints != old.endpoints {
            validate_endpoints(self, &mut errors);
        }
        let path = Path::new("addressType");
        check::immutable(&self.address_type, &old.address_type, &path, &mut errors);
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && self.address_type == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let labels = self.metadata.labels.as_ref();
        let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
        if matches!(
            manager.map(String::as_str),
            Some("endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io")
        ) {
            return warnings;
        }
        for (index, endpoint) in list(&self.endpoints).iter().enumerate() {
            let path = Path::new("endpoints").index(index).child("addresses");
            for (index, address) in endpoint.addresses.iter().enumerate() {
                warnings.extend(formats::ip_warning(&path.index(index), address));
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

fn drop_topology(slice: &mut EndpointSlice) {
    for endpoint in list_mut(&mut slice.endpoints) {
        endpoint.deprecated_topology = None;
    }
}

/// What is wrong apart from the endpoints.
fn validate_slice(slice: &EndpointSlice, errors: &mut ErrorList) {
    check::required_one_of(
        &slice.address_type,
        &["FQDN", "IPv4", "IPv6"],
        &Path::new("addressType"),
        errors,
    );
    let ports = list(&slice.ports);
    let path = Path::new("ports");
    if ports.len() > MAX_PORTS {
        errors.push(path.too_many(ports.len(), MAX_PORTS));
        return;
    }
    for (index, port) in ports.iter().enumerate() {
        validate_port(port, &ports[..index], &path.index(index), errors);
    }
}

fn validate_port(
    port: &EndpointPort,
    earlier: &[EndpointPort],
    path: &Path,
    errors: &mut ErrorList,
) {
    let name = text(&port.name);
    if !name.is_empty() {
        check::dns_label(name, &path.child("name"), errors);
    }
    if earlier.iter().any(|other| text(&other.name) == name) {
        errors.push(path.child("name").duplicate(name));
    }
    check::required_one_of(
        text(&port.protocol),
        &["SCTP", "TCP", "UDP"],
        &path.child("protocol"),
        errors,
    );
    if let Some(protocol) = &port.app_protocol {
        check::qualified_name(protocol, &path.child("appProtocol"), errors);
    }
}

fn validate_endpoints(slice: &EndpointSlice, errors: &mut ErrorList) {
    let endpoints = list(&slice.endpoints);
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(path.too_many(endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        addresses(
            endpoint,
            &slice.address_type,
            &path.child("addresses"),
            errors,
        );
        if let Some(node) = &endpoint.node_name {
            check::subdomain(node, &path.child("nodeName"), errors);
        }
        let topology = endpoint.deprecated_topology.as_ref();
        let topology_path = path.child("deprecatedTopology");
        let labels = topology.map_or(0, |topology| topology.len());
        if labels > MAX_TOPOLOGY_LABELS {
            errors.push(topology_path.too_many(labels, MAX_TOPOLOGY_LABELS));
        }
        check::labels(topology, &topology_path, errors);
        if let Some(name) = &endpoint.hostname {
            check::dns_label(name, &path.child("hostname"), errors);
        }
        if let Some(hints) = &endpoint.hints {
            validate_hints(hints, &path.child("hints"), errors);
        }
    }
}

fn addresses(endpoint: &Endpoint, address_type: &str, path: &Path, errors: &mut ErrorList) {
    let addresses = &endpoint.addresses;
    if addresses.is_empty() {
        errors.push(path.required("must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(path.too_many(addresses.len(), MAX_ADDRESSES));
    }
    for (index, address) in addresses.iter().enumerate() {
        let item = path.index(index);
        let messages = match address_type {
            "IPv4" => formats::ip(address),
            "IPv6" => formats::canonical_ip(address),
            "FQDN" => {
                fully_qualified_name(address, &item, errors);
                continue;
            }
            _ => continue,
        };
        if !messages.is_empty() {
            check::each(&item, address.as_str(), messages, errors);
            continue;
        }
        let is_v4 = formats::sloppy_ip(address).is_some_and(|ip| ip.is_ipv4());
        if is_v4 != (address_type == "IPv4") {
            errors.push(path.invalid(
                address.as_str(),
                format!("must be an {address_type} address"),
            ));
        }
        endpoint_ip(address, &item, errors);
    }
}

fn fully_qualified_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = names::dns1123_subdomain(name);
    if !messages.is_empty() {
        errors.push(path.invalid(name, messages.join(",")));
    } else if !name.contains('.') {
        errors.push(path.invalid(
            name,
            "should be a domain with at least two segments separated by dots",
        ));
    } else {
        for label in name.split('.') {
            let messages = names::dns1123_label(label);
            if !messages.is_empty() {
                errors.push(path.invalid(label, messages.join(",")));
            }
        }
    }
}

/// What is wrong with a name.
type Check = fn(&str) -> Vec<String>;

fn validate_hints(hints: &EndpointHints, path: &Path, errors: &mut ErrorList) {
    let zones: Vec<&str> = list(&hints.for_zones)
        .iter()
        .map(|zone| zone.name.as_str())
        .collect();
    let nodes: Vec<&str> = list(&hints.for_nodes)
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    let checks: [(&str, Vec<&str>, Check); 2] = [
        ("forZones", zones, names::label_value),
        ("forNodes", nodes, names::dns1123_subdomain),
    ];
    for (field, names, check) in checks {
        let path = path.child(field);
        if names.len() > MAX_HINTS {
            errors.push(path.too_many(names.len(), MAX_HINTS));
            return;
        }
        for (index, name) in names.iter().enumerate() {
            let path = path.index(index).child("name");
            if names[..index].contains(name) {
                errors.push(path.duplicate(*name));
            }
            check::each(&path, *name, check(name), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_slices() {
        let yaml = include_str!("../../testdata/endpoint_slice.yaml");
        crate::testing::run::<EndpointSlice>(yaml);
    }
}
