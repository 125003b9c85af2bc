//! What objects use of a ResourceQuota: the same for admission, which refuses what would be too
//! much, and for the controller, which writes down what is used.
//!
//! Enter at [`Subject`]. Upstream: `pkg/quota/v1/evaluator`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec,
    ScopedResourceSelectorRequirement, Service,
};

use crate::{
    core::pod::resources::{QosClass, is_huge_page, is_native, pod_limits, pod_requests},
    quantity::Amount,
};

/// Amounts by the names that a quota limits.
pub type Usage = BTreeMap<String, Amount>;

const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
const REQUESTS: &str = "requests.";

/// An object that quotas are about.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Pod(&'a Pod),
    Claim(&'a PersistentVolumeClaim),
    Service(&'a Service),
    /// Counted only. `group` is empty for the core group; `resource` is in the plural.
    Other {
        group: &'a str,
        resource: &'a str,
    },
}

/// The name under which objects of a resource are counted: `count/deployments.apps`.
pub fn count_name(group: &str, resource: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    format!("count/{resource}{dot}{group}")
}

/// The group and the resource that a name counts, of `count/deployments.apps` and of old names
/// such as `secrets`.
pub fn counted(name: &str) -> Option<(&str, &str)> {
    if let Some(rest) = name.strip_prefix("count/") {
        return Some(match rest.split_once('.') {
            Some((resource, group)) => (group, resource),
            None => ("", rest),
        });
    }
    let old = [
        "configmaps",
        "resourcequotas",
        "replicationcontrollers",
        "secrets",
        "pods",
        "services",
        "persistentvolumeclaims",
    ];
    old.contains(&name).then_some(("", name))
}

impl Subject<'_> {
    fn resource(&self) -> (&str, &str) {
        match self {
            Subject::Pod(_) => ("", "pods"),
            Subject::Claim(_) => ("", "persistentvolumeclaims"),
            Subject::Service(_) => ("", "services"),
            Subject::Other { group, resource } => (group, resource),
        }
    }

    /// Whether objects of this kind can use what the name limits.
    pub fn concerns(&self, name: &str) -> bool {
        if counted(name) == Some(self.resource()) {
            return true;
        }
        match self {
            Subject::Pod(_) => is_of_pods(name),
            Subject::Claim(_) => is_of_claims(name),
            Subject::Service(_) => {
                matches!(name, "services.nodeports" | "services.loadbalancers")
            }
            Subject::Other { .. } => false,
        }
    }

    /// Whether the object is among those that the quota is limited to.
    pub fn is_in_scope(&self, spec: &ResourceQuotaSpec) -> bool {
        scopes(spec).all(|scope| match self {
            Subject::Pod(pod) => pod_is_in(pod, &scope),
            Subject::Claim(claim) => claim_is_in(claim, &scope),
            Subject::Service(_) | Subject::Other { .. } => false,
        })
    }

    /// What the object uses at this time.
    pub fn usage(&self, now: Timestamp) -> Usage {
        let (group, resource) = self.resource();
        let one = Amount::from_integer(1);
        let mut usage = Usage::from([(count_name(group, resource), one)]);
        match self {
            Subject::Pod(pod) => add_pod(&mut usage, pod, now),
            Subject::Claim(claim) => add_claim(&mut usage, claim),
            Subject::Service(service) => add_service(&mut usage, service),
            Subject::Other { .. } => {
                if counted(resource) == Some((group, resource)) {
                    usage.insert(resource.to_owned(), one);
                }
            }
        }
        usage
    }
}

/// The quota's scopes, the short ones in the long form.
pub fn scopes(
    spec: &ResourceQuotaSpec,
) -> impl Iterator<Item = ScopedResourceSelectorRequirement> + '_ {
    let short = spec
        .scopes
        .iter()
        .flatten()
        .map(|scope| ScopedResourceSelectorRequirement {
            scope_name: scope.clone(),
            operator: "Exists".to_owned(),
            values: None,
        });
    let long = spec.scope_selector.iter();
    let long = long.flat_map(|selector| selector.match_expressions.iter().flatten().cloned());
    short.chain(long)
}

fn is_of_pods(name: &str) -> bool {
    let plain = name
        .strip_prefix(REQUESTS)
        .or_else(|| name.strip_prefix("limits."));
    COMPUTE.contains(&name)
        || plain.is_some_and(|plain| COMPUTE.contains(&plain))
        || is_huge_page(name)
        || name
            .strip_prefix(REQUESTS)
            .is_some_and(|rest| is_huge_page(rest) || (!is_native(rest) && rest.contains('/')))
            && !is_of_claims(name)
}

fn is_of_claims(name: &str) -> bool {
    let plain = name.split_once(BY_CLASS).map_or(name, |(_, plain)| plain);
    matches!(plain, "persistentvolumeclaims" | "requests.storage")
}

/// A pod that has ended, or should have by now, only counts as an object.
fn is_over(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let deleted = pod.metadata.deletion_timestamp.as_ref();
    let grace = pod.metadata.deletion_grace_period_seconds;
    let overdue = deleted.zip(grace).is_some_and(|(at, grace)| {
        let end = at.0.checked_add(SignedDuration::from_secs(grace));
        end.is_ok_and(|end| now > end)
    });
    matches!(phase, Some("Failed" | "Succeeded")) || overdue
}

fn add_pod(usage: &mut Usage, pod: &Pod, now: Timestamp) {
    let Some(spec) = pod.spec.as_ref().filter(|_| !is_over(pod, now)) else {
        return;
    };
    usage.insert("pods".to_owned(), Amount::from_integer(1));
    for (name, amount) in pod_requests(spec) {
        if COMPUTE.contains(&name.as_str()) || is_huge_page(&name) {
            usage.insert(format!("{REQUESTS}{name}"), amount);
            usage.insert(name, amount);
        } else if !is_native(&name) {
            usage.insert(format!("{REQUESTS}{name}"), amount);
        }
    }
    for (name, amount) in pod_limits(spec) {
        if COMPUTE.contains(&name.as_str()) {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

/// The class that the claim names, in the old annotation or in its spec.
fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotations = claim.metadata.annotations.as_ref();
    let old = annotations.and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"));
    let spec = claim.spec.as_ref();
    let class = old.or(spec.and_then(|spec| spec.storage_class_name.as_ref()));
    class.map(String::as_str).filter(|class| !class.is_empty())
}

fn add_claim(usage: &mut Usage, claim: &PersistentVolumeClaim) {
    let mut add = |name: &str, amount: Amount| {
        if let Some(class) = class_of(claim) {
            usage.insert(format!("{class}{BY_CLASS}{name}"), amount);
        }
        usage.insert(name.to_owned(), amount);
    };
    add("persistentvolumeclaims", Amount::from_integer(1));
    let requests = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let status = claim.status.as_ref();
    let allocated = status.and_then(|status| status.allocated_resources.as_ref());
    let asked = requests.and_then(|list| list.get("storage"));
    if let Some(asked) = asked.map(Amount::from) {
        let given = allocated.and_then(|list| list.get("storage"));
        add(
            "requests.storage",
            given.map_or(asked, |given| asked.max(given.into())),
        );
    }
}

fn add_service(usage: &mut Usage, service: &Service) {
    let number = |count: usize| Amount::from_integer(i64::try_from(count).unwrap_or(i64::MAX));
    let spec = service.spec.as_ref();
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let type_ = spec.and_then(|spec| spec.type_.as_deref());
    let allocates = spec.and_then(|spec| spec.allocate_load_balancer_node_ports) != Some(false);
    let node_ports = match type_ {
        Some("NodePort") => ports.len(),
        Some("LoadBalancer") if allocates => ports.len(),
        Some("LoadBalancer") => {
            let given = ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0);
            given.count()
        }
        _ => 0,
    };
    let balancers = usize::from(type_ == Some("LoadBalancer"));
    usage.insert("services".to_owned(), number(1));
    usage.insert("services.nodeports".to_owned(), number(node_ports));
    usage.insert("services.loadbalancers".to_owned(), number(balancers));
}

/// Whether a value, if there is one, meets the requirement.
fn meets(scope: &ScopedResourceSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| scope.values.iter().flatten().any(|one| one == value);
    match scope.operator.as_str() {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        _ => false,
    }
}

fn pod_is_in(pod: &Pod, scope: &ScopedResourceSelectorRequirement) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let terminating = spec
        .active_deadline_seconds
        .is_some_and(|seconds| seconds >= 0);
    let best_effort = || QosClass::name_of(pod) == "BestEffort";
    match scope.scope_name.as_str() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref();
            meets(scope, class.filter(|class| !class.is_empty()))
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether the pod's affinity to other pods looks into other namespaces.
fn crosses_namespaces(pod: &Pod) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespace_selector.is_some()
            || term
                .namespaces
                .as_ref()
                .is_some_and(|names| !names.is_empty())
    };
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else {
        return false;
    };
    let near = affinity.pod_affinity.as_ref().map(|affinity| {
        (
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_deref(),
            affinity
                .preferred_during_scheduling_ignored_during_execution
                .as_deref(),
        )
    });
    let far = affinity.pod_anti_affinity.as_ref().map(|affinity| {
        (
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_deref(),
            affinity
                .preferred_during_scheduling_ignored_during_execution
                .as_deref(),
        )
    });
    near.into_iter().chain(far).any(|(required, preferred)| {
        required.unwrap_or_default().iter().any(crosses)
            || preferred
                .unwrap_or_default()
                .iter()
                .any(|weighted| crosses(&weighted.pod_affinity_term))
    })
}

fn claim_is_in(claim: &PersistentVolumeClaim, scope: &ScopedResourceSelectorRequirement) -> bool {
    if scope.scope_name != "VolumeAttributesClass" {
        return false;
    }
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    let wanted = spec.and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status
        .and_then(|status| status.modify_volume_status.as_ref())
        .and_then(|status| status.target_volume_attributes_class_name.as_deref());
    let names = [wanted, current, target];
    let mut names = names
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
        .peekable();
    if names.peek().is_none() {
        return meets(scope, None);
    }
    names.any(|name| meets(scope, Some(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().expect("a time")
    }

    fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn pod(spec: &Value, status: &Value) -> Pod {
        let mut whole = json!({ "containers": [{ "name": "c", "resources": {
            "requests": { "cpu": "100m", "memory": "1Gi", "example.com/gpu": "2" },
            "limits": { "cpu": "1", "example.com/gpu": "2" } } }] });
        for (key, value) in spec.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        parsed(json!({ "metadata": { "name": "p" }, "spec": whole, "status": status }))
    }

    fn shown(usage: &Usage) -> Value {
        let shown = usage
            .iter()
            .map(|(name, amount)| (name.clone(), amount.to_string().into()));
        Value::Object(shown.collect())
    }

    #[test]
    fn pods_use_compute_until_they_end() {
        let running = pod(&json!({}), &json!({ "phase": "Running" }));
        assert_eq!(
            shown(&Subject::Pod(&running).usage(now())),
            json!({
                "count/pods": "1", "pods": "1", "cpu": "100m", "memory": "1Gi",
                "requests.cpu": "100m", "requests.memory": "1Gi", "limits.cpu": "1",
                "requests.example.com/gpu": "2",
            })
        );
        let done = pod(&json!({}), &json!({ "phase": "Succeeded" }));
        assert_eq!(
            shown(&Subject::Pod(&done).usage(now())),
            json!({ "count/pods": "1" })
        );
        let mut overdue = running;
        overdue.metadata.deletion_timestamp = Some(parsed(json!("2026-01-01T00:59:00Z")));
        overdue.metadata.deletion_grace_period_seconds = Some(59);
        assert_eq!(Subject::Pod(&overdue).usage(now()).len(), 1);
        overdue.metadata.deletion_grace_period_seconds = Some(60);
        assert_eq!(Subject::Pod(&overdue).usage(now()).len(), 8);
    }

    #[test]
    fn claims_and_services_use_what_they_ask_for() {
        let claim = parsed(json!({
            "metadata": { "name": "c" },
            "spec": { "storageClassName": "gold", "resources": { "requests": {
                "storage": "1Gi" } } },
        }));
        assert_eq!(
            shown(&Subject::Claim(&claim).usage(now())),
            json!({
                "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1",
                "requests.storage": "1Gi",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
                "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
            })
        );
        let service = |spec: Value| {
            let service = parsed(json!({ "metadata": { "name": "s" }, "spec": spec }));
            let usage = Subject::Service(&service).usage(now());
            ["services", "services.nodeports", "services.loadbalancers"]
                .map(|name| usage[name].value())
        };
        let ports = json!([{ "port": 1, "nodePort": 30000 }, { "port": 2 }]);
        assert_eq!(
            service(json!({ "type": "ClusterIP", "ports": ports })),
            [1, 0, 0]
        );
        assert_eq!(
            service(json!({ "type": "NodePort", "ports": ports })),
            [1, 2, 0]
        );
        assert_eq!(
            service(json!({ "type": "LoadBalancer", "ports": ports })),
            [1, 2, 1]
        );
        let few = json!({ "type": "LoadBalancer", "ports": ports,
            "allocateLoadBalancerNodePorts": false });
        assert_eq!(service(few), [1, 1, 1]);
    }

    #[test]
    fn other_objects_are_counted_by_name() {
        let secret = Subject::Other {
            group: "",
            resource: "secrets",
        };
        let expected = json!({ "count/secrets": "1", "secrets": "1" });
        assert_eq!(shown(&secret.usage(now())), expected);
        let deployment = Subject::Other {
            group: "apps",
            resource: "deployments",
        };
        let expected = json!({ "count/deployments.apps": "1" });
        assert_eq!(shown(&deployment.usage(now())), expected);
        assert!(deployment.concerns("count/deployments.apps"));
        assert!(!deployment.concerns("count/deployments"));
        assert_eq!(counted("count/x.example.com"), Some(("example.com", "x")));
        assert_eq!(counted("cpu"), None);
    }

    #[test]
    fn names_belong_to_kinds() {
        let pod = pod(&json!({}), &json!({}));
        let claim = PersistentVolumeClaim::default();
        let service = Service::default();
        let subjects = [
            Subject::Pod(&pod),
            Subject::Claim(&claim),
            Subject::Service(&service),
        ];
        let cases = [
            ("pods", [true, false, false]),
            ("limits.memory", [true, false, false]),
            ("hugepages-2Mi", [true, false, false]),
            ("requests.hugepages-2Mi", [true, false, false]),
            ("requests.example.com/gpu", [true, false, false]),
            ("requests.storage", [false, true, false]),
            (
                "gold.storageclass.storage.k8s.io/requests.storage",
                [false, true, false],
            ),
            ("services.nodeports", [false, false, true]),
            ("count/services", [false, false, true]),
            ("secrets", [false, false, false]),
        ];
        for (name, expected) in cases {
            assert_eq!(subjects.map(|one| one.concerns(name)), expected, "{name}");
        }
    }

    #[test]
    fn scopes_choose_pods() {
        let is_in = |quota: Value, spec: Value| {
            let pod = pod(&spec, &json!({}));
            Subject::Pod(&pod).is_in_scope(&parsed(quota))
        };
        let scope = |name: &str| json!({ "scopes": [name] });
        let priority = |operator: &str, values: Value| {
            json!({ "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass",
                "operator": operator, "values": values }] } })
        };
        let timed = || json!({ "activeDeadlineSeconds": 5 });
        let bare = || json!({ "containers": [{ "name": "c" }] });
        let high = || json!({ "priorityClassName": "high" });
        let near = || {
            json!({ "affinity": { "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    { "topologyKey": "k", "namespaces": ["other"] }] } } })
        };
        let cases = [
            (json!({}), json!({}), true),
            (scope("Terminating"), timed(), true),
            (scope("Terminating"), json!({}), false),
            (scope("NotTerminating"), timed(), false),
            (scope("BestEffort"), bare(), true),
            (scope("NotBestEffort"), bare(), false),
            (priority("In", json!(["high"])), high(), true),
            (priority("NotIn", json!(["high"])), high(), false),
            (priority("NotIn", json!(["high"])), json!({}), true),
            (priority("Exists", Value::Null), high(), true),
            (priority("DoesNotExist", Value::Null), high(), false),
            (scope("CrossNamespacePodAffinity"), near(), true),
            (scope("CrossNamespacePodAffinity"), json!({}), false),
        ];
        for (quota, spec, expected) in cases {
            assert_eq!(
                is_in(quota.clone(), spec.clone()),
                expected,
                "{quota} {spec}"
            );
        }
        let service = Service::default();
        let scoped: ResourceQuotaSpec = parsed(scope("Terminating"));
        assert!(!Subject::Service(&service).is_in_scope(&scoped));
    }
}
