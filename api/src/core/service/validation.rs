//! What is wrong with a Service: upstream's `validateService`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::Value;

use super::{allocation::needs_health_check_node_port, is_externally_accessible, is_headless};
use crate::{
    check,
    field::{BadValue, ErrorList, Path, value_of},
    formats,
    zero::{list, text},
};

const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const SET_ONCE: &str = "may not change once set";
const MAX_AFFINITY_SECONDS: i32 = 86_400;
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// Checks a Service that has its addresses and ports.
pub fn service(service: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let no_spec = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&no_spec);
    topology_annotations(service, &mut errors);
    of_type(spec, &path, &mut errors);
    let ports = list(&spec.ports);
    let ports_path = path.child("ports");
    for (index, port) in ports.iter().enumerate() {
        self::port(
            port,
            &ports[..index],
            ports.len() > 1,
            &ports_path.index(index),
            &mut errors,
        );
    }
    check::labels(spec.selector.as_ref(), &path.child("selector"), &mut errors);
    session_affinity(spec, &path, &mut errors);
    errors.extend(cluster_ips(spec));
    for (index, ip) in list(&spec.external_ips).iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        let before = errors.len();
        check::ip(ip, &path, &mut errors);
        if errors.len() == before {
            endpoint_ip(ip, &path, &mut errors);
        }
    }
    check::required_one_of(
        text(&spec.type_),
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        &path.child("type"),
        &mut errors,
    );
    port_conflicts(spec, &ports_path, &mut errors);
    source_ranges(service, spec, &path, &mut errors);
    load_balancer(spec, &path, &mut errors);
    traffic_policies(spec, &path, &mut errors);
    errors
}

fn topology_annotations(service: &Service, errors: &mut ErrorList) {
    let annotation = |name: &str| {
        let annotations = service.metadata.annotations.as_ref();
        annotations.and_then(|annotations| annotations.get(name))
    };
    if let (Some(mode), Some(hints)) = (annotation(TOPOLOGY_MODE), annotation(TOPOLOGY_HINTS))
        && mode != hints
    {
        let path = Path::new("metadata.annotations").key(TOPOLOGY_MODE);
        errors.push(path.invalid(
            mode.as_str(),
            format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified"),
        ));
    }
}

/// What a type asks for and forbids.
fn of_type(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let service_type = text(&spec.type_);
    if list(&spec.ports).is_empty() && !is_headless(spec) && service_type != "ExternalName" {
        errors.push(path.child("ports").required(""));
    }
    match service_type {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            errors.push(path.child("clusterIPs").index(0).invalid(
                "None",
                format!("may not be set to 'None' for {service_type} services"),
            ));
        }
        "ExternalName" => {
            for (field, is_set) in [
                ("clusterIPs", !list(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !list(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if is_set {
                    let message = "may not be set for ExternalName services";
                    errors.push(path.child(field).forbidden(message));
                }
            }
            let name = text(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            let name_path = path.child("externalName");
            if name.is_empty() {
                errors.push(name_path.required(""));
            } else {
                check::subdomain(name, &name_path, errors);
            }
        }
        _ => {}
    }
}

fn port(
    port: &ServicePort,
    earlier: &[ServicePort],
    needs_name: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let name = text(&port.name);
    let name_path = path.child("name");
    if name.is_empty() {
        if needs_name {
            errors.push(name_path.required(""));
        }
    } else {
        check::dns_label(name, &name_path, errors);
        if earlier.iter().any(|other| text(&other.name) == name) {
            errors.push(name_path.duplicate(name));
        }
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
    if let Some(target) = &port.target_port {
        check::port_number_or_name(target, &path.child("targetPort"), errors);
    }
    if let Some(protocol) = &port.app_protocol {
        check::qualified_name(protocol, &path.child("appProtocol"), errors);
    }
}

fn session_affinity(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let affinity = text(&spec.session_affinity);
    let affinity_path = path.child("sessionAffinity");
    check::required_one_of(affinity, &["ClientIP", "None"], &affinity_path, errors);
    let path = path.child("sessionAffinityConfig");
    let config = spec.session_affinity_config.as_ref();
    if affinity == "None" && config.is_some() {
        errors.push(path.forbidden("must not be set when session affinity is None"));
    }
    if affinity != "ClientIP" {
        return;
    }
    let missing = "when session affinity type is ClientIP";
    let client_ip = config.map(|config| config.client_ip.as_ref());
    match client_ip.map(|client_ip| client_ip.map(|c| c.timeout_seconds)) {
        None => errors.push(path.required(missing)),
        Some(None) => errors.push(path.child("clientIP").required(missing)),
        Some(Some(None)) => {
            errors.push(path.child("clientIP.timeoutSeconds").required(missing));
        }
        Some(Some(Some(seconds))) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
            errors.push(path.child("clientIP.timeoutSeconds").invalid(
                seconds,
                format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"),
            ));
        }
        Some(Some(Some(_))) => {}
    }
}

/// Addresses and families: each valid, and together consistent.
pub fn cluster_ips(spec: &ServiceSpec) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(&spec.type_) != "ExternalName" {
        addresses_and_families(spec, &Path::new("spec"), &mut errors);
    }
    errors
}

fn addresses_and_families(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let ips = list(&spec.cluster_ips);
    let ips_path = path.child("clusterIPs");
    match (text(&spec.cluster_ip), ips.first()) {
        ("", Some(_)) => errors.push(ips_path.invalid(
            value_of(&ips),
            "must be empty when `clusterIP` is not specified",
        )),
        ("", None) => {}
        (_, None) => errors.push(ips_path.required("")),
        (ip, Some(first)) if ip != first => {
            let message = "first value must match `clusterIP`";
            errors.push(ips_path.invalid(value_of(&ips), message));
        }
        _ => {}
    }
    let families = list(&spec.ip_families);
    for (index, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        check::one_of(family, &["IPv4", "IPv6"], &path, errors);
        if families[..index].contains(family) {
            errors.push(path.duplicate(family.as_str()));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        check::one_of(
            policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
            &path.child("ipFamilyPolicy"),
            errors,
        );
    }
    let are_valid = valid_ips(ips, &ips_path, errors);
    if ips.len() > 2 {
        errors.push(ips_path.invalid(value_of(&ips), "may only hold up to 2 values"));
    }
    if !are_valid {
        return;
    }
    let is_v6 = |ip: &String| formats::sloppy_ip(ip).is_some_and(|ip| ip.is_ipv6());
    if ips.len() > 1 && ips.iter().map(is_v6).collect::<BTreeSet<_>>().len() < 2 {
        let message = "may specify no more than one IP for each IP family";
        errors.push(ips_path.invalid(value_of(&ips), message));
    }
    for (index, (ip, family)) in ips.iter().zip(families).enumerate() {
        let matches = match family.as_str() {
            _ if is_headless(spec) => true,
            "IPv4" => !is_v6(ip),
            "IPv6" => is_v6(ip),
            _ => true,
        };
        if !matches {
            errors.push(ips_path.index(index).invalid(
                ip.as_str(),
                format!("expected an {family} value as indicated by `ipFamilies[{index}]`"),
            ));
        }
    }
}

fn valid_ips(ips: &[String], path: &Path, errors: &mut ErrorList) -> bool {
    let before = errors.len();
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && ip == "None" {
            if ips.len() > 1 {
                let message = "'None' must be the first and only value";
                errors.push(path.invalid(value_of(&ips), message));
            }
        } else {
            check::ip(ip, &path.index(index), errors);
        }
    }
    errors.len() == before
}

/// An address that traffic can be sent to from another node.
pub fn endpoint_ip(value: &str, path: &Path, errors: &mut ErrorList) {
    let Some(ip) = formats::sloppy_ip(value) else {
        errors.push(path.invalid(value, "must be a valid IP address"));
        return;
    };
    if ip.is_unspecified() {
        errors.push(path.invalid(value, format!("may not be unspecified ({value})")));
    }
    let (is_link_local, is_link_local_multicast) = match ip {
        std::net::IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    for (applies, message) in [
        (
            ip.is_loopback(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            is_link_local,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            is_link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ] {
        if applies {
            errors.push(path.invalid(value, message));
        }
    }
}

fn port_conflicts(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let ports = list(&spec.ports);
    let node_port = |port: &ServicePort| port.node_port.filter(|&port| port != 0);
    if text(&spec.type_) == "ClusterIP" {
        for (index, _) in ports
            .iter()
            .enumerate()
            .filter(|(_, p)| node_port(p).is_some())
        {
            let message = "may not be used when `type` is 'ClusterIP'";
            errors.push(path.index(index).child("nodePort").forbidden(message));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let is_taken = |other: &ServicePort| {
            other.protocol == port.protocol && node_port(other) == node_port(port)
        };
        if let Some(number) = node_port(port)
            && ports[..index].iter().any(is_taken)
        {
            errors.push(path.index(index).child("nodePort").duplicate(number));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let is_same =
            |other: &ServicePort| other.protocol == port.protocol && other.port == port.port;
        if ports[..index].iter().any(is_same) {
            errors.push(path.index(index).duplicate(BadValue::Struct(vec![
                ("Name", "".into()),
                ("Protocol", text(&port.protocol).into()),
                ("AppProtocol", Value::Null.into()),
                ("Port", port.port.into()),
                ("TargetPort", 0.into()),
                ("NodePort", 0.into()),
            ])));
        }
    }
}

fn source_ranges(service: &Service, spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let is_balanced = text(&spec.type_) == "LoadBalancer";
    let ranges = list(&spec.load_balancer_source_ranges);
    if !ranges.is_empty() {
        let path = path.child("LoadBalancerSourceRanges");
        if !is_balanced {
            errors.push(path.forbidden(ONLY_LOAD_BALANCER));
        }
        for (index, range) in ranges.iter().enumerate() {
            let range = range.trim();
            check::each(&path.index(index), range, formats::cidr(range), errors);
        }
        return;
    }
    let annotations = service.metadata.annotations.as_ref();
    let Some(value) = annotations.and_then(|annotations| annotations.get(SOURCE_RANGES)) else {
        return;
    };
    let path = Path::new("metadata.annotations").key(SOURCE_RANGES);
    if !is_balanced {
        errors.push(path.forbidden(ONLY_LOAD_BALANCER));
    }
    let ranges = value.trim().split(',').map(str::trim);
    for range in ranges.filter(|_| !value.trim().is_empty()) {
        check::each(&path, range, formats::cidr(range), errors);
    }
}

fn load_balancer(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let is_balanced = text(&spec.type_) == "LoadBalancer";
    match spec.allocate_load_balancer_node_ports {
        Some(_) if !is_balanced => errors.push(
            path.child("allocateLoadBalancerNodePorts")
                .forbidden(ONLY_LOAD_BALANCER),
        ),
        None if is_balanced => {
            errors.push(Path::new("allocateLoadBalancerNodePorts").required(""));
        }
        _ => {}
    }
    if let Some(class) = &spec.load_balancer_class {
        let path = path.child("loadBalancerClass");
        if is_balanced {
            check::qualified_name(class, &path, errors);
        } else {
            errors.push(path.forbidden(ONLY_LOAD_BALANCER));
        }
    }
}

fn traffic_policies(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let external = text(&spec.external_traffic_policy);
    let external_path = path.child("externalTrafficPolicy");
    let policies = &["Cluster", "Local"];
    if is_externally_accessible(spec) {
        check::required_one_of(external, policies, &external_path, errors);
    } else if !external.is_empty() {
        let message = "may only be set for externally-accessible services";
        errors.push(external_path.invalid(external, message));
    }
    let node_port = spec.health_check_node_port.unwrap_or(0);
    let node_port_path = path.child("healthCheckNodePort");
    match (needs_health_check_node_port(spec), node_port) {
        (true, 0) => errors.push(node_port_path.required("")),
        (true, port) => {
            check::each(&node_port_path, port, formats::port_number(port), errors);
        }
        (false, 0) => {}
        (false, port) => errors.push(node_port_path.invalid(
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        )),
    }
    let internal_path = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        Some(policy) => check::one_of(policy, policies, &internal_path, errors),
        None if matches!(text(&spec.type_), "ClusterIP" | "NodePort" | "LoadBalancer") => {
            errors.push(internal_path.required(""));
        }
        None => {}
    }
    if let Some(distribution) = &spec.traffic_distribution {
        check::one_of(
            distribution,
            &["PreferClose", "PreferSameZone", "PreferSameNode"],
            &path.child("trafficDistribution"),
            errors,
        );
    }
}

/// What is wrong with a change: addresses and families stay, but for a second one.
pub fn update(new: &Service, old: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        if text(&new.type_) != "ExternalName" && text(&old.type_) != "ExternalName" {
            changed_ips(new, old, &path, &mut errors);
            changed_families(new, old, &path, &mut errors);
        }
        let is_balanced = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
        if is_balanced(new)
            && is_balanced(old)
            && new.load_balancer_class != old.load_balancer_class
        {
            let value = value_of(&new.load_balancer_class);
            errors.push(path.child("loadBalancerClass").invalid(value, SET_ONCE));
        }
        if needs_health_check_node_port(new)
            && needs_health_check_node_port(old)
            && new.health_check_node_port != old.health_check_node_port
        {
            errors.push(
                path.child("healthCheckNodePort")
                    .forbidden("field is immutable"),
            );
        }
    }
    errors.extend(service(new));
    errors
}

fn changed_ips(new: &ServiceSpec, old: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    if is_headless(new) && is_headless(old) {
        return;
    }
    let (new_ips, old_ips) = (list(&new.cluster_ips), list(&old.cluster_ips));
    let path_of = |index| path.child("clusterIPs").index(index);
    let value = || value_of(&new_ips);
    if old_ips.len() == new_ips.len() {
        for (index, _) in old_ips
            .iter()
            .zip(new_ips)
            .enumerate()
            .filter(|(_, (o, n))| o != n)
        {
            errors.push(path_of(index).invalid(value(), SET_ONCE));
        }
        return;
    }
    match (new_ips.first(), old_ips.first()) {
        (None, Some(_)) => {
            errors.push(path_of(0).invalid(value(), "primary clusterIP can not be unset"));
        }
        (Some(new), Some(old)) if new != old => {
            errors.push(path_of(0).invalid(value(), SET_ONCE));
        }
        _ => {}
    }
    if old_ips.len() > new_ips.len() && new_ips.len() == 1 {
        releases_second(new, "clusterIP", path, errors);
    }
}

fn changed_families(new: &ServiceSpec, old: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    if is_headless(new) || is_headless(old) {
        return;
    }
    let (families, old_families) = (list(&new.ip_families), list(&old.ip_families));
    let path_of_first = path.child("ipFamilies").index(0);
    if families.len() == old_families.len() {
        for _ in old_families
            .iter()
            .zip(families)
            .filter(|(old, new)| old != new)
        {
            errors.push(path_of_first.invalid(value_of(&families), SET_ONCE));
        }
        return;
    }
    if old_families.len() > families.len() && list(&new.cluster_ips).is_empty() {
        let message = "primary ipFamily can not be unset";
        errors.push(path_of_first.invalid(value_of(&families), message));
    }
    if let (Some(family), Some(old)) = (families.first(), old_families.first())
        && family != old
    {
        // Upstream shows the addresses here.
        errors.push(path_of_first.invalid(value_of(&list(&new.cluster_ips)), SET_ONCE));
    }
    if old_families.len() > families.len() && families.len() == 1 {
        releases_second(new, "ipFamily", path, errors);
    }
}

fn releases_second(new: &ServiceSpec, what: &str, path: &Path, errors: &mut ErrorList) {
    if new.ip_family_policy.as_deref() != Some("SingleStack") {
        errors.push(path.child("ipFamilyPolicy").invalid(
            value_of(&new.ip_family_policy),
            format!("must be set to 'SingleStack' when releasing the secondary {what}"),
        ));
    }
}

/// What is wrong with the status, which only a load balancer writes.
pub fn status(service: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status.loadBalancer.ingress");
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .map_or(&[][..], |balancer| list(&balancer.ingress));
    let spec = service.spec.as_ref();
    if !ingress.is_empty() && spec.is_none_or(|spec| text(&spec.type_) != "LoadBalancer") {
        return vec![path.forbidden("may only be used when `spec.type` is 'LoadBalancer'")];
    }
    for (index, ingress) in ingress.iter().enumerate() {
        let path = path.index(index);
        let (ip, mode_path) = (text(&ingress.ip), path.child("ipMode"));
        if !ip.is_empty() {
            check::ip(ip, &path.child("ip"), &mut errors);
        }
        match &ingress.ip_mode {
            None if !ip.is_empty() => {
                errors.push(mode_path.required("must be specified when `ip` is set"));
            }
            None => {}
            Some(_) if ip.is_empty() => {
                errors.push(mode_path.forbidden("may not be specified when `ip` is not set"));
            }
            Some(mode) => check::one_of(mode, &["Proxy", "VIP"], &mode_path, &mut errors),
        }
        let name = text(&ingress.hostname);
        if !name.is_empty() {
            let path = path.child("hostname");
            check::subdomain(name, &path, &mut errors);
            if formats::sloppy_ip(name).is_some() {
                errors.push(path.invalid(name, "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}
