//! How many replicas a metric asks for.
//!
//! Enter at [`by_pods`] for metrics of the pods themselves, at [`by_value`] and [`by_average`] for
//! those of other things. Amounts are in thousandths. Upstream:
//! `pkg/controller/podautoscaler/replica_calculator.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::{Autoscaling, pods};

/// When a pod's CPU may only be what it takes to start; see [`Autoscaling`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Starting {
    cpu_initialization: SignedDuration,
    initial_readiness: SignedDuration,
}

impl Starting {
    pub fn new(settings: &Autoscaling) -> Self {
        let of = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Starting {
            cpu_initialization: of(settings.cpu_initialization_period),
            initial_readiness: of(settings.initial_readiness_delay),
        }
    }
}

/// What one pod uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub value: i64,
    pub at: Timestamp,
    pub window: Duration,
}

/// By the pod's name.
pub(super) type Samples = BTreeMap<String, Sample>;

/// How far from the goal is near enough, as a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub down: f64,
    pub up: f64,
}

impl Tolerance {
    fn covers(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What the pods should use on average.
pub(super) enum Goal<'a> {
    /// So many percent of what they request of the resource, in all or in one container.
    Utilization {
        percent: i32,
        resource: &'a str,
        container: Option<&'a str>,
    },
    Average(i64),
}

impl Goal<'_> {
    fn of(&self, pods: &[Arc<Pod>]) -> Result<Measure, String> {
        match *self {
            Goal::Average(target) => Ok(Measure::Average(target)),
            Goal::Utilization {
                percent,
                resource,
                container,
            } => Ok(Measure::Utilization {
                percent,
                requests: requests(pods, container, resource)?,
            }),
        }
    }
}

/// A goal for certain pods.
enum Measure {
    /// What they request is given by the pod's name.
    Utilization {
        percent: i32,
        requests: BTreeMap<String, i64>,
    },
    Average(i64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    ratio: f64,
    utilization: Option<i32>,
    usage: i64,
}

impl Measure {
    fn ratio(&self, values: &BTreeMap<&str, i64>) -> Result<Ratio, String> {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX).max(1);
        match self {
            Measure::Average(target) => {
                let usage = values.values().sum::<i64>() / count(values.len());
                Ok(Ratio {
                    ratio: quotient(usage, *target),
                    utilization: None,
                    usage,
                })
            }
            Measure::Utilization { percent, requests } => {
                let known = values
                    .iter()
                    .filter_map(|(name, value)| Some((*value, *requests.get(*name)?)));
                let (mut used, mut requested, mut entries) = (0_i64, 0_i64, 0);
                for (value, request) in known {
                    used += value;
                    requested += request;
                    entries += 1;
                }
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
                Ok(Ratio {
                    ratio: f64::from(utilization) / f64::from(*percent),
                    utilization: Some(utilization),
                    usage: used / count(entries),
                })
            }
        }
    }

    /// What a pod that tells nothing is taken to use when there seem to be too many.
    fn assumed(&self, pod: &str) -> i64 {
        match self {
            Measure::Average(target) => *target,
            Measure::Utilization { percent, requests } => {
                let request = requests.get(pod).copied().unwrap_or(0);
                request * i64::from((*percent).max(100)) / 100
            }
        }
    }
}

/// What a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Proposal {
    pub replicas: i32,
    /// In percent.
    pub utilization: Option<i32>,
    /// The average of the pods, or the value itself.
    pub usage: i64,
}

#[allow(clippy::cast_precision_loss, reason = "far from where it matters")]
fn quotient(one: i64, other: i64) -> f64 {
    one as f64 / other as f64
}

#[allow(clippy::cast_possible_truncation, reason = "bounded before")]
fn whole(number: f64) -> i32 {
    number.ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

#[derive(Debug, Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

fn group<'a>(
    pods: &'a [Arc<Pod>],
    samples: &Samples,
    starting: Option<Starting>,
    now: Timestamp,
) -> Groups<'a> {
    let mut groups = Groups::default();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || pods::phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if pods::phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(name) {
            if starting.is_some_and(|starting| starting.covers(pod, sample, now)) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

impl Starting {
    /// Whether what the pod uses may only be what it takes to start.
    fn covers(self, pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
        let status = pod.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref());
        let (Some(started), Some(ready)) = (started, pods::condition(pod, "Ready")) else {
            return true;
        };
        let since = ready.last_transition_time.as_ref();
        let since = since.map_or(Timestamp::MIN, |since| since.0);
        let after = |at: Timestamp, delay: SignedDuration| at.checked_add(delay).unwrap_or(at);
        let unready = ready.status == "False";
        if after(started.0, self.cpu_initialization) > now {
            let window = SignedDuration::try_from(sample.window).unwrap_or_default();
            unready || sample.at < after(since, window)
        } else {
            unready && after(started.0, self.initial_readiness) > since
        }
    }
}

/// For metrics of the pods that the selector selects. `starting` is for CPU only.
pub(super) fn by_pods(
    current: i32,
    pods: &[Arc<Pod>],
    samples: &Samples,
    starting: Option<Starting>,
    goal: &Goal<'_>,
    tolerance: Tolerance,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(pods, samples, starting, now);
    let mut values: BTreeMap<&str, i64> = samples
        .iter()
        .map(|(name, sample)| (name.as_str(), sample.value))
        .filter(|(name, _)| !groups.ignored.contains(name) && !groups.unready.contains(name))
        .collect();
    if values.is_empty() {
        let why = "did not receive metrics for targeted pods (pods might be unready)";
        return Err(why.to_owned());
    }
    let goal = goal.of(pods)?;
    let found = goal.ratio(&values)?;
    let proposal = |replicas| Proposal {
        replicas,
        utilization: found.utilization,
        usage: found.usage,
    };
    let grows = found.ratio > 1.0;
    let with_unready = !groups.unready.is_empty() && grows;
    if !with_unready && groups.missing.is_empty() {
        if tolerance.covers(found.ratio) {
            return Ok(proposal(current));
        }
        let ready = f64::from(u32::try_from(groups.ready).unwrap_or(u32::MAX));
        return Ok(proposal(whole(found.ratio * ready)));
    }
    // What is not known is taken to speak against a change.
    for name in &groups.missing {
        if found.ratio < 1.0 {
            values.insert(name, goal.assumed(name));
        } else if grows {
            values.insert(name, 0);
        }
    }
    if with_unready {
        values.extend(groups.unready.iter().map(|name| (*name, 0)));
    }
    let ratio = goal.ratio(&values)?.ratio;
    let turned = (found.ratio < 1.0 && ratio > 1.0) || (grows && ratio < 1.0);
    if tolerance.covers(ratio) || turned {
        return Ok(proposal(current));
    }
    let count = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
    let replicas = whole(ratio * count);
    let against = (ratio < 1.0 && replicas > current) || (ratio > 1.0 && replicas < current);
    Ok(proposal(if against { current } else { replicas }))
}

/// For a metric of something else whose value itself is to be near the target.
pub(super) fn by_value(
    current: i32,
    pods: &[Arc<Pod>],
    usage: i64,
    target: i64,
    tolerance: Tolerance,
) -> Result<Proposal, String> {
    let ratio = quotient(usage, target);
    let replicas = if current == 0 {
        whole(ratio)
    } else if tolerance.covers(ratio) {
        current
    } else if pods.is_empty() {
        return Err(
            "unable to calculate ready pods: no pods returned by selector while calculating \
             replica count"
                .to_owned(),
        );
    } else {
        let ready = pods
            .iter()
            .filter(|pod| pods::phase(pod) == "Running" && pods::is_ready(pod))
            .count();
        whole(ratio * f64::from(u32::try_from(ready).unwrap_or(u32::MAX)))
    };
    Ok(Proposal {
        replicas,
        utilization: None,
        usage,
    })
}

/// For a metric of something else that each replica is to have its share of.
pub(super) fn by_average(current: i32, usage: i64, target: i64, tolerance: Tolerance) -> Proposal {
    let ratio = quotient(usage, target) / f64::from(current);
    let replicas = if tolerance.covers(ratio) {
        current
    } else {
        whole(quotient(usage, target))
    };
    let share = i64::from(current.max(1));
    // A sum that has overflown is shown as it is.
    let share = if usage == i64::MAX { 1 } else { share };
    Proposal {
        replicas,
        utilization: None,
        usage: usage / share + i64::from(usage % share > 0),
    }
}

/// What each pod requests of the resource, in all or in one container.
fn requests(
    pods: &[Arc<Pod>],
    container: Option<&str>,
    resource: &str,
) -> Result<BTreeMap<String, i64>, String> {
    pods.iter()
        .map(|pod| Ok((pod.name_any(), request(pod, container, resource)?)))
        .collect()
}

fn request(pod: &Pod, wanted: Option<&str>, resource: &str) -> Result<i64, String> {
    use coracle_api::quantity::Amount;
    let name = pod.name_any();
    let Some(spec) = &pod.spec else {
        return Ok(0);
    };
    let whole = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    if let Some(requests) = whole.filter(|_| wanted.is_none()) {
        let quantity = requests
            .get(resource)
            .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"))?;
        return Ok(Amount::from(quantity).milli_value());
    }
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0;
    for container in spec.containers.iter().chain(sidecars) {
        if wanted.is_some_and(|wanted| wanted != container.name) {
            continue;
        }
        let requests = container.resources.as_ref();
        let requests = requests.and_then(|resources| resources.requests.as_ref());
        let quantity = requests.and_then(|requests| requests.get(resource));
        let quantity = quantity.ok_or_else(|| {
            let container = &container.name;
            format!("missing request for {resource} in container {container} of Pod {name}")
        })?;
        sum += Amount::from(quantity).milli_value();
        if wanted.is_some() {
            return Ok(sum);
        }
    }
    match wanted {
        Some(container) => Err(format!("container {container} not found in Pod {name}")),
        None => Ok(sum),
    }
}

#[cfg(test)]
mod tests;
