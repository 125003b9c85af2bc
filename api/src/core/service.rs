//! Service.
//!
//! `allocation` decides what a Service needs (addresses, node ports) and what it keeps over an
//! update; handing them out is up to the API server. `validation` is what may be wrong.

pub mod allocation;
mod table;
mod validation;
mod warnings;

pub use validation::cluster_ips;
pub(crate) use validation::endpoint_ip;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ClientIPConfig, LoadBalancerStatus, Service, ServiceSpec, SessionAffinityConfig,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use crate::{
    field::ErrorList,
    formats, shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    zero::{default_text, list, list_mut, text},
};

/// How long a client stays with its endpoint unless the Service says otherwise: three hours.
const CLIENT_IP_TIMEOUT_SECONDS: i32 = 10_800;

impl Behaviour for Service {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_session_affinity(spec);
        default_text(&mut spec.type_, "ClusterIP");
        for port in list_mut(&mut spec.ports) {
            default_text(&mut port.protocol, "TCP");
            let is_unset = match &port.target_port {
                None | Some(IntOrString::Int(0)) => true,
                Some(IntOrString::Int(_)) => false,
                Some(IntOrString::String(name)) => name.is_empty(),
            };
            if is_unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if is_externally_accessible(spec) {
            default_text(&mut spec.external_traffic_policy, "Cluster");
        }
        let service_type = text(&spec.type_);
        if matches!(service_type, "ClusterIP" | "NodePort" | "LoadBalancer") {
            spec.internal_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        if text(&spec.type_) == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
            default_ip_mode(self);
        }
    }

    fn prepare_for_create(&mut self) {
        clear_load_balancer(self);
    }

    fn prepare_for_update(&mut self, old: &Self) {
        let (Some(spec), Some(old)) = (&mut self.spec, &old.spec) else {
            return;
        };
        drop_dependent_on_type(spec, old);
        if text(&spec.type_) != "LoadBalancer" {
            clear_load_balancer(self);
        }
    }

    fn validate(&self) -> ErrorList {
        validation::service(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        validation::update(self, old)
    }

    fn validate_subresource(&self, _old: &Self, subresource: Subresource) -> ErrorList {
        match subresource {
            Subresource::Status => validation::status(self),
            _ => ErrorList::new(),
        }
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        warnings::service(self)
    }

    fn status_warnings(&self) -> Vec<String> {
        let balancer = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let points = balancer.map_or(&[][..], |balancer| list(&balancer.ingress));
        formats::load_balancer_warnings(points.iter().map(|point| point.ip.as_deref()))
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &["spec.clusterIP", "spec.type"];

    fn selectable_fields(&self) -> Vec<String> {
        let spec = self.spec.as_ref();
        [
            spec.map_or("", |spec| text(&spec.cluster_ip)),
            spec.map_or("", |spec| text(&spec.type_)),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

fn default_session_affinity(spec: &mut ServiceSpec) {
    default_text(&mut spec.session_affinity, "None");
    match text(&spec.session_affinity) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref();
            let timeout = config
                .and_then(|config| config.client_ip.as_ref())
                .and_then(|client_ip| client_ip.timeout_seconds);
            spec.session_affinity_config = Some(SessionAffinityConfig {
                client_ip: Some(ClientIPConfig {
                    timeout_seconds: Some(timeout.unwrap_or(CLIENT_IP_TIMEOUT_SECONDS)),
                }),
            });
        }
        _ => {}
    }
}

fn default_ip_mode(service: &mut Service) {
    let ingress = service
        .status
        .as_mut()
        .and_then(|status| status.load_balancer.as_mut())
        .map(|balancer| list_mut(&mut balancer.ingress));
    for ingress in ingress.into_iter().flatten() {
        if ingress.ip.is_some() {
            ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
    }
}

/// Upstream always serves the load balancer's status, be it empty.
fn clear_load_balancer(service: &mut Service) {
    let status = service.status.get_or_insert_default();
    status.load_balancer = Some(LoadBalancerStatus::default());
}

/// Whether traffic from outside the cluster may come in.
fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(&spec.external_ips).is_empty(),
        _ => false,
    }
}

fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(list(&spec.cluster_ips), [ip] if ip == "None")
}

/// What the old type had and the new one cannot have goes, unless the client changed it: that is
/// an error then.
fn drop_dependent_on_type(new: &mut ServiceSpec, old: &ServiceSpec) {
    use allocation::{needs_cluster_ip, needs_health_check_node_port, node_ports};

    let has_node_ports =
        |spec: &ServiceSpec| matches!(text(&spec.type_), "NodePort" | "LoadBalancer");
    let is_balanced = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if has_node_ports(old) && !has_node_ports(new) {
        let old_ports = node_ports(old);
        if node_ports(new).is_subset(&old_ports) {
            for port in list_mut(&mut new.ports) {
                port.node_port = None;
            }
        }
    }
    if needs_health_check_node_port(old)
        && !needs_health_check_node_port(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    if is_balanced(old) && !is_balanced(new) {
        let allocate = new.allocate_load_balancer_node_ports;
        if allocate == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if is_externally_accessible(old)
        && !is_externally_accessible(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        crate::testing::run::<Service>(include_str!("../../testdata/service.yaml"));
    }
}
