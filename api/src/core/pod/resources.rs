//! What a Pod asks for: sums over its containers, pod-level resources and the QoS class.
//!
//! The sums follow upstream's `k8s.io/component-helpers/resource`; the scheduler, the kubelet
//! and quota count a Pod by them, so that they agree with validation.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use crate::{
    quantity::{Amount, ResourceList},
    zero::{drop_zero, list},
};

/// Rounds quantities up to a thousandth, the finest that is stored.
pub fn round_list(resources: &mut Option<ResourceList>) {
    for quantity in resources.iter_mut().flat_map(|list| list.values_mut()) {
        if let Ok(amount) = Amount::parse(&quantity.0)
            && !amount.is_whole_milli()
        {
            *quantity = amount.round_up_to_milli().to_quantity();
        }
    }
}

/// [`round_list`] of both lists.
pub fn round(requirements: &mut ResourceRequirements) {
    round_list(&mut requirements.limits);
    round_list(&mut requirements.requests);
}

/// Which of the two lists of a container is summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Requests,
    Limits,
}

impl Part {
    /// That list of a container or of a pod; empty when it is absent.
    pub fn of(self, requirements: Option<&ResourceRequirements>) -> Option<&ResourceList> {
        let requirements = requirements?;
        match self {
            Part::Requests => requirements.requests.as_ref(),
            Part::Limits => requirements.limits.as_ref(),
        }
    }
}

/// Amounts by the resource's name.
pub type Amounts = std::collections::BTreeMap<String, Amount>;

/// What the containers need together: the regular ones and the sidecars at once, or before that
/// one init container with the sidecars started until then, whichever is more.
pub fn aggregate(spec: &PodSpec, part: Part) -> Amounts {
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add_list(&mut sum, part.of(container.resources.as_ref()));
    }
    let mut sidecars = Amounts::new();
    let mut initial = Amounts::new();
    for container in list(&spec.init_containers) {
        let own = part.of(container.resources.as_ref());
        if is_sidecar(container) {
            add_list(&mut sum, own);
            add_list(&mut sidecars, own);
            raise_to(&mut initial, &sidecars);
        } else {
            let mut step = sidecars.clone();
            add_list(&mut step, own);
            raise_to(&mut initial, &step);
        }
    }
    raise_to(&mut sum, &initial);
    sum
}

/// What a node must have free for the Pod: the containers' or the pod-level requests, and the
/// overhead of its runtime class.
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    let mut requests = aggregate(spec, Part::Requests);
    for (name, quantity) in Part::Requests
        .of(spec.resources.as_ref())
        .into_iter()
        .flatten()
    {
        if is_pod_level(name) {
            requests.insert(name.clone(), Amount::from(quantity));
        }
    }
    add_list(&mut requests, spec.overhead.as_ref());
    requests
}

/// The most that the Pod may use. Overhead adds to what is limited at all.
pub fn pod_limits(spec: &PodSpec) -> Amounts {
    let mut limits = aggregate(spec, Part::Limits);
    for (name, quantity) in Part::Limits
        .of(spec.resources.as_ref())
        .into_iter()
        .flatten()
    {
        if is_pod_level(name) {
            limits.insert(name.clone(), Amount::from(quantity));
        }
    }
    for (name, overhead) in spec.overhead.iter().flatten() {
        if let Some(limit) = limits.get_mut(name)
            && !limit.is_zero()
        {
            *limit = limit.plus(Amount::from(overhead));
        }
    }
    limits
}

fn add_list(sum: &mut Amounts, addend: Option<&ResourceList>) {
    for (name, quantity) in addend.into_iter().flatten() {
        let total = sum.entry(name.clone()).or_default();
        *total = total.plus(Amount::from(quantity));
    }
}

fn raise_to(sum: &mut Amounts, minimum: &Amounts) {
    for (name, amount) in minimum {
        let total = sum.entry(name.clone()).or_insert(*amount);
        *total = (*total).max(*amount);
    }
}

/// Whether an init container goes on running beside the regular ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether the resource can be given to a Pod as a whole.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// Whether a container may use more of it than it requests.
pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether the resource is one of Kubernetes itself.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Fills in pod-level requests, and limits of huge pages, from what the containers ask for.
/// Only where the Pod has pod-level resources at all.
pub fn default_pod_level(spec: &mut PodSpec) {
    if spec.resources.is_none() {
        return;
    }
    let container_limits = aggregate(spec, Part::Limits);
    let container_requests = aggregate(spec, Part::Requests);
    let Some(resources) = &mut spec.resources else {
        return;
    };
    let has_any = |list: &Option<ResourceList>| list.as_ref().is_some_and(|list| !list.is_empty());
    if has_any(&resources.limits) || has_any(&resources.requests) {
        let limits = resources.limits.get_or_insert_default();
        for (name, amount) in container_limits {
            let is_requested = resources
                .requests
                .as_ref()
                .is_some_and(|requests| requests.contains_key(&name));
            if is_huge_page(&name) && !is_requested {
                limits.entry(name).or_insert_with(|| amount.to_quantity());
            }
        }
        drop_zero(&mut resources.limits);
    }
    let Some(limits) = &resources.limits else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, amount) in container_requests {
        if is_pod_level(&name) && is_overcommit_allowed(&name) {
            requests.entry(name).or_insert_with(|| amount.to_quantity());
        }
    }
    for (name, limit) in limits {
        if is_pod_level(name) && !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
    drop_zero(&mut resources.requests);
}

/// The quality of service that a Pod is promised; it is fixed at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn name(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }

    /// Guaranteed: everything has a limit of CPU and memory and requests just that.
    /// BestEffort: nothing requests or limits either.
    pub fn of(spec: &PodSpec) -> Self {
        let mut requests = Amounts::new();
        let mut limits = Amounts::new();
        let mut all_limited = true;
        let mut count = |requirements: Option<&ResourceRequirements>| {
            add_compute(&mut requests, Part::Requests.of(requirements));
            let limited = add_compute(&mut limits, Part::Limits.of(requirements));
            all_limited &= limited == 2;
        };
        if let Some(resources) = &spec.resources {
            count(Some(resources));
            // Upstream looks at the limits only when there are some.
            if limits.is_empty() {
                all_limited = true;
            }
        } else {
            for container in spec.containers.iter().chain(list(&spec.init_containers)) {
                count(container.resources.as_ref());
            }
        }
        if requests.is_empty() && limits.is_empty() {
            QosClass::BestEffort
        } else if all_limited && requests == limits {
            QosClass::Guaranteed
        } else {
            QosClass::Burstable
        }
    }

    /// The class in a Pod's status, or else the one that its spec amounts to.
    pub fn name_of(pod: &Pod) -> &str {
        let status = pod.status.as_ref();
        match status.and_then(|status| status.qos_class.as_deref()) {
            Some(class) if !class.is_empty() => class,
            _ => pod
                .spec
                .as_ref()
                .map_or(QosClass::BestEffort, QosClass::of)
                .name(),
        }
    }
}

/// Adds the positive amounts of CPU and memory; how many of the two there are.
fn add_compute(sum: &mut Amounts, list: Option<&ResourceList>) -> usize {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let Some(quantity) = list.and_then(|list| list.get(name)) else {
            continue;
        };
        let amount = Amount::from(quantity);
        if amount.is_positive() {
            found += 1;
            let total = sum.entry(name.to_owned()).or_default();
            *total = total.plus(amount);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn container(requests: &Value, limits: &Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn qos_class_follows_requests_and_limits() {
        let (both, cpu, none) = (
            json!({"cpu": "1", "memory": "1Gi"}),
            json!({"cpu": "1"}),
            json!({}),
        );
        let cases = [
            (json!({"containers": [{"name": "c"}]}), "BestEffort"),
            (
                json!({"containers": [container(&json!({"cpu": "0"}), &none)]}),
                "BestEffort",
            ),
            (
                json!({"containers": [container(&both, &both)]}),
                "Guaranteed",
            ),
            (json!({"containers": [container(&cpu, &both)]}), "Burstable"),
            (
                json!({"containers": [container(&both, &both), {"name": "d"}]}),
                "Burstable",
            ),
            (
                json!({"containers": [container(&both, &both)],
                    "initContainers": [container(&cpu, &none)]}),
                "Burstable",
            ),
            (
                json!({"containers": [{"name": "c"}],
                    "resources": {"requests": both, "limits": both}}),
                "Guaranteed",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(
                QosClass::of(&spec(value.clone())).name(),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn sidecars_count_beside_regular_and_init_containers() {
        let cpu = |name: &str, cpu: &str, policy: Option<&str>| {
            json!({
                "name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}
            })
        };
        let spec = spec(json!({
            "initContainers": [cpu("sidecar", "1", Some("Always")), cpu("init", "5", None)],
            "containers": [cpu("a", "2", None), cpu("b", "1", None)],
            "overhead": {"cpu": "250m"},
        }));
        assert_eq!(aggregate(&spec, Part::Requests)["cpu"].to_string(), "6");
        assert_eq!(pod_requests(&spec)["cpu"].to_string(), "6250m");
    }
}
