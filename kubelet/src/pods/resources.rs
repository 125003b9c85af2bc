//! What a pod and its containers may use, in the units of CRI and of control groups.

use std::path::{Path, PathBuf};

use coracle_api::{
    core::pod::resources::{Amounts, QosClass, pod_limits, pod_requests},
    quantity::{Amount, ResourceList},
};
use k8s_cri::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::spec::{init_containers, is_sidecar, main_containers, spec, uid};
use crate::cgroups::{Limits, MIN_SHARES, QUOTA_PERIOD, milli_cpu_to_quota, milli_cpu_to_shares};

/// How unwilling the kernel is to kill a guaranteed container when memory is short.
const GUARANTEED_SCORE: i64 = -997;
const BEST_EFFORT_SCORE: i64 = 1000;

/// What of the node's hardware limits depend on.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Bytes.
    pub memory: i64,
    /// The sizes of huge pages that the kernel has, as in `2MB`.
    pub hugepage_sizes: Vec<String>,
}

/// The group of all pods of a class of service, below `kubepods`.
pub fn class_group(kubepods: &Path, class: QosClass) -> PathBuf {
    match class {
        QosClass::Guaranteed => kubepods.to_owned(),
        QosClass::Burstable => kubepods.join("burstable"),
        QosClass::BestEffort => kubepods.join("besteffort"),
    }
}

/// The group of a pod.
pub fn pod_group(kubepods: &Path, pod: &Pod) -> PathBuf {
    class_group(kubepods, QosClass::of(spec(pod))).join(format!("pod{}", uid(pod)))
}

fn milli_cpu(amounts: &Amounts) -> i64 {
    amounts.get("cpu").map_or(0, |amount| amount.milli_value())
}

/// What a pod requests of CPU, in thousandths.
pub fn requested_milli_cpu(spec: &PodSpec) -> i64 {
    milli_cpu(&pod_requests(spec))
}

/// The limits of a pod's group (upstream's `ResourceConfigForPod`).
pub fn pod_group_limits(spec: &PodSpec, pids: Option<i64>) -> Limits {
    let limits = pod_limits(spec);
    let shares = milli_cpu_to_shares(requested_milli_cpu(spec));
    let quota = match milli_cpu_to_quota(milli_cpu(&limits)) {
        0 => None,
        quota => Some(quota),
    };
    let memory = limits.get("memory").map(|amount| amount.value());
    let mut result = Limits {
        pids,
        ..Limits::default()
    };
    match QosClass::of(spec) {
        QosClass::Guaranteed => {
            result.cpu_shares = Some(shares);
            result.cpu_quota = quota;
            result.memory = memory;
        }
        QosClass::Burstable => {
            result.cpu_shares = Some(shares);
            result.cpu_quota = quota.filter(|_| all_limited(spec, "cpu"));
            result.memory = memory.filter(|_| all_limited(spec, "memory"));
        }
        QosClass::BestEffort => result.cpu_shares = Some(MIN_SHARES),
    }
    result
}

/// Whether the pod as a whole, or each of its containers, is limited: only then is their sum a
/// limit of the pod.
fn all_limited(spec: &PodSpec, name: &str) -> bool {
    let limit = |list: Option<&ResourceList>| {
        list.and_then(|list| list.get(name))
            .is_some_and(|quantity| !Amount::from(quantity).is_zero())
    };
    let of_pod = spec.resources.as_ref();
    limit(of_pod.and_then(|it| it.limits.as_ref()))
        || main_containers(spec).all(|(_, container)| {
            limit(
                container
                    .resources
                    .as_ref()
                    .and_then(|it| it.limits.as_ref()),
            )
        })
}

fn amount(list: Option<&ResourceList>, name: &str) -> Option<Amount> {
    list.and_then(|list| list.get(name)).map(Amount::from)
}

/// What a container may use.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    machine: &Machine,
) -> LinuxContainerResources {
    let spec = spec(pod);
    let own = container.resources.as_ref();
    let limits = own.and_then(|it| it.limits.as_ref());
    let requests = own.and_then(|it| it.requests.as_ref());
    let pod_level = spec.resources.as_ref().and_then(|it| it.limits.as_ref());
    let limit = |name: &str| {
        amount(limits, name)
            .filter(|amount| !amount.is_zero())
            .or_else(|| amount(pod_level, name))
            .unwrap_or_default()
    };
    let mut resources = linux(amount(requests, "cpu"), limit("cpu"), limit("memory"));
    resources.oom_score_adj = oom_score(pod, container, machine.memory);
    resources.hugepage_limits = machine
        .hugepage_sizes
        .iter()
        .map(|size| HugepageLimit {
            page_size: size.clone(),
            limit: hugepage_limit(limits, size),
        })
        .collect();
    resources
}

/// `2MB` of the kernel is `2Mi` in a specification.
fn hugepage_limit(limits: Option<&ResourceList>, size: &str) -> u64 {
    let name = format!("hugepages-{}i", size.trim_end_matches('B'));
    let value = amount(limits, &name).map_or(0, |amount| amount.value());
    u64::try_from(value).unwrap_or(0)
}

fn linux(
    request: Option<Amount>,
    cpu_limit: Amount,
    memory_limit: Amount,
) -> LinuxContainerResources {
    let cpu = request.unwrap_or(cpu_limit).milli_value();
    LinuxContainerResources {
        cpu_period: QUOTA_PERIOD,
        cpu_quota: milli_cpu_to_quota(cpu_limit.milli_value()),
        cpu_shares: i64::try_from(milli_cpu_to_shares(cpu)).unwrap_or(i64::MAX),
        memory_limit_in_bytes: memory_limit.value(),
        ..LinuxContainerResources::default()
    }
}

/// What a pod's sandbox is told of the pod: its containers together, and its overhead apart.
pub struct OfSandbox {
    pub resources: LinuxContainerResources,
    pub overhead: LinuxContainerResources,
}

/// What a sandbox runtime that makes a machine of its own has to plan for.
pub fn of_sandbox(pod: &Pod) -> OfSandbox {
    let spec = spec(pod);
    let mut bare = spec.clone();
    bare.overhead = None;
    let requests = pod_requests(&bare);
    let limits = pod_limits(&bare);
    let get = |amounts: &Amounts, name: &str| amounts.get(name).copied();
    let overhead = spec.overhead.as_ref();
    let over = |name: &str| amount(overhead, name).unwrap_or_default();
    OfSandbox {
        resources: linux(
            get(&requests, "cpu"),
            get(&limits, "cpu").unwrap_or_default(),
            get(&limits, "memory").unwrap_or_default(),
        ),
        overhead: match overhead {
            Some(_) => linux(Some(over("cpu")), over("cpu"), over("memory")),
            None => LinuxContainerResources::default(),
        },
    }
}

/// The kernel's score by which it chooses what to kill when memory is short (upstream's
/// pkg/kubelet/qos/policy.go).
pub fn oom_score(pod: &Pod, container: &Container, capacity: i64) -> i64 {
    let spec = spec(pod);
    let critical = spec.priority_class_name.as_deref() == Some("system-node-critical");
    match QosClass::of(spec) {
        _ if critical => return GUARANTEED_SCORE,
        QosClass::Guaranteed => return GUARANTEED_SCORE,
        QosClass::BestEffort => return BEST_EFFORT_SCORE,
        QosClass::Burstable => {}
    }
    let capacity = capacity.max(1);
    let request = |container: &Container| {
        let requests = container
            .resources
            .as_ref()
            .and_then(|it| it.requests.as_ref());
        amount(requests, "memory").map_or(0, |amount| amount.value())
    };
    let shared = shared_memory_request(spec, request);
    let score = |bytes: i64| 1000 - bytes.saturating_add(shared).saturating_mul(1000) / capacity;
    let mut result = score(request(container));
    let sidecar = init_containers(spec)
        .iter()
        .any(|it| it.name == container.name && is_sidecar(it));
    if sidecar && let Some(least) = spec.containers.iter().map(request).min() {
        result = result.min(score(least));
    }
    if result < 1000 + GUARANTEED_SCORE {
        1000 + GUARANTEED_SCORE
    } else if result == BEST_EFFORT_SCORE {
        BEST_EFFORT_SCORE - 1
    } else {
        result
    }
}

/// What a pod requests beyond its containers, divided among them.
fn shared_memory_request(spec: &PodSpec, request: impl Fn(&Container) -> i64) -> i64 {
    let of_pod = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    let Some(of_pod) = amount(of_pod, "memory") else {
        return 0;
    };
    let lasting = || {
        main_containers(spec)
            .filter(|(kind, it)| *kind != super::spec::ContainerKind::Init || is_sidecar(it))
            .map(|(_, container)| container)
    };
    let count = i64::try_from(lasting().count()).unwrap_or(1).max(1);
    (of_pod.value() - lasting().map(request).sum::<i64>()).max(0) / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "uid": "u"}});
        pod["spec"]["containers"] = containers;
        serde_json::from_value(pod).expect("a pod")
    }

    const GI: i64 = 1 << 30;

    #[test]
    fn groups_and_limits_follow_the_class_of_service() {
        let kubepods = Path::new("/kubepods");
        let best_effort = pod(json!([{"name": "c"}]));
        let burstable = pod(json!([
            {"name": "a", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "1", "memory": "1Gi"}}},
            {"name": "b", "resources": {"limits": {"memory": "1Gi"}}},
        ]));
        let guaranteed = pod(json!([
            {"name": "a", "resources": {
                "requests": {"cpu": "500m", "memory": "1Gi"},
                "limits": {"cpu": "500m", "memory": "1Gi"},
            }},
        ]));
        let cases = [
            (
                &best_effort,
                "/kubepods/besteffort/podu",
                Some(2),
                None,
                None,
            ),
            // Only one of the containers is limited in CPU: together they are not.
            (
                &burstable,
                "/kubepods/burstable/podu",
                Some(256),
                None,
                Some(2 * GI),
            ),
            (
                &guaranteed,
                "/kubepods/podu",
                Some(512),
                Some(50_000),
                Some(GI),
            ),
        ];
        for (pod, group, cpu_shares, cpu_quota, memory) in cases {
            assert_eq!(pod_group(kubepods, pod), Path::new(group));
            let limits = pod_group_limits(spec(pod), None);
            let expected = Limits {
                cpu_shares,
                cpu_quota,
                memory,
                pids: None,
            };
            assert_eq!(limits, expected, "{group}");
        }
    }

    #[test]
    fn scores_follow_upstream() {
        let burstable = |memory: &str| {
            pod(json!([{"name": "a", "resources": {"requests": {"memory": memory}}}]))
        };
        let score = |pod: &Pod| oom_score(pod, &spec(pod).containers[0], 8 * GI);
        let cases = [("1Ki", 999), ("2Gi", 750), ("8Gi", 3), ("1Gi", 875)];
        for (memory, expected) in cases {
            assert_eq!(score(&burstable(memory)), expected, "{memory}");
        }
        assert_eq!(score(&pod(json!([{"name": "a"}]))), 1000);
    }

    #[test]
    fn a_container_is_limited_in_what_its_runtime_knows() {
        let pod = pod(json!([{"name": "a", "resources": {
            "requests": {"cpu": "100m"},
            "limits": {"cpu": "200m", "memory": "64Mi", "hugepages-2Mi": "4Mi"},
        }}]));
        let machine = Machine {
            memory: GI,
            hugepage_sizes: vec!["2MB".to_owned(), "1GB".to_owned()],
        };
        let resources = of_container(&pod, &spec(&pod).containers[0], &machine);
        assert_eq!(resources.cpu_shares, 102);
        assert_eq!(
            (resources.cpu_quota, resources.cpu_period),
            (20_000, 100_000)
        );
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
        let hugepages: Vec<_> = resources
            .hugepage_limits
            .iter()
            .map(|it| it.limit)
            .collect();
        assert_eq!(hugepages, [4 << 20, 0]);
    }
}
