//! CPU, memory, storage and everything else that is counted: what fits, and what spreads the load.

use std::{borrow::Cow, sync::Arc};

use k8s_openapi::api::{core::v1::Node, resource::v1::DeviceClass};

use crate::{
    cluster::Cluster,
    devices::extended::{self, Classes},
    event::{Applied, Event},
    framework::{Filter, MAX_SCORE, Plugin, Prepared, Rejection},
    node::{Capacity, NodeInfo},
    pod::PodInfo,
    resources::Resources,
};

const FIT: &str = "NodeResourcesFit";
const BALANCED: &str = "NodeResourcesBalancedAllocation";

/// Rejects nodes without enough room; prefers those with the most room (`LeastAllocated`).
pub(crate) struct Fit;

#[derive(Clone)]
struct Wanted {
    pod: Arc<PodInfo>,
    /// What a claim is made for where the node does not have it itself.
    devices: Arc<Classes>,
}

impl Filter for Wanted {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let (pod, pods) = (&self.pod, node.pods.len());
        fits(pod, &self.devices, &node.capacity, &node.requested, pods)
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

/// Whether there is room beside `pods` pods that use `used`.
fn fits(
    pod: &PodInfo,
    devices: &Classes,
    capacity: &Capacity,
    used: &Resources,
    pods: usize,
) -> Result<(), Rejection> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut unresolvable = false;
    if pods + 1 > capacity.pods {
        reasons.push("Too many pods".into());
    }
    let (wanted, has) = (&pod.requests.resources, &capacity.resources);
    let mut lacks = |wanted: i64, has: i64, used: i64| {
        let lacks = wanted > 0 && wanted > has - used;
        unresolvable |= lacks && wanted > has;
        lacks
    };
    if lacks(wanted.milli_cpu, has.milli_cpu, used.milli_cpu) {
        reasons.push("Insufficient cpu".into());
    }
    if lacks(wanted.memory, has.memory, used.memory) {
        reasons.push("Insufficient memory".into());
    }
    if lacks(
        wanted.ephemeral_storage,
        has.ephemeral_storage,
        used.ephemeral_storage,
    ) {
        reasons.push("Insufficient ephemeral-storage".into());
    }
    for (name, amount) in &wanted.scalars {
        if has.scalar(name) == 0 && devices.contains_key(name) {
            continue;
        }
        if lacks(*amount, has.scalar(name), used.scalar(name)) {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection {
        plugin: FIT,
        reasons,
        unresolvable,
        error: false,
    })
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        FIT
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        let devices = extended::classes_of(pod, cluster.surroundings.devices());
        Prepared::Check(Box::new(Wanted {
            pod: pod.clone(),
            devices: Arc::new(devices),
        }))
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(
        &self,
        pod: &Arc<PodInfo>,
        _cluster: &Cluster<'_>,
        feasible: &[&NodeInfo],
    ) -> Option<Vec<i64>> {
        let wanted = pod.requests.incoming;
        let score = |node: &&NodeInfo| {
            let used = node.non_zero_requested;
            least_allocated(&[
                (
                    used.milli_cpu + wanted.milli_cpu,
                    node.capacity.resources.milli_cpu,
                ),
                (used.memory + wanted.memory, node.capacity.resources.memory),
            ])
        };
        Some(feasible.iter().map(score).collect())
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, cluster: &Cluster<'_>) -> bool {
        let fits_empty = |node: &Node| {
            let devices = extended::classes_of(pod, cluster.surroundings.devices());
            let (capacity, none) = (Capacity::of(node), Resources::default());
            fits(pod, &devices, &capacity, &none, 0).is_ok()
        };
        match event {
            Event::DeviceClass(class) => names_resource(pod, *class),
            Event::NodeAdded(node) => fits_empty(node),
            Event::NodeUpdated { old, new, changes } => {
                changes.allocatable && fits_empty(new) && has_more(pod, old, new)
            }
            Event::PodDeleted(_) => true,
            Event::PodUpdated { old, new, changes } => {
                changes.scaled_down && (new.uid() == pod.uid() || frees(pod, old, new))
            }
            _ => false,
        }
    }
}

/// Whether the class has come to stand behind a resource that the pod needs.
fn names_resource(pod: &PodInfo, class: Applied<'_, DeviceClass>) -> bool {
    let wants = |name: &str| pod.requests.resources.scalars.contains_key(name);
    let resource = class.new.spec.extended_resource_name.as_deref();
    match class.old {
        Some(old) if old.spec.extended_resource_name.as_deref() == resource => false,
        Some(_) => resource.is_some_and(wants),
        None => {
            let name = class.new.metadata.name.as_deref().unwrap_or_default();
            resource.is_some_and(wants) || wants(&format!("{}{name}", extended::CLASS_PREFIX))
        }
    }
}

/// Whether the node has more of something that the pod needs.
fn has_more(pod: &PodInfo, old: &Node, new: &Node) -> bool {
    let (old, new) = (Capacity::of(old), Capacity::of(new));
    new.pods > old.pods || any_wanted(pod, &new.resources, &old.resources)
}

/// Whether the change of another pod leaves more of something that the pod needs.
fn frees(pod: &PodInfo, old: &PodInfo, new: &PodInfo) -> bool {
    !new.node_name().is_empty() && any_wanted(pod, &old.requests.resources, &new.requests.resources)
}

/// Whether of something that the pod wants there is more in `more` than in `less`.
fn any_wanted(pod: &PodInfo, more: &Resources, less: &Resources) -> bool {
    let wanted = &pod.requests.resources;
    wanted.milli_cpu > 0 && more.milli_cpu > less.milli_cpu
        || wanted.memory > 0 && more.memory > less.memory
        || wanted.ephemeral_storage > 0 && more.ephemeral_storage > less.ephemeral_storage
        || wanted
            .scalars
            .iter()
            .any(|(name, amount)| *amount > 0 && more.scalar(name) > less.scalar(name))
}

/// The mean share that is left free; resources that the node does not have do not count.
fn least_allocated(used_of_capacity: &[(i64, i64)]) -> i64 {
    let (mut sum, mut count) = (0, 0);
    for &(used, capacity) in used_of_capacity {
        if capacity == 0 {
            continue;
        }
        count += 1;
        if used <= capacity {
            let free = i128::from(capacity - used) * i128::from(MAX_SCORE) / i128::from(capacity);
            sum += i64::try_from(free).unwrap_or(MAX_SCORE);
        }
    }
    if count == 0 { 0 } else { sum / count }
}

/// Prefers nodes whose CPU and memory are used to a like degree with the pod on them.
pub(crate) struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        BALANCED
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(
        &self,
        pod: &Arc<PodInfo>,
        _cluster: &Cluster<'_>,
        feasible: &[&NodeInfo],
    ) -> Option<Vec<i64>> {
        let wanted = &pod.requests.resources;
        if wanted.milli_cpu == 0 && wanted.memory == 0 {
            return None;
        }
        let score = |node: &&NodeInfo| {
            let (used, has) = (&node.requested, &node.capacity.resources);
            let with = balance(&[
                (used.milli_cpu + wanted.milli_cpu, has.milli_cpu),
                (used.memory + wanted.memory, has.memory),
            ]);
            let without = balance(&[(used.milli_cpu, has.milli_cpu), (used.memory, has.memory)]);
            MAX_SCORE / 2 + (MAX_SCORE / 2 + with - without) / 2
        };
        Some(feasible.iter().map(score).collect())
    }
}

/// How alike the used shares of two resources are.
fn balance(used_of_capacity: &[(i64, i64); 2]) -> i64 {
    let share = |&(used, capacity): &(i64, i64)| {
        (capacity != 0).then(|| (used as f64 / capacity as f64).min(1.0))
    };
    let deviation = match (share(&used_of_capacity[0]), share(&used_of_capacity[1])) {
        (Some(one), Some(other)) => ((one - other) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, node, pod};
    use serde_json::{Value, json};

    fn asking(requests: Value) -> Arc<PodInfo> {
        let mut value = json!({"spec": {"containers": [{"name": "c", "resources": {}}]}});
        value["spec"]["containers"][0]["resources"]["requests"] = requests;
        pod(value)
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut world = World::new([node(
            "n",
            json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "1", "example.com/gpu": "2", "ephemeral-storage": "10"}}}),
        )]);
        let check = |world: &World, requests: Value| {
            let node = &world.cache.nodes()[0];
            let wanted = Wanted {
                pod: asking(requests),
                devices: Arc::default(),
            };
            match wanted.check(node) {
                Ok(()) => ("".to_owned(), false),
                Err(rejection) => (rejection.reasons.join(", "), rejection.unresolvable),
            }
        };
        let cases = [
            (json!({}), "", false),
            (json!({"cpu": "4", "memory": "8Gi"}), "", false),
            (json!({"cpu": "4001m"}), "Insufficient cpu", true),
            (
                json!({"cpu": "5", "memory": "9Gi"}),
                "Insufficient cpu, Insufficient memory",
                true,
            ),
            (
                json!({"example.com/gpu": "3"}),
                "Insufficient example.com/gpu",
                true,
            ),
            (
                json!({"example.com/fpga": "1"}),
                "Insufficient example.com/fpga",
                true,
            ),
            (
                json!({"ephemeral-storage": "11"}),
                "Insufficient ephemeral-storage",
                true,
            ),
        ];
        for (requests, expected, unresolvable) in cases {
            assert_eq!(
                check(&world, requests.clone()),
                (expected.to_owned(), unresolvable),
                "{requests}"
            );
        }
        world.running("r", "n", json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}));
        assert_eq!(
            check(&world, json!({"cpu": "4"})),
            ("Too many pods, Insufficient cpu".to_owned(), false)
        );
    }

    #[test]
    fn scores() {
        assert_eq!(least_allocated(&[(1000, 4000), (0, 100)]), 87);
        assert_eq!(least_allocated(&[(5000, 4000), (50, 100)]), 25);
        assert_eq!(least_allocated(&[(0, 0), (50, 100)]), 50);
        assert_eq!(balance(&[(1, 2), (1, 2)]), 100);
        assert_eq!(balance(&[(2, 2), (0, 2)]), 50);
        assert_eq!(balance(&[(2, 2), (0, 0)]), 100);
    }
}
