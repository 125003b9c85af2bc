//! In-place resize: CPU and memory of containers that run (upstream's pkg/kubelet/allocation and
//! `computePodResizeAction`).
//!
//! A pod is worked on with the resources that the node has *allocated* to it. What its
//! specification asks for beyond that is *pending* until it fits; the manager decides. What a
//! running container really has is *actuated*; the pod's task makes it follow the allocation, and
//! [`plan`] says how.

use std::{collections::HashMap, sync::Arc};

use coracle_api::quantity::ResourceList;
use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde_json::json;

use super::{
    actions::{Actions, Kill, KillReason},
    observed::{Activity, Observed, Seen},
    resources,
    spec::{init_containers, is_sidecar, spec},
};
use crate::cgroups::Limits;

/// What can be resized.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// A resize that the node has no room for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub message: String,
    /// The generation of the pod that asks for it.
    pub generation: Option<i64>,
}

/// How far a resize has got, for the status.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub pending: Option<Pending>,
    pub in_progress: Option<InProgress>,
    /// By identifier of a running container: what it has.
    pub actuated: HashMap<String, Compute>,
}

/// A resize that was allocated and is not yet done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProgress {
    pub generation: Option<i64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// CPU and memory of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compute {
    requirements: ResourceRequirements,
    shares: i64,
    quota: i64,
    memory: i64,
}

impl Compute {
    /// What the container has once it is made after this specification.
    pub fn of(pod: &Pod, container: &Container) -> Self {
        let linux = resources::of_container(pod, container, &resources::Machine::default());
        Compute {
            requirements: compute_only(container.resources.as_ref()),
            shares: linux.cpu_shares,
            quota: linux.cpu_quota,
            memory: linux.memory_limit_in_bytes,
        }
    }

    /// What a container has that was found running, as its last status tells.
    pub fn found(pod: &Pod, container: &Container, reported: &ResourceRequirements) -> Self {
        let mut container = container.clone();
        container.resources = Some(with_compute(container.resources.as_ref(), reported));
        Compute::of(pod, &container)
    }

    /// The resources of the container with CPU and memory as they are.
    pub fn in_resources(&self, of: Option<&ResourceRequirements>) -> ResourceRequirements {
        with_compute(of, &self.requirements)
    }

    fn linux(&self) -> LinuxContainerResources {
        LinuxContainerResources {
            cpu_period: crate::cgroups::QUOTA_PERIOD,
            cpu_quota: self.quota,
            cpu_shares: self.shares,
            memory_limit_in_bytes: self.memory,
            ..LinuxContainerResources::default()
        }
    }

    /// Whether one of the two resources differs.
    fn differs(&self, other: &Compute, name: &str) -> bool {
        let requirements = [&self.requirements, &other.requirements];
        let [mine, others] =
            requirements.map(|it| [get(&it.requests, name), get(&it.limits, name)]);
        let limits = match name {
            "cpu" => (self.shares, self.quota) != (other.shares, other.quota),
            _ => self.memory != other.memory,
        };
        mine != others || limits
    }
}

fn get<'a>(list: &'a Option<ResourceList>, name: &str) -> Option<&'a str> {
    let quantity = list.as_ref()?.get(name)?;
    Some(quantity.0.as_str())
}

fn compute_only(resources: Option<&ResourceRequirements>) -> ResourceRequirements {
    let keep = |list: &Option<ResourceList>| {
        let list: ResourceList = list
            .iter()
            .flatten()
            .filter(|(name, _)| COMPUTE.contains(&name.as_str()))
            .map(|(name, quantity)| (name.clone(), quantity.clone()))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    resources.map_or_else(ResourceRequirements::default, |it| ResourceRequirements {
        claims: None,
        limits: keep(&it.limits),
        requests: keep(&it.requests),
    })
}

/// Resources with the CPU and memory of others.
fn with_compute(
    resources: Option<&ResourceRequirements>,
    compute: &ResourceRequirements,
) -> ResourceRequirements {
    let mut result = resources.cloned().unwrap_or_default();
    let put = |list: &mut Option<ResourceList>, from: &Option<ResourceList>| {
        let mut merged = list.take().unwrap_or_default();
        merged.retain(|name, _| !COMPUTE.contains(&name.as_str()));
        let compute = from.iter().flatten();
        merged.extend(
            compute
                .filter(|(name, _)| COMPUTE.contains(&name.as_str()))
                .map(|(name, quantity)| (name.clone(), quantity.clone())),
        );
        *list = (!merged.is_empty()).then_some(merged);
    };
    put(&mut result.requests, &compute.requests);
    put(&mut result.limits, &compute.limits);
    result
}

/// The pod with the CPU and memory that `allocated`, the same pod, has; the same pod when it
/// asks for nothing else.
pub fn with_allocation_of(pod: &Arc<Pod>, allocated: &Pod) -> Arc<Pod> {
    let before = spec(allocated);
    let of_pod = before.resources.clone();
    let find = |name: &str| {
        let all = before.containers.iter().chain(init_containers(before));
        let mut all = all.filter(|container| container.name == name);
        all.next().map(|container| container.resources.clone())
    };
    replace(pod, |name| find(name).flatten(), of_pod.as_ref())
}

/// The pod with the CPU and memory that its containers had when their status was written: what
/// was allocated before a restart of this program.
pub fn with_reported_allocation(pod: &Arc<Pod>) -> Arc<Pod> {
    let reported = |name: &str| {
        let status = pod.status.as_ref()?;
        let statuses = status.container_statuses.iter().flatten();
        let mut statuses = statuses.chain(status.init_container_statuses.iter().flatten());
        let status = statuses.find(|status| status.name == name)?;
        let runs = status.state.as_ref().is_some_and(|it| it.running.is_some());
        status.resources.clone().filter(|_| runs)
    };
    let own = |name: &str| {
        let spec = spec(pod);
        let mut all = spec.containers.iter().chain(init_containers(spec));
        let found = all.find(|container| container.name == name);
        found.and_then(|container| container.resources.clone())
    };
    let of_pod = spec(pod).resources.clone();
    replace(
        pod,
        |name| reported(name).or_else(|| own(name)),
        of_pod.as_ref(),
    )
}

fn replace(
    pod: &Arc<Pod>,
    of: impl Fn(&str) -> Option<ResourceRequirements>,
    of_pod: Option<&ResourceRequirements>,
) -> Arc<Pod> {
    let wanted = spec(pod);
    let differs = |container: &Container| {
        compute_only(container.resources.as_ref()) != compute_only(of(&container.name).as_ref())
    };
    let pod_differs = compute_only(wanted.resources.as_ref()) != compute_only(of_pod);
    let mut containers = wanted.containers.iter().chain(init_containers(wanted));
    if !pod_differs && !containers.any(differs) {
        return pod.clone();
    }
    let mut pod = Pod::clone(pod);
    if let Some(spec) = &mut pod.spec {
        let init = spec.init_containers.iter_mut().flatten();
        for container in spec.containers.iter_mut().chain(init) {
            let compute = of(&container.name).unwrap_or_default();
            container.resources = Some(with_compute(container.resources.as_ref(), &compute));
        }
        if pod_differs {
            let compute = of_pod.cloned().unwrap_or_default();
            spec.resources = Some(with_compute(spec.resources.as_ref(), &compute));
        }
    }
    Arc::new(pod)
}

/// A running container whose limits change.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub id: String,
    pub name: String,
    pub to: Compute,
    /// The memory limit in bytes that is below the one before.
    pub less_memory: Option<i64>,
}

impl Update {
    pub fn linux(&self) -> LinuxContainerResources {
        self.to.linux()
    }
}

/// The containers whose CPU and memory may change while they run, with their places.
fn resizable(pod: &Pod) -> impl Iterator<Item = (bool, usize, &Container)> {
    let spec = spec(pod);
    let init = init_containers(spec).iter().enumerate();
    let sidecars = init.filter(|(_, container)| is_sidecar(container));
    let regular = spec.containers.iter().enumerate();
    sidecars
        .map(|(index, container)| (true, index, container))
        .chain(regular.map(|(index, container)| (false, index, container)))
}

fn running<'a>(observed: &'a Observed, name: &str) -> Option<&'a Seen> {
    let seen = observed.container(name)?;
    (seen.activity == Activity::Running).then_some(seen)
}

/// Whether a running container does not have yet what was allocated to it.
pub fn is_in_progress(pod: &Pod, observed: &Observed, actuated: &HashMap<String, Compute>) -> bool {
    resizable(pod).any(|(_, _, container)| {
        running(observed, &container.name)
            .and_then(|seen| actuated.get(&seen.id))
            .is_some_and(|has| *has != Compute::of(pod, container))
    })
}

/// Finds the containers to be updated, those that give up something first; those that are
/// restarted for it go into `actions`.
pub fn plan(
    pod: &Pod,
    observed: &Observed,
    actuated: &HashMap<String, Compute>,
    actions: &mut Actions,
) -> Vec<Update> {
    let mut updates = Vec::new();
    for (init, index, container) in resizable(pod) {
        let Some(seen) = running(observed, &container.name) else {
            continue;
        };
        let to = Compute::of(pod, container);
        let Some(has) = actuated.get(&seen.id).filter(|has| **has != to) else {
            continue;
        };
        if actions.kill.iter().any(|kill| kill.id == seen.id) {
            continue;
        }
        let restarts = |name: &str| {
            let policies = container.resize_policy.iter().flatten();
            let mut of_resource = policies.filter(|policy| policy.resource_name == name);
            let policy = of_resource.next();
            policy.is_some_and(|policy| policy.restart_policy == "RestartContainer")
        };
        if COMPUTE
            .iter()
            .any(|name| to.differs(has, name) && restarts(name))
        {
            actions.kill.push(Kill {
                id: seen.id.clone(),
                name: container.name.clone(),
                message: format!("Container {} resize requires restart", container.name),
                reason: KillReason::Other,
            });
            let starts = match init {
                true => &mut actions.init,
                false => &mut actions.regular,
            };
            starts.push(index);
            starts.sort_unstable();
            continue;
        }
        let decreases = to.memory < has.memory || to.quota < has.quota || to.shares < has.shares;
        let less = to.memory != 0 && (has.memory == 0 || to.memory < has.memory);
        let update = Update {
            id: seen.id.clone(),
            name: container.name.clone(),
            less_memory: less.then_some(to.memory),
            to,
        };
        match decreases {
            true => updates.insert(0, update),
            false => updates.push(update),
        }
    }
    updates
}

/// The limits that hold while some containers have old limits and some new ones.
pub fn larger(a: &Limits, b: &Limits) -> Limits {
    Limits {
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        cpu_quota: a.cpu_quota.max(b.cpu_quota),
        memory: a.memory.max(b.memory),
        pids: b.pids,
    }
}

/// What an event says of a resize, as upstream: the resources that were asked for as JSON.
pub fn message(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let list = |containers: &[Container]| -> Vec<serde_json::Value> {
        let resources = |of: &Container| json!(of.resources.clone().unwrap_or_default());
        containers
            .iter()
            .map(|of| json!({ "name": of.name, "resources": resources(of) }))
            .collect()
    };
    let spec = spec(pod);
    let mut summary = serde_json::Map::new();
    if !init_containers(spec).is_empty() {
        summary.insert(
            "initContainers".to_owned(),
            list(init_containers(spec)).into(),
        );
    }
    summary.insert("containers".to_owned(), list(&spec.containers).into());
    summary.insert("generation".to_owned(), generation.unwrap_or(0).into());
    if !error.is_empty() {
        summary.insert("error".to_owned(), error.into());
    }
    format!("{what}: {}", serde_json::Value::Object(summary))
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
