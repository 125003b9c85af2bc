//! A pod as an endpoint.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::pods;

/// What of a pod has changed that Services care for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Its address or its readiness.
    pub endpoint: bool,
    /// Which Services it belongs to, or its name in them.
    pub labels: bool,
}

impl Change {
    pub const ALL: Change = Change {
        endpoint: true,
        labels: true,
    };
}

pub(super) fn change(old: &Pod, new: &Pod) -> Change {
    let name = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.map(|spec| (spec.hostname.clone(), spec.subdomain.clone()))
    };
    Change {
        endpoint: old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
            || pods::is_ready(old) != pods::is_ready(new)
            || pods::is_terminal(old) != pods::is_terminal(new)
            || addresses(old) != addresses(new),
        labels: old.metadata.labels != new.metadata.labels || name(old) != name(new),
    }
}

/// The pod's addresses, in its own order.
pub(super) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let listed = pod.status.iter().flat_map(|status| &status.pod_ips);
    listed
        .flatten()
        .filter_map(|address| address.ip.parse().ok())
        .collect()
}

/// Whether the pod is an endpoint at all.
pub(super) fn is_endpoint(pod: &Pod, include_terminating: bool) -> bool {
    let status = pod.status.as_ref();
    let has_address = status.is_some_and(|status| {
        status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty())
            || status.pod_ips.as_ref().is_some_and(|ips| !ips.is_empty())
    });
    has_address
        && !pods::is_terminal(pod)
        && (include_terminating || pod.metadata.deletion_timestamp.is_none())
}

/// The name that the pod has below the Service's.
pub(super) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname
        .clone()
        .filter(|hostname| named && !hostname.is_empty())
}

pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pod's port that the Service's port leads to. A name is looked for in the containers and
/// then in the sidecars.
pub(super) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
        None => return Some(port.port),
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars =
        sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let wanted = port.protocol.as_deref().unwrap_or("TCP");
    let fits = |candidate: &&ContainerPort| {
        candidate.name.as_ref() == Some(name)
            && candidate.protocol.as_deref().unwrap_or("TCP") == wanted
    };
    ports
        .into_iter()
        .find(fits)
        .map(|found| found.container_port)
}
