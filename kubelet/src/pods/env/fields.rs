//! The downward API: fields of a pod and resources of its containers as text, for variables and
//! for files.

use std::collections::BTreeMap;

use coracle_api::{
    core::pod::resources::is_huge_page,
    quantity::{Amount, ResourceList},
};
use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use kube::ResourceExt as _;

use crate::pods::spec::{find_container, spec, uid};

/// What fields of the status hold before the status is written.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
}

/// The value of a `fieldRef`.
///
/// # Errors
/// In upstream's words, for a path that names nothing.
pub fn field(
    selector: &ObjectFieldSelector,
    pod: &Pod,
    addresses: &Addresses,
) -> Result<String, String> {
    let path = selector.field_path.as_str();
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => pod.annotations(),
            "metadata.labels" => pod.labels(),
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.annotations" => format_map(pod.annotations()),
        "metadata.labels" => format_map(pod.labels()),
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => uid(pod).to_owned(),
        "spec.nodeName" => text(&spec(pod).node_name),
        "spec.serviceAccountName" => text(&spec(pod).service_account_name),
        "status.hostIP" => first(&addresses.host_ips),
        "status.hostIPs" => addresses.host_ips.join(","),
        "status.podIP" => first(&addresses.pod_ips),
        "status.podIPs" => addresses.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['app']` in its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    (!map.is_empty()).then_some((map, key))
}

/// `key="value"` lines, sorted by key, with Go's quoting.
pub fn format_map(map: &BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            control if control.is_ascii_control() => {
                quoted.push_str(&format!("\\x{:02x}", control as u32));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a `resourceFieldRef`, in units of its divisor and rounded up. A limit that is not
/// set is what the node has for pods.
///
/// # Errors
/// In upstream's words, when there is no such container or resource.
pub fn resource(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    own: Option<&Container>,
    allocatable: &ResourceList,
) -> Result<String, String> {
    let named = selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let found = named.and_then(|name| find_container(spec(pod), name));
    let container = match (named, own) {
        (Some(name), _) => {
            let (_, container) = found
                .as_ref()
                .ok_or_else(|| format!("container {name} not found"))?;
            container
        }
        (None, Some(own)) => own,
        (None, None) => return Err("container  not found".to_owned()),
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (part, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let compute = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    if !compute && !is_huge_page(name) {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let amount = match part {
        "limits" => {
            let limit = amount(resources.and_then(|it| it.limits.as_ref()), name);
            match limit.is_zero() && compute {
                true => default_limit(pod, name, allocatable),
                false => limit,
            }
        }
        "requests" => amount(resources.and_then(|it| it.requests.as_ref()), name),
        _ => return Err(unsupported()),
    };
    let divisor = selector
        .divisor
        .as_ref()
        .map(Amount::from)
        .filter(|divisor| !divisor.is_zero())
        .unwrap_or(Amount::from_integer(1));
    let (amount, divisor) = match name {
        "cpu" => (amount.milli_value(), divisor.milli_value()),
        _ => (amount.value(), divisor.value()),
    };
    Ok(divide_up(amount, divisor).to_string())
}

fn amount(list: Option<&ResourceList>, name: &str) -> Amount {
    list.and_then(|list| list.get(name))
        .map(Amount::from)
        .unwrap_or_default()
}

fn default_limit(pod: &Pod, name: &str, allocatable: &ResourceList) -> Amount {
    let pod_level = spec(pod)
        .resources
        .as_ref()
        .and_then(|it| it.limits.as_ref());
    let limit = amount(pod_level, name);
    if limit.is_zero() {
        amount(Some(allocatable), name)
    } else {
        limit
    }
}

fn divide_up(dividend: i64, divisor: i64) -> i64 {
    let divisor = divisor.max(1);
    dividend / divisor + i64::from(dividend % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "n", "uid": "u",
                "labels": {"b": "2", "a": "1\"x"}, "annotations": {"k/x": "v"},
            },
            "spec": {
                "nodeName": "node", "serviceAccountName": "sa",
                "containers": [{"name": "c", "resources": {
                    "limits": {"cpu": "1500m", "memory": "64Mi"},
                    "requests": {"cpu": "250m", "hugepages-2Mi": "4Mi"},
                }}],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn fields_read_as_upstreams() {
        let addresses = Addresses {
            pod_ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            host_ips: vec!["192.168.0.1".into()],
        };
        let cases = [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"1\\\"x\"\nb=\"2\"")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations['k/x']", Ok("v")),
            ("spec.nodeName", Ok("node")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.podIP", Ok("10.0.0.1")),
            ("status.podIPs", Ok("10.0.0.1,fd00::1")),
            ("status.hostIP", Ok("192.168.0.1")),
            ("status.phase", Err("unsupported fieldPath: status.phase")),
            (
                "spec.x['y']",
                Err("fieldPath \"spec.x['y']\" does not support subscript"),
            ),
        ];
        for (path, expected) in cases {
            let selector = ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            };
            let found = field(&selector, &pod(), &addresses);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let allocatable = ResourceList::from([("memory".to_owned(), Quantity("8Gi".to_owned()))]);
        let pod = pod();
        let own = &spec(&pod).containers[0];
        let cases = [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.cpu", None, "1"),
            ("limits.memory", Some("1Mi"), "64"),
            ("requests.memory", None, "0"),
            ("requests.hugepages-2Mi", Some("1Mi"), "4"),
        ];
        for (name, divisor, expected) in cases {
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: divisor.map(|text| Quantity(text.to_owned())),
                resource: name.to_owned(),
            };
            let found = resource(&selector, &pod, Some(own), &allocatable);
            assert_eq!(found.as_deref(), Ok(expected), "{name} {divisor:?}");
        }
        let bare = Container::default();
        let selector = ResourceFieldSelector {
            container_name: None,
            divisor: None,
            resource: "limits.memory".to_owned(),
        };
        let node = resource(&selector, &pod, Some(&bare), &allocatable);
        assert_eq!(node.as_deref(), Ok("8589934592"));
    }
}
