//! EndpointSlices as sets of endpoints: what makes two of them the same, and what differs.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::labels::Labels;

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

pub(super) fn label<'a>(slice: &'a EndpointSlice, key: &str) -> &'a str {
    let labels = slice.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(key))
        .map_or("", String::as_str)
}

pub(super) fn endpoints(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

/// The ports of a slice, in an order that makes two lists comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortKey(Vec<(String, Option<i32>, String, Option<String>)>);

impl PortKey {
    pub fn of(ports: &[EndpointPort]) -> Self {
        let mut key: Vec<_> = ports
            .iter()
            .map(|port| {
                (
                    port.name.clone().unwrap_or_default(),
                    port.port,
                    port.protocol.clone().unwrap_or_default(),
                    port.app_protocol.clone(),
                )
            })
            .collect();
        key.sort();
        PortKey(key)
    }

    pub fn of_slice(slice: &EndpointSlice) -> Self {
        PortKey::of(slice.ports.as_deref().unwrap_or_default())
    }
}

/// What makes an endpoint the same one when its state changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointKey {
    addresses: Vec<String>,
    hostname: String,
    namespace: String,
    name: String,
}

impl EndpointKey {
    pub fn of(endpoint: &Endpoint) -> Self {
        let mut addresses = endpoint.addresses.clone();
        addresses.sort();
        let target = endpoint.target_ref.as_ref();
        EndpointKey {
            addresses,
            hostname: endpoint.hostname.clone().unwrap_or_default(),
            namespace: target
                .and_then(|target| target.namespace.clone())
                .unwrap_or_default(),
            name: target
                .and_then(|target| target.name.clone())
                .unwrap_or_default(),
        }
    }
}

/// Endpoints, each once.
pub(super) type Set = BTreeMap<EndpointKey, Endpoint>;

/// Whether two endpoints with the same key are in the same state.
pub(super) fn same_state(left: &Endpoint, right: &Endpoint) -> bool {
    let conditions = |endpoint: &Endpoint| endpoint.conditions.clone().unwrap_or_default();
    let target = |endpoint: &Endpoint| {
        endpoint.target_ref.clone().map(|mut target| {
            target.resource_version = None;
            target
        })
    };
    left.node_name == right.node_name
        && left.zone == right.zone
        && conditions(left) == conditions(right)
        && target(left) == target(right)
}

/// The labels without those that say whose slice it is.
pub(super) fn own_labels(labels: Option<&Labels>) -> Labels {
    let labels = labels.into_iter().flatten();
    labels
        .filter(|(key, _)| ![SERVICE_NAME, MANAGED_BY, super::HEADLESS].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What names of slices begin with: `name-`, or the name alone where that would be too long.
pub(super) fn name_prefix(service: &str) -> String {
    if service.len() < 253 {
        format!("{service}-")
    } else {
        service.to_owned()
    }
}
