//! What the runtime is told of a pod's sandbox (upstream's `generatePodSandboxConfig`).

use std::path::Path;

use k8s_cri::v1::{
    DnsConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use kube::ResourceExt as _;

use super::{
    hostname::Hostname,
    labels, resources, security,
    spec::{init_containers, is_host_network, is_sidecar, spec, uid},
};

/// Puts the configuration together.
///
/// # Errors
/// In upstream's words, when the pod's host name is none.
pub fn config(
    pod: &Pod,
    attempt: u32,
    dns: DnsConfig,
    log_directory: &Path,
    cgroup_parent: &Path,
    cluster_domain: &str,
) -> Result<PodSandboxConfig, String> {
    let hostname = match is_host_network(pod) {
        true => String::new(),
        false => Hostname::of(pod, cluster_domain)?.for_kernel(pod)?,
    };
    let resources = resources::of_sandbox(pod);
    let sysctls = spec(pod)
        .security_context
        .iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        // Slashes and dots separate alike; the runtime knows dots.
        .map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone()))
        .collect();
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name_any(),
            uid: uid(pod).to_owned(),
            namespace: pod.namespace().unwrap_or_default(),
            attempt,
        }),
        hostname,
        log_directory: log_directory.to_string_lossy().into_owned(),
        dns_config: Some(dns),
        port_mappings: port_mappings(pod),
        labels: labels::of_sandbox(pod),
        annotations: pod.annotations().clone().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_string_lossy().into_owned(),
            security_context: Some(security::sandbox(pod)),
            sysctls,
            overhead: Some(resources.overhead),
            resources: Some(resources.resources),
        }),
        windows: None,
    })
}

/// The ports of the containers that run side by side; the host's are forwarded by the network
/// plugin.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let spec = spec(pod);
    let sidecars = init_containers(spec).iter().filter(|it| is_sidecar(it));
    sidecars
        .chain(&spec.containers)
        .flat_map(ports)
        .map(|port| PortMapping {
            protocol: protocol(port).into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// A port that is named twice counts once.
fn ports(container: &Container) -> Vec<&ContainerPort> {
    let key = |port: &ContainerPort| match port.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => format!(
            "{:?}-{:?}-{}:{:?}",
            port.host_ip, port.protocol, port.container_port, port.host_port
        ),
    };
    let mut seen = std::collections::HashSet::new();
    container
        .ports
        .iter()
        .flatten()
        .filter(|port| seen.insert(key(port)))
        .collect()
}

fn protocol(port: &ContainerPort) -> Protocol {
    match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_sandbox_carries_name_ports_sysctls_and_labels() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
            "spec": {
                "securityContext": {"sysctls": [{"name": "net/core/somaxconn", "value": "1"}]},
                "containers": [{"name": "c", "ports": [
                    {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
                    {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
                    {"containerPort": 53, "protocol": "UDP"},
                ]}],
            },
        }))
        .expect("a pod");
        let config = config(
            &pod,
            2,
            DnsConfig::default(),
            Path::new("/logs"),
            Path::new("/kubepods/podu"),
            "c",
        )
        .expect("it is valid");
        assert_eq!(config.hostname, "p");
        assert_eq!(config.metadata.map(|it| it.attempt), Some(2));
        assert_eq!(config.port_mappings.len(), 2);
        assert_eq!(config.port_mappings[1].protocol(), Protocol::Udp);
        assert_eq!(config.labels["app"], "x");
        let linux = config.linux.expect("it is Linux");
        assert_eq!(linux.sysctls["net.core.somaxconn"], "1");
        assert_eq!(linux.cgroup_parent, "/kubepods/podu");
    }
}
