//! Whether the node takes a pod that is bound to it (upstream's pkg/kubelet/lifecycle/predicate.go
//! and the admit handlers): the scheduler may have been wrong, or not asked.

use std::{collections::BTreeMap, path::Path};

use coracle_api::{
    core::pod::resources::{Amounts, pod_requests},
    quantity::{Amount, ResourceList},
};
use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use kube::ResourceExt as _;

use super::{
    security,
    spec::{init_containers, is_sidecar, main_containers, spec},
    status::Failure,
};

/// What of the node is compared with what a pod wants.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub allocatable: ResourceList,
    pub supplemental_groups_policy: bool,
    pub allowed_unsafe_sysctls: Vec<String>,
}

/// Decides on a pod, beside the active pods that the node has.
///
/// # Errors
/// Why the pod is rejected.
pub fn admit(pod: &Pod, node: &NodeView, others: &[&Pod]) -> Result<(), Failure> {
    let checks = [
        os(pod, node),
        groups_policy(pod, node),
        resources(pod, node, others),
        node_name(pod, node),
        affinity(pod, node),
        ports(pod, others),
        taints(pod, node),
        sysctls(pod, node),
        app_armor(pod),
    ];
    checks.into_iter().collect()
}

/// Decides whether a pod that runs may have other resources, beside the active pods that the node
/// has, itself not counted.
///
/// # Errors
/// Why they are not there.
pub fn admit_resize(pod: &Pod, node: &NodeView, others: &[&Pod]) -> Result<(), Failure> {
    resources(pod, node, others)
}

fn reject(reason: &str, message: impl Into<String>) -> Result<(), Failure> {
    Err(Failure {
        reason: reason.to_owned(),
        message: message.into(),
    })
}

fn predicate(name: &str, why: &str) -> Result<(), Failure> {
    reject(name, format!("Predicate {name} failed: {why}"))
}

fn os(pod: &Pod, node: &NodeView) -> Result<(), Failure> {
    let label = "kubernetes.io/os";
    let own = node.labels.get(label).map_or("linux", String::as_str);
    if pod.labels().get(label).is_some_and(|wanted| wanted != own) {
        return reject(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    match &spec(pod).os {
        Some(os) if os.name != "linux" => reject(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ),
        _ => Ok(()),
    }
}

fn groups_policy(pod: &Pod, node: &NodeView) -> Result<(), Failure> {
    let context = spec(pod).security_context.as_ref();
    let policy = context.and_then(|context| context.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !node.supplemental_groups_policy {
        return reject(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        );
    }
    Ok(())
}

/// CPU counts in thousandths, everything else in whole units.
fn units(name: &str, amount: Amount) -> i64 {
    match name {
        "cpu" => amount.milli_value(),
        _ => amount.value(),
    }
}

fn resources(pod: &Pod, node: &NodeView, others: &[&Pod]) -> Result<(), Failure> {
    let capacity = |name: &str| {
        let found = node.allocatable.get(name).map(Amount::from);
        found.map(|amount| units(name, amount))
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let most = capacity("pods").unwrap_or(0);
    if count + 1 > most {
        return insufficient("pods", 1, count, most);
    }
    let wanted = pod_requests(spec(pod));
    let mut used = Amounts::new();
    for other in others {
        for (name, amount) in pod_requests(spec(other)) {
            let sum = used.entry(name).or_default();
            *sum = sum.plus(amount);
        }
    }
    let basic = ["cpu", "memory", "ephemeral-storage"];
    let basic_wanted = basic.into_iter().map(str::to_owned);
    let others = wanted.keys().filter(|name| !basic.contains(&name.as_str()));
    for name in basic_wanted.chain(others.cloned()) {
        let Some(amount) = wanted.get(&name).filter(|amount| !amount.is_zero()) else {
            continue;
        };
        let Some(capacity) = capacity(&name) else {
            // The device that it names may have gone since the pod was bound.
            if name.contains('/') {
                continue;
            }
            return insufficient(&name, units(&name, *amount), 0, 0);
        };
        let requested = units(&name, *amount);
        let used = used.get(&name).map_or(0, |amount| units(&name, *amount));
        if requested > capacity - used {
            return insufficient(&name, requested, used, capacity);
        }
    }
    Ok(())
}

fn insufficient(name: &str, requested: i64, used: i64, capacity: i64) -> Result<(), Failure> {
    reject(
        &format!("OutOf{name}"),
        format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        ),
    )
}

fn node_name(pod: &Pod, node: &NodeView) -> Result<(), Failure> {
    match spec(pod).node_name.as_deref() {
        Some(name) if !name.is_empty() && name != node.name => {
            predicate("NodeName", "node(s) didn't match the requested node name")
        }
        _ => Ok(()),
    }
}

fn affinity(pod: &Pod, node: &NodeView) -> Result<(), Failure> {
    let spec = spec(pod);
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| node.labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let fits = required.is_none_or(|selector| {
        let terms = &selector.node_selector_terms;
        terms.iter().any(|term| term_matches(term, node))
    });
    match selected && fits {
        true => Ok(()),
        false => predicate(
            "NodeAffinity",
            "node(s) didn't match Pod's node affinity/selector",
        ),
    }
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term that asks for nothing matches nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |requirement: &NodeSelectorRequirement| {
        requirement_matches(requirement, node.labels.get(&requirement.key))
    };
    let field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && requirement_matches(requirement, Some(&node.name))
    };
    expressions.iter().all(label) && fields.iter().all(field)
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &String| text.parse::<i64>().ok();
    let compared = |test: fn(i64, i64) -> bool| {
        let own = value.and_then(number);
        let other = values.first().and_then(number);
        own.zip(other).is_some_and(|(own, other)| test(own, other))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|own, other| own > other),
        "Lt" => compared(|own, other| own < other),
        _ => false,
    }
}

/// A port of the host: address, protocol and number.
type HostPort<'a> = (&'a str, &'a str, i32);

fn host_ports(spec: &PodSpec) -> Vec<HostPort<'_>> {
    let lasting = init_containers(spec)
        .iter()
        .filter(|container| is_sidecar(container))
        .chain(&spec.containers);
    lasting
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|&number| number > 0)?;
            let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some((ip.unwrap_or("0.0.0.0"), protocol, number))
        })
        .collect()
}

fn ports(pod: &Pod, others: &[&Pod]) -> Result<(), Failure> {
    let every = |ip: &str| matches!(ip, "0.0.0.0" | "::");
    let meet = |a: &HostPort<'_>, b: &HostPort<'_>| {
        (a.1, a.2) == (b.1, b.2) && (a.0 == b.0 || every(a.0) || every(b.0))
    };
    let taken: Vec<HostPort<'_>> = others
        .iter()
        .flat_map(|other| host_ports(spec(other)))
        .collect();
    let wanted = host_ports(spec(pod));
    let conflict = wanted
        .iter()
        .any(|port| taken.iter().any(|other| meet(port, other)));
    match conflict {
        false => Ok(()),
        true => predicate(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
        ),
    }
}

fn taints(pod: &Pod, node: &NodeView) -> Result<(), Failure> {
    let tolerations = spec(pod).tolerations.as_deref().unwrap_or_default();
    let mut evicting = node.taints.iter().filter(|it| it.effect == "NoExecute");
    match evicting.all(|taint| tolerations.iter().any(|it| tolerates(it, taint))) {
        true => Ok(()),
        false => predicate(
            "TaintToleration",
            "node(s) had taints that the pod didn't tolerate",
        ),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => !key.is_empty() && text(&toleration.value) == text(&taint.value),
    }
}

/// Sysctls that have no influence on other pods (upstream's pkg/kubelet/sysctl).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(pod: &Pod, node: &NodeView) -> Result<(), Failure> {
    let spec = spec(pod);
    let context = spec.security_context.as_ref();
    let wanted = context.and_then(|context| context.sysctls.as_deref());
    for sysctl in wanted.unwrap_or_default() {
        let name = sysctl.name.replace('/', ".");
        let allowed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *pattern == name,
        };
        let safe = SAFE_SYSCTLS.contains(&name.as_str());
        if !safe && !node.allowed_unsafe_sysctls.iter().any(allowed) {
            return reject(
                "SysctlForbidden",
                format!("forbidden sysctl: {name:?} not allowlisted"),
            );
        }
        let host = [
            (name.starts_with("net."), spec.host_network, "host net"),
            (ipc(&name), spec.host_ipc, "host ipc"),
        ];
        for (concerned, shared, what) in host {
            if concerned && shared == Some(true) {
                return reject(
                    "SysctlForbidden",
                    format!("forbidden sysctl: {name:?} not allowed with {what} enabled"),
                );
            }
        }
    }
    Ok(())
}

fn ipc(name: &str) -> bool {
    name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name.starts_with("fs.mqueue.")
        || name == "kernel.sem"
}

fn app_armor(pod: &Pod) -> Result<(), Failure> {
    let of_pod = spec(pod).security_context.as_ref();
    let of_pod = of_pod.and_then(|context| context.app_armor_profile.as_ref());
    let required = main_containers(spec(pod)).any(|(_, container)| {
        let own = security::effective(pod, container).app_armor_profile;
        let profile = own.as_ref().or(of_pod);
        profile.is_some_and(|profile| profile.type_ != "Unconfined")
    });
    if required && !Path::new("/sys/kernel/security/apparmor").exists() {
        return reject(
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        pod["spec"] = spec;
        serde_json::from_value(pod).expect("a pod")
    }

    fn node() -> NodeView {
        let quantity = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
        NodeView {
            name: "node".to_owned(),
            labels: [("disk".to_owned(), "ssd".to_owned())].into(),
            allocatable: [
                quantity("cpu", "2"),
                quantity("memory", "4Gi"),
                quantity("pods", "2"),
            ]
            .into(),
            ..NodeView::default()
        }
    }

    fn reason(spec: Value, others: &[&Pod]) -> String {
        match admit(&pod(spec), &node(), others) {
            Ok(()) => "ok".to_owned(),
            Err(failure) => format!("{}|{}", failure.reason, failure.message),
        }
    }

    #[test]
    fn pods_that_do_not_fit_are_rejected_in_upstreams_words() {
        let other = pod(json!({"containers": [{
            "name": "c", "resources": {"requests": {"cpu": "1500m"}},
            "ports": [{"containerPort": 1, "hostPort": 80}],
        }]}));
        let cpu = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let with = |field: &str, value: Value| {
            let mut spec = json!({"containers": []});
            spec[field] = value;
            spec
        };
        let port = json!({"containers": [{
            "name": "c", "ports": [{"containerPort": 2, "hostPort": 80, "hostIP": "1.2.3.4"}],
        }]});
        let in_zone = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["a"]},
            ]}],
        }}});
        let sysctl = json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]});
        let affinity = "NodeAffinity|Predicate NodeAffinity failed: node(s) didn't match Pod's \
                        node affinity/selector";
        let cases = [
            (cpu("500m"), "ok"),
            (
                cpu("600m"),
                "OutOfcpu|Node didn't have enough resource: cpu, requested: 600, used: 1500, \
                 capacity: 2000",
            ),
            (with("nodeSelector", json!({"disk": "ssd"})), "ok"),
            (with("nodeSelector", json!({"disk": "hdd"})), affinity),
            (with("affinity", in_zone), affinity),
            (
                port,
                "NodePorts|Predicate NodePorts failed: node(s) didn't have free ports for the \
                 requested pod ports",
            ),
            (
                with("securityContext", sysctl),
                "SysctlForbidden|forbidden sysctl: \"kernel.msgmax\" not allowlisted",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(reason(spec.clone(), &[&other]), expected, "{spec}");
        }
        assert_eq!(
            reason(cpu("1m"), &[&other, &other]),
            "OutOfpods|Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
        );
    }

    #[test]
    fn taints_that_evict_need_a_toleration() {
        let mut node = node();
        node.taints = vec![Taint {
            key: "gone".to_owned(),
            effect: "NoExecute".to_owned(),
            ..Taint::default()
        }];
        let plain = pod(json!({"containers": []}));
        assert!(admit(&plain, &node, &[]).is_err());
        let tolerant = pod(json!({
            "containers": [], "tolerations": [{"key": "gone", "operator": "Exists"}],
        }));
        assert!(admit(&tolerant, &node, &[]).is_ok());
    }
}
