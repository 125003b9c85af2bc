//! What a Service needs to be given, and what it keeps over an update.
//!
//! The API server calls [`normalize_cluster_ips`] and, on an update, [`keep_allocated`] before
//! it allocates what is missing; validation comes after that.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use crate::zero::{list, list_mut, text};

/// Whether it has addresses at all.
pub fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    text(&spec.type_) != "ExternalName"
}

/// Whether its ports are opened on every node.
pub fn needs_node_port(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Whether a load balancer asks each node for endpoints of its own.
pub fn needs_health_check_node_port(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

/// The node ports that it has.
pub fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    list(&spec.ports)
        .iter()
        .filter_map(|port| port.node_port)
        .filter(|&port| port != 0)
        .collect()
}

/// Makes `clusterIP` and `clusterIPs` agree for a client that knows only the first.
pub fn normalize_cluster_ips(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        // Only the first of a new Service: the second follows from it.
        if !text(&new.cluster_ip).is_empty() && list(&new.cluster_ips).is_empty() {
            new.cluster_ips = new.cluster_ip.clone().map(|ip| vec![ip]);
        }
        return;
    };
    let same_list = new.cluster_ips == old.cluster_ips;
    if new.cluster_ip == old.cluster_ip {
        // A client that does not know the list leaves it out.
        if list(&new.cluster_ips).is_empty() && !text(&new.cluster_ip).is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if same_list {
        new.cluster_ips = new.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

/// Takes from the old Service what the client left out.
pub fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(&new.cluster_ip).is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if list(&new.cluster_ips).is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        keep_node_ports(new, old);
    }
    if needs_health_check_node_port(old)
        && needs_health_check_node_port(new)
        && new.health_check_node_port.unwrap_or(0) == 0
    {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A port without a node port keeps the one of the old port of that name, unless another took it.
fn keep_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let (old_ports, new_ports) = (node_ports(old), node_ports(new));
    let by_name: BTreeMap<&str, i32> = list(&old.ports)
        .iter()
        .filter_map(|port| Some((text(&port.name), port.node_port?)))
        .collect();
    for port in list_mut(&mut new.ports) {
        if port.node_port.unwrap_or(0) != 0 {
            continue;
        }
        let kept = by_name.get(text(&port.name)).copied();
        port.node_port =
            kept.filter(|port| !(old_ports.contains(port) && new_ports.contains(port)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> ServiceSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = spec(json!({"type": "NodePort", "clusterIP": "10.43.0.7",
            "clusterIPs": ["10.43.0.7"],
            "ports": [{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30002}]}));
        let mut new = spec(json!({"type": "NodePort",
            "ports": [{"name": "a", "port": 1}, {"name": "c", "port": 3, "nodePort": 30002}, {"name": "b", "port": 2}]}));
        normalize_cluster_ips(&mut new, Some(&old));
        keep_allocated(&mut new, &old);
        assert_eq!(new.cluster_ips, old.cluster_ips);
        let ports: Vec<_> = list(&new.ports).iter().map(|port| port.node_port).collect();
        assert_eq!(ports, [Some(30001), Some(30002), None]);
    }

    #[test]
    fn the_first_address_stands_for_all() {
        let mut new = spec(json!({"type": "ClusterIP", "clusterIP": "None"}));
        normalize_cluster_ips(&mut new, None);
        assert_eq!(list(&new.cluster_ips), ["None"]);
        let old = new.clone();
        let mut new =
            spec(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["None"]}));
        normalize_cluster_ips(&mut new, Some(&old));
        assert_eq!(list(&new.cluster_ips), ["10.0.0.1"]);
    }
}
