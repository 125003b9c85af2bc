//! The status of a pod: a pure function of its specification, what the runtime and the probes
//! say, and the status before, which only times and what the runtime has forgotten are taken
//! from. It follows upstream's `generateAPIPodStatus` (pkg/kubelet/kubelet_pods.go).
//!
//! Enter at [`derive`]; [`patch`] writes what has changed.

mod conditions;
mod containers;
mod finish;
mod merge;
mod patch;
mod phase;
mod settle;

use std::collections::HashMap;

use coracle_api::core::pod::resources::{Amounts, QosClass, pod_limits, pod_requests};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{HostIP, Pod, PodIP, PodStatus, ResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};

pub use conditions::{DISRUPTION_TARGET, is_true, ready_needs_update};
pub use finish::finish;
pub use merge::merge;
pub use patch::{Written, patch};
pub use phase::is_terminal;
pub use settle::changes_at;

use super::{
    actions::must_restart_all,
    observed::Observed,
    probe_results::ProbeResults,
    resize::Progress,
    spec::{is_host_network, spec, uid},
};

/// Why a container waits, as its status shows it, for example `ImagePullBackOff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// A decision that the whole pod has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
}

/// What a status is derived from.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    /// The status before this one.
    pub old: &'a PodStatus,
    pub observed: &'a Observed,
    pub probes: &'a ProbeResults,
    /// By container: why the last attempt to start it failed.
    pub waiting: &'a HashMap<String, Waiting>,
    /// For example `containerd`, the scheme of container identifiers.
    pub runtime_name: &'a str,
    pub host_ips: &'a [String],
    pub recursive_read_only_mounts: bool,
    /// Whether no container of the pod will ever run again.
    pub terminal: bool,
    pub failure: Option<&'a Failure>,
    pub resize: &'a Progress,
    /// Containers that ran before then were found by a restarted kubelet: what was known of
    /// their health stands until they are probed.
    pub kubelet_started: Timestamp,
    pub now: Timestamp,
}

/// Derives the pod's status.
pub fn derive(facts: &Facts<'_>) -> PodStatus {
    let Facts {
        pod, old, observed, ..
    } = facts;
    let spec = spec(pod);
    let restarting =
        must_restart_all(spec, observed) || is_true(old, conditions::ALL_CONTAINERS_RESTARTING);
    let mut status = PodStatus {
        qos_class: Some(QosClass::of(spec).name().to_owned()),
        observed_generation: pod.metadata.generation,
        nominated_node_name: old.nominated_node_name.clone(),
        ..PodStatus::default()
    };
    containers::fill(facts, restarting, &mut status);
    addresses(facts, &mut status);
    resources(facts, &mut status);

    let mut phase = phase::of(facts, &status);
    let known = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    for before in [old.phase.as_deref(), known].into_iter().flatten() {
        // No way leads back from a terminal phase.
        if is_terminal(before) {
            phase = before.to_owned();
        }
    }
    if old.phase.as_deref() == Some(phase.as_str()) {
        let reported = pod.status.as_ref();
        let fallback = |text: &Option<String>, other: Option<&Option<String>>| {
            text.clone().or_else(|| other.cloned().flatten())
        };
        status.reason = fallback(&old.reason, reported.map(|status| &status.reason));
        status.message = fallback(&old.message, reported.map(|status| &status.message));
    }
    if let Some(failure) = facts.failure
        && !is_terminal(&phase)
    {
        phase = "Failed".to_owned();
        status.reason = Some(failure.reason.clone());
        status.message = Some(failure.message.clone());
    }
    status.phase = Some(phase);
    containers::fill_probes(facts, &mut status);
    conditions::fill(facts, restarting, &mut status);
    status.start_time = old.start_time.clone().or(Some(Time(facts.now)));
    normalize(pod, &mut status);
    status
}

/// The status of a pod that the node does not take (upstream's `rejectPod`).
pub fn rejected(pod: &Pod, failure: &Failure, now: Timestamp) -> PodStatus {
    PodStatus {
        qos_class: Some(QosClass::of(spec(pod)).name().to_owned()),
        observed_generation: pod.metadata.generation,
        phase: Some("Failed".to_owned()),
        reason: Some(failure.reason.clone()),
        message: Some(format!("Pod was rejected: {}", failure.message)),
        start_time: pod
            .status
            .as_ref()
            .and_then(|status| status.start_time.clone())
            .or(Some(Time(now))),
        ..PodStatus::default()
    }
}

fn addresses(facts: &Facts<'_>, status: &mut PodStatus) {
    let host_ips = facts.host_ips;
    let mut ips: Vec<String> = by_family(facts.observed.ips(), host_ips);
    // A pod whose sandbox has ended keeps the address that it had.
    if ips.is_empty() && facts.observed.active_sandbox().is_none() {
        let before = facts.old.pod_ips.iter().flatten();
        ips = before.map(|ip| ip.ip.clone()).collect();
    }
    if ips.is_empty() && is_host_network(facts.pod) {
        ips = host_ips.to_vec();
    }
    status.pod_ip = ips.first().cloned();
    status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect::<Vec<_>>())
        .filter(|ips: &Vec<PodIP>| !ips.is_empty());
    status.host_ip = host_ips.first().cloned();
    let host_ips = host_ips.iter().map(|ip| HostIP { ip: ip.clone() });
    status.host_ips = Some(host_ips.collect::<Vec<_>>()).filter(|ips| !ips.is_empty());
}

/// One address of each family, the node's primary family first.
pub fn by_family(ips: &[String], host_ips: &[String]) -> Vec<String> {
    let is_v6 = |ip: &String| ip.contains(':');
    let primary_v6 = host_ips.first().is_some_and(is_v6);
    [primary_v6, !primary_v6]
        .into_iter()
        .filter_map(|v6| ips.iter().find(|ip| is_v6(ip) == v6).cloned())
        .collect()
}

fn resources(facts: &Facts<'_>, status: &mut PodStatus) {
    let spec = spec(facts.pod);
    let list = |amounts: Amounts| {
        let list: std::collections::BTreeMap<String, Quantity> = amounts
            .into_iter()
            .map(|(name, amount)| (name, amount.to_quantity()))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let requests = list(pod_requests(spec));
    status.allocated_resources = requests.clone();
    status.resources = Some(ResourceRequirements {
        claims: None,
        limits: list(pod_limits(spec)),
        requests,
    });
}

/// Brings a status into the form in which statuses are compared: whole seconds, sorted lists,
/// termination messages that fit (upstream's `normalizeStatus`).
pub fn normalize(pod: &Pod, status: &mut PodStatus) {
    /// Bytes of termination messages that one pod may have.
    const MESSAGES: usize = 12 << 10;
    let spec = spec(pod);
    let count = spec.containers.len()
        + super::spec::init_containers(spec).len()
        + super::spec::ephemeral_containers(spec).len();
    let most = MESSAGES / count.max(1);
    let seconds = |time: &mut Option<Time>| {
        if let Some(time) = time {
            *time = Time(whole_seconds(time.0));
        }
    };
    seconds(&mut status.start_time);
    for condition in status.conditions.iter_mut().flatten() {
        seconds(&mut condition.last_probe_time);
        seconds(&mut condition.last_transition_time);
    }
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    for container in lists.into_iter().flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state]
            .into_iter()
            .flatten()
        {
            if let Some(running) = &mut state.running {
                seconds(&mut running.started_at);
            }
            if let Some(terminated) = &mut state.terminated {
                seconds(&mut terminated.started_at);
                seconds(&mut terminated.finished_at);
                if let Some(message) = &mut terminated.message {
                    message.truncate(message.floor_char_boundary(most));
                }
            }
        }
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Names the pod in logs.
pub fn log_name(pod: &Pod) -> String {
    format!(
        "{}/{} ({})",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default(),
        uid(pod)
    )
}

#[cfg(test)]
mod tests;
