//! What is allowed in a Service and most likely not meant.

use k8s_openapi::api::core::v1::Service;

use super::is_headless;
use crate::{
    field::Path,
    formats,
    zero::{list, text},
};

/// Warnings about a Service, new or changed.
pub fn service(service: &Service) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(spec) = &service.spec else {
        return warnings;
    };
    let path = Path::new("spec");
    let annotations = service.metadata.annotations.as_ref();
    if annotations.is_some_and(|a| a.contains_key("service.kubernetes.io/topology-aware-hints")) {
        warnings.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .to_owned(),
        );
    }
    let service_type = text(&spec.type_);
    let has_external_ips = !list(&spec.external_ips).is_empty();
    let is_headless = service_type == "ClusterIP" && is_headless(spec);
    if !is_headless {
        for (index, ip) in list(&spec.cluster_ips).iter().enumerate() {
            let path = path.child("clusterIPs").index(index);
            warnings.extend(formats::ip_warning(&path, ip));
        }
    }
    let mut warn = |applies: bool, warning: &str| {
        if applies {
            warnings.push(warning.to_owned());
        }
    };
    warn(
        is_headless && spec.load_balancer_ip.is_some(),
        "spec.loadBalancerIP is ignored for headless services",
    );
    warn(
        is_headless && has_external_ips,
        "spec.externalIPs is ignored for headless services",
    );
    warn(
        is_headless && text(&spec.session_affinity) != "None",
        "spec.SessionAffinity is ignored for headless services",
    );
    for (index, ip) in list(&spec.external_ips).iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        if let Some(warning) = formats::ip_warning(&path, ip) {
            warn(true, &warning);
        }
    }
    warn(
        has_external_ips && !is_headless && service_type != "ExternalName",
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    if let Some(ip) = &spec.load_balancer_ip
        && let Some(warning) = formats::ip_warning(&path.child("loadBalancerIP"), ip)
    {
        warn(true, &warning);
    }
    warn(
        has_external_ips && service_type == "ExternalName",
        r#"spec.externalIPs is ignored when spec.type is "ExternalName""#,
    );
    warn(
        service_type != "ExternalName" && spec.external_name.is_some(),
        r#"spec.externalName is ignored when spec.type is not "ExternalName""#,
    );
    warn(
        spec.traffic_distribution.as_deref() == Some("PreferClose"),
        r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#,
    );
    warnings
}
