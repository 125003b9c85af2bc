//! The variables that tell a container of the Services that were there before it
//! (pkg/kubelet/envvars of upstream).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;

/// The variables for a pod of `namespace`: of the Services of that namespace when `links` is
/// wanted, and of the API's own in any case.
pub fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<String, &Service> = BTreeMap::new();
    for service in services {
        let name = service.name_any();
        let of = service.namespace().unwrap_or_default();
        if !has_address(service) {
            continue;
        }
        if of == namespace && links {
            chosen.insert(name, service);
        } else if of == "default" && name == "kubernetes" {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        add(&name, service, &mut variables);
    }
    variables
}

fn address(service: &Service) -> &str {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref())
        .unwrap_or_default()
}

fn has_address(service: &Service) -> bool {
    let external = service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"));
    !external && !matches!(address(service), "" | "None")
}

/// `my-service` as it stands in a variable's name.
fn upper(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn add(name: &str, service: &Service, variables: &mut BTreeMap<String, String>) {
    let prefix = upper(name);
    let host = address(service);
    let spec = service.spec.as_ref();
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let Some(first) = ports.first() else {
        return;
    };
    let mut put = |name: String, value: String| {
        variables.insert(name, value);
    };
    put(format!("{prefix}_SERVICE_HOST"), host.to_owned());
    put(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    let joined = |port: i32| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    for (index, port) in ports.iter().enumerate() {
        let number = port.port;
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name = format!("{prefix}_SERVICE_PORT_{}", upper(name));
            put(name, number.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{}", joined(number));
        if index == 0 {
            put(format!("{prefix}_PORT"), url.clone());
        }
        let prefix = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        put(format!("{prefix}_PROTO"), lower);
        put(format!("{prefix}_PORT"), number.to_string());
        put(format!("{prefix}_ADDR"), host.to_owned());
        put(prefix, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [
                {"name": "http", "port": 80, "protocol": "TCP"},
                {"name": "dns-udp", "port": 53, "protocol": "UDP"},
            ]},
        }))
        .expect("a service")
    }

    #[test]
    fn services_of_the_namespace_and_the_api_are_told_of() {
        let services = [
            service("n", "my-web", "10.43.0.7"),
            service("n", "headless", "None"),
            service("other", "hidden", "10.43.0.8"),
            service("default", "kubernetes", "10.43.0.1"),
        ];
        let all = variables(&services, "n", true);
        for (name, value) in [
            ("MY_WEB_SERVICE_HOST", "10.43.0.7"),
            ("MY_WEB_SERVICE_PORT", "80"),
            ("MY_WEB_SERVICE_PORT_HTTP", "80"),
            ("MY_WEB_SERVICE_PORT_DNS_UDP", "53"),
            ("MY_WEB_PORT", "tcp://10.43.0.7:80"),
            ("MY_WEB_PORT_80_TCP", "tcp://10.43.0.7:80"),
            ("MY_WEB_PORT_53_UDP_PROTO", "udp"),
            ("MY_WEB_PORT_53_UDP_PORT", "53"),
            ("MY_WEB_PORT_53_UDP_ADDR", "10.43.0.7"),
            ("KUBERNETES_SERVICE_HOST", "10.43.0.1"),
        ] {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(
            !all.keys()
                .any(|name| name.contains("HIDDEN") || name.contains("HEADLESS"))
        );
        let master_only = variables(&services, "n", false);
        assert!(
            master_only
                .keys()
                .all(|name| name.starts_with("KUBERNETES_"))
        );
    }

    #[test]
    fn addresses_of_ipv6_are_bracketed_in_urls() {
        let all = variables(&[service("n", "s", "fd00::1")], "n", true);
        assert_eq!(all["S_PORT"], "tcp://[fd00::1]:80");
        assert_eq!(all["S_SERVICE_HOST"], "fd00::1");
    }
}
