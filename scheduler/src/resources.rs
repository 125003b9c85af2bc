//! What pods ask for and nodes have, as integers: milli-CPUs, bytes, and units of all else.
//!
//! Enter at [`Requests::of`]. The rules follow upstream's
//! `k8s.io/component-helpers/resource`: containers add up, an init container counts alone
//! beside the sidecars started before it, pod-level requests replace the sum, and the
//! resources that a running container actually has count if they are more than its spec says.

use std::collections::BTreeMap;

use coracle_api::quantity::{Amount, ResourceList};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

pub(crate) const CPU: &str = "cpu";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
pub(crate) const PODS: &str = "pods";

/// What a container that asks for no CPU is taken to use when nodes are scored.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container that asks for no memory is taken to use when nodes are scored.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of every resource. What is not named is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources, huge pages and attachable volumes.
    pub scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a list, without the number of pods.
    pub fn of(list: &ResourceList) -> Self {
        let mut resources = Resources::default();
        for (name, quantity) in list {
            let Ok(amount) = Amount::parse(&quantity.0) else {
                continue;
            };
            resources.set(name, amount);
        }
        resources
    }

    fn set(&mut self, name: &str, amount: Amount) {
        match name {
            CPU => self.milli_cpu = amount.milli_value(),
            MEMORY => self.memory = amount.value(),
            EPHEMERAL_STORAGE => self.ephemeral_storage = amount.value(),
            _ if is_scalar(name) => {
                self.scalars.insert(name.to_owned(), amount.value());
            }
            _ => {}
        }
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    fn maximum(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, by: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = by(self.milli_cpu, other.milli_cpu);
        self.memory = by(self.memory, other.memory);
        self.ephemeral_storage = by(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            match self.scalars.get_mut(name) {
                Some(own) => *own = by(*own, *amount),
                None => {
                    self.scalars.insert(name.clone(), by(0, *amount));
                }
            }
        }
    }
}

/// Whether a resource is counted by its name: all but the four basic ones.
fn is_scalar(name: &str) -> bool {
    is_extended(name)
        || name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
        || name.contains("kubernetes.io/")
}

pub(crate) fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// CPU and memory as they count when nodes are scored: never zero for a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NonZero {
    pub milli_cpu: i64,
    pub memory: i64,
}

/// What a pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    pub resources: Resources,
    /// What the pod counts for on its node.
    pub non_zero: NonZero,
    /// What the pod counts for while it looks for a node. Differs only where the pod as a whole
    /// asks for something.
    pub incoming: NonZero,
}

impl Requests {
    pub fn of(pod: &Pod) -> Self {
        let resources = pod_requests(pod, false);
        let assumed = pod_requests(pod, true);
        let incoming = NonZero {
            milli_cpu: assumed.milli_cpu,
            memory: assumed.memory,
        };
        let mut non_zero = incoming;
        if has_pod_level_requests(pod) {
            let asks = |name: &str| asks_for(pod, name);
            if asks(CPU) {
                non_zero.milli_cpu = resources.milli_cpu;
            }
            if asks(MEMORY) {
                non_zero.memory = resources.memory;
            }
        }
        Requests {
            non_zero,
            incoming,
            resources,
        }
    }
}

fn has_pod_level_requests(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let mut names = requests.into_iter().flat_map(ResourceList::keys);
    names.any(|name| is_pod_level(name))
}

/// Whether requests for it can be made for a pod as a whole.
fn is_pod_level(name: &str) -> bool {
    name == CPU || name == MEMORY || name.starts_with("hugepages-")
}

/// Whether the pod or a container asks for any amount of it.
fn asks_for(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let has = |requests: &ResourceList| requests.contains_key(name);
    let containers = spec.containers.iter();
    let mut lists = containers
        .chain(spec.init_containers.iter().flatten())
        .map(|container| container.resources.as_ref())
        .chain([spec.resources.as_ref()])
        .filter_map(|resources| resources?.requests.as_ref());
    lists.any(has) || spec.overhead.as_ref().is_some_and(has)
}

/// `never_zero`: a container without requests counts with the defaults for scoring.
fn pod_requests(pod: &Pod, never_zero: bool) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let infeasible = resize_is_infeasible(pod);
    let status = |name: &str| status_of(pod, name);
    let container_requests = |container: &Container, by_status: bool| {
        let status = by_status.then(|| status(&container.name)).flatten();
        requests_of(container, status, infeasible, never_zero)
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&container_requests(container, true));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        let mut needed = container_requests(container, sidecar);
        if sidecar {
            total.add(&needed);
            sidecars.add(&needed);
            starting.maximum(&sidecars);
        } else {
            needed.add(&sidecars);
            starting.maximum(&needed);
        }
    }
    total.maximum(&starting);
    apply_pod_level(pod, infeasible, &mut total);
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::of(overhead));
    }
    total
}

/// Requests for the whole pod stand in for the sum over its containers.
fn apply_pod_level(pod: &Pod, infeasible: bool, total: &mut Resources) {
    let Some(requests) = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref())
    else {
        return;
    };
    let status = pod.status.as_ref();
    let actual = status.and_then(|status| status.resources.as_ref());
    for (name, quantity) in requests {
        if !is_pod_level(name) {
            continue;
        }
        let parse = |list: Option<&ResourceList>| Amount::parse(&list?.get(name)?.0).ok();
        let Ok(mut amount) = Amount::parse(&quantity.0) else {
            continue;
        };
        if let Some(actual) = actual {
            let allocated = status.and_then(|status| status.allocated_resources.as_ref());
            let spec = (!infeasible).then_some(amount);
            let known = [spec, parse(actual.requests.as_ref()), parse(allocated)];
            let most = known
                .into_iter()
                .flatten()
                .max_by_key(|amount| amount.milli_value());
            amount = most.unwrap_or(Amount::ZERO);
        }
        total.set(name, amount);
    }
}

fn requests_of(
    container: &Container,
    status: Option<&ContainerStatus>,
    infeasible: bool,
    never_zero: bool,
) -> Resources {
    let empty = ResourceList::new();
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref())
        .unwrap_or(&empty);
    let mut result = Resources::of(requests);
    if let Some(actual) = status.and_then(|status| status.resources.as_ref()) {
        if infeasible {
            result = Resources::default();
        }
        let allocated = status.and_then(|status| status.allocated_resources.as_ref());
        for list in [actual.requests.as_ref(), allocated].into_iter().flatten() {
            result.maximum(&Resources::of(list));
        }
    }
    if never_zero {
        if !requests.contains_key(CPU) {
            result.milli_cpu = result.milli_cpu.max(DEFAULT_MILLI_CPU);
        }
        if !requests.contains_key(MEMORY) {
            result.memory = result.memory.max(DEFAULT_MEMORY);
        }
    }
    result
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten()
        .find(|status| status.name == container)
}

fn resize_is_infeasible(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == "PodResizePending")
        .is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"))
}

/// How many pods a node takes.
pub(crate) fn allowed_pods(allocatable: &ResourceList) -> usize {
    allocatable
        .get(PODS)
        .and_then(|quantity| Amount::parse(&quantity.0).ok())
        .and_then(|amount| usize::try_from(amount.value()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(requests: Value) -> Value {
        let mut container = json!({"name": "c", "resources": {}});
        container["resources"]["requests"] = requests;
        container
    }

    fn sidecar(requests: Value) -> Value {
        let mut sidecar = container(requests);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }

    fn requests(pod: Value) -> Requests {
        Requests::of(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn the_cpu_and_memory_that_a_pod_asks_for() {
        let cases = [
            (
                "containers add up",
                json!({"containers": [container(json!({"cpu": "100m", "memory": "1Mi"})), container(json!({"cpu": "1"}))]}),
                1100,
                1 << 20,
            ),
            (
                "an init container counts where it is more",
                json!({"containers": [container(json!({"cpu": "100m", "memory": "5"}))],
                    "initContainers": [container(json!({"cpu": "300m", "memory": "2"})), container(json!({"cpu": "200m"}))]}),
                300,
                5,
            ),
            (
                "sidecars run beside all that starts after them",
                json!({"containers": [container(json!({"cpu": "100m"}))],
                    "initContainers": [container(json!({"cpu": "450m"})), sidecar(json!({"cpu": "200m"})), container(json!({"cpu": "300m"}))]}),
                500,
                0,
            ),
            (
                "sidecars add to the containers",
                json!({"containers": [container(json!({"cpu": "1"}))], "initContainers": [sidecar(json!({"cpu": "1"}))]}),
                2000,
                0,
            ),
            (
                "overhead comes on top",
                json!({"containers": [container(json!({"cpu": "100m"}))], "overhead": {"cpu": "50m", "memory": "7"}}),
                150,
                7,
            ),
            (
                "requests for the pod replace the sum",
                json!({"containers": [container(json!({"cpu": "100m", "memory": "7"}))], "resources": {"requests": {"cpu": "2"}}, "overhead": {"cpu": "1"}}),
                3000,
                7,
            ),
        ];
        for (what, spec, milli_cpu, memory) in cases {
            let found = requests(json!({"spec": spec})).resources;
            assert_eq!(
                (found.milli_cpu, found.memory),
                (milli_cpu, memory),
                "{what}"
            );
        }
    }

    #[test]
    fn what_a_container_really_has_counts_when_it_is_more() {
        let pod = |reason: &str| {
            json!({
                "spec": {"containers": [container(json!({"cpu": "100m"}))]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": {"cpu": "70m"}, "resources": {"requests": {"cpu": "50m"}}}],
                },
            })
        };
        assert_eq!(requests(pod("Deferred")).resources.milli_cpu, 100);
        assert_eq!(requests(pod("Infeasible")).resources.milli_cpu, 70);
    }

    #[test]
    fn containers_without_requests_are_not_free_when_scored() {
        let found = requests(
            json!({"spec": {"containers": [container(json!({"cpu": "1"})), container(json!({}))]}}),
        );
        assert_eq!(
            found.non_zero,
            NonZero {
                milli_cpu: 1100,
                memory: 2 * DEFAULT_MEMORY
            }
        );
        assert_eq!(found.resources.memory, 0);
        let found = requests(json!({"spec": {"resources": {"requests": {"cpu": "2"}},
            "containers": [container(json!({"memory": "7"})), container(json!({}))]}}));
        let (cpu, some) = (2000, 7 + DEFAULT_MEMORY);
        let of = |milli_cpu, memory| NonZero { milli_cpu, memory };
        assert_eq!(
            (found.non_zero, found.incoming),
            (of(cpu, 7), of(cpu, some))
        );
    }

    #[test]
    fn scalars_are_kept_by_name() {
        let found = requests(json!({"spec": {"containers": [container(json!({
            "example.com/gpu": "2", "hugepages-2Mi": "4Mi", "ephemeral-storage": "1k", "bogus": "3",
        }))]}}));
        assert_eq!(found.resources.scalar("example.com/gpu"), 2);
        assert_eq!(found.resources.scalar("hugepages-2Mi"), 4 << 20);
        assert_eq!(found.resources.scalar("bogus"), 0);
        assert_eq!(found.resources.ephemeral_storage, 1000);
    }
}
