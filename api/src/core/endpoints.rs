//! Endpoints.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::Value;

use super::service::endpoint_ip;
use crate::{
    check,
    field::{ErrorList, Path},
    formats,
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name},
    zero::{default_text, list, list_mut, text},
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

impl Behaviour for Endpoints {
    fn default_fields(&mut self) {
        for subset in list_mut(&mut self.subsets) {
            for port in list_mut(&mut subset.ports) {
                default_text(&mut port.protocol, "TCP");
            }
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        for (index, subset) in list(&self.subsets).iter().enumerate() {
            validate_subset(subset, &Path::new("subsets").index(index), &mut errors);
        }
        errors
    }

    /// Rules that came later do not hold for what is there already.
    fn validate_update(&self, old: &Self) -> ErrorList {
        if self.subsets == old.subsets {
            ErrorList::new()
        } else {
            self.validate()
        }
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let labels = self.metadata.labels.as_ref();
        let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
        if manager.is_some_and(|manager| manager == "endpoint-controller") {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for (index, subset) in list(&self.subsets).iter().enumerate() {
            let path = Path::new("subsets").index(index);
            for (field, addresses) in [
                ("addresses", &subset.addresses),
                ("notReadyAddresses", &subset.not_ready_addresses),
            ] {
                for (index, address) in list(addresses).iter().enumerate() {
                    let path = path.child(field).index(index).child("ip");
                    warnings.extend(formats::ip_warning(&path, &address.ip));
                }
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Endpoints",
                "string",
                "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(addresses(self)),
            age(&self.metadata, now),
        ]
    }
}

fn validate_subset(subset: &EndpointSubset, path: &Path, errors: &mut ErrorList) {
    let (ready, not_ready) = (list(&subset.addresses), list(&subset.not_ready_addresses));
    if ready.is_empty() && not_ready.is_empty() {
        errors.push(path.required("must specify `addresses` or `notReadyAddresses`"));
    }
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        for (index, address) in addresses.iter().enumerate() {
            validate_address(address, &path.child(field).index(index), errors);
        }
    }
    let ports = list(&subset.ports);
    for (index, port) in ports.iter().enumerate() {
        validate_port(
            port,
            ports.len() > 1,
            &path.child("ports").index(index),
            errors,
        );
    }
}

fn validate_address(address: &EndpointAddress, path: &Path, errors: &mut ErrorList) {
    check::ip(&address.ip, &path.child("ip"), errors);
    if !text(&address.hostname).is_empty() {
        check::dns_label(text(&address.hostname), &path.child("hostname"), errors);
    }
    if let Some(node) = &address.node_name {
        check::subdomain(node, &path.child("nodeName"), errors);
    }
    endpoint_ip(&address.ip, &path.child("ip"), errors);
}

fn validate_port(port: &EndpointPort, needs_name: bool, path: &Path, errors: &mut ErrorList) {
    let name = text(&port.name);
    if name.is_empty() {
        if needs_name {
            errors.push(path.child("name").required(""));
        }
    } else {
        check::dns_label(name, &path.child("name"), errors);
    }
    check::each(
        &path.child("port"),
        port.port,
        formats::port_number(port.port),
        errors,
    );
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

/// The first addresses, each with its port.
fn addresses(endpoints: &Endpoints) -> String {
    const MAX: usize = 3;
    let subsets = list(&endpoints.subsets);
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let (mut shown, mut count, mut more) = (Vec::new(), 0, false);
    for subset in subsets {
        let addresses = list(&subset.addresses);
        let ports: Vec<Option<i32>> = match list(&subset.ports) {
            // A headless Service may have no ports.
            [] => vec![None],
            ports => ports.iter().map(|port| Some(port.port)).collect(),
        };
        for port in ports {
            count += addresses.len();
            more |= shown.len() + addresses.len() > MAX;
            let room = MAX - shown.len();
            shown.extend(addresses.iter().take(room).map(|address| match port {
                None => address.ip.clone(),
                Some(port) if address.ip.contains(':') => format!("[{}]:{port}", address.ip),
                Some(port) => format!("{}:{port}", address.ip),
            }));
        }
    }
    let shown = shown.join(",");
    if more {
        format!("{shown} + {} more...", count - MAX)
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        crate::testing::run::<Endpoints>(include_str!("../../testdata/endpoints.yaml"));
    }
}
