//! What the scheduler counts, under the names of upstream's.

use std::time::{Duration, Instant};

use coracle_metrics::{Collect, Counters, Gauges, Held, Histograms, Stability, exponential};

/// What the profile is called in every label: the scheduler's name.
pub(crate) const PROFILE: &str = "default-scheduler";

const ATTEMPTS: [f64; 15] = exponential(0.001, 2.0);
const COUNTS: [f64; 5] = exponential(1.0, 2.0);
const VICTIM_COUNTS: [f64; 7] = exponential(1.0, 2.0);
const SLI: [f64; 20] = exponential(0.01, 2.0);
const POINTS: [f64; 12] = exponential(0.0001, 2.0);

static SCHEDULED: Counters<2> = Counters::new(
    "scheduler_schedule_attempts_total",
    Stability::Stable,
    "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
    ["profile", "result"],
);
static ATTEMPT: Histograms<2> = Histograms::with_buckets(
    "scheduler_scheduling_attempt_duration_seconds",
    Stability::Stable,
    "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
    ["profile", "result"],
    &ATTEMPTS,
);
static ALGORITHM: Histograms = Histograms::with_buckets(
    "scheduler_scheduling_algorithm_duration_seconds",
    Stability::Alpha,
    "Scheduling algorithm latency in seconds",
    [],
    &ATTEMPTS,
);
static POD_ATTEMPTS: Histograms = Histograms::with_buckets(
    "scheduler_pod_scheduling_attempts",
    Stability::Stable,
    "Number of attempts to successfully schedule a pod.",
    [],
    &COUNTS,
);
static POD_SLI: Histograms<1> = Histograms::with_buckets(
    "scheduler_pod_scheduling_sli_duration_seconds",
    Stability::Beta,
    "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
    ["attempts"],
    &SLI,
);
static POINT: Histograms<3> = Histograms::with_buckets(
    "scheduler_framework_extension_point_duration_seconds",
    Stability::Stable,
    "Latency for running all plugins of a specific extension point.",
    ["extension_point", "profile", "status"],
    &POINTS,
);
static EVALUATIONS: Counters<3> = Counters::new(
    "scheduler_plugin_evaluation_total",
    Stability::Beta,
    "Number of attempts to schedule pods by each plugin and the extension point (available only in PreFilter, Filter, PreScore, and Score).",
    ["extension_point", "plugin", "profile"],
);
static PENDING: Gauges<1> = Gauges::new(
    "scheduler_pending_pods",
    Stability::Stable,
    "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
    ["queue"],
);
static INCOMING: Counters<2> = Counters::new(
    "scheduler_queue_incoming_pods_total",
    Stability::Stable,
    "Number of pods added to scheduling queues by event and queue type.",
    ["event", "queue"],
);
static UNSCHEDULABLE: Gauges<2> = Gauges::new(
    "scheduler_unschedulable_pods",
    Stability::Beta,
    "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
    ["plugin", "profile"],
);
static PREEMPTIONS: Counters = Counters::new(
    "scheduler_preemption_attempts_total",
    Stability::Stable,
    "Total preemption attempts in the cluster till now",
    [],
);
static VICTIMS: Histograms = Histograms::with_buckets(
    "scheduler_preemption_victims",
    Stability::Stable,
    "Number of selected preemption victims",
    [],
    &VICTIM_COUNTS,
);
static TASKS: Gauges<1> = Gauges::new(
    "scheduler_goroutines",
    Stability::Beta,
    "Number of running goroutines split by the work they do such as binding.",
    ["operation"],
);
static CACHED: Gauges<1> = Gauges::new(
    "scheduler_scheduler_cache_size",
    Stability::Alpha,
    "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
    ["type"],
);
static PERMIT: Histograms<1> = Histograms::with_buckets(
    "scheduler_permit_wait_duration_seconds",
    Stability::Beta,
    "Duration of waiting on permit.",
    ["result"],
    &ATTEMPTS,
);

/// Every family of this crate.
pub fn metrics() -> &'static [&'static dyn Collect] {
    FAMILIES
}

static FAMILIES: &[&dyn Collect] = &[
    &SCHEDULED,
    &ATTEMPT,
    &ALGORITHM,
    &POD_ATTEMPTS,
    &POD_SLI,
    &POINT,
    &EVALUATIONS,
    &PENDING,
    &INCOMING,
    &UNSCHEDULABLE,
    &PREEMPTIONS,
    &VICTIMS,
    &TASKS,
    &CACHED,
    &PERMIT,
];

/// What came of an attempt to schedule a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Scheduled,
    Unschedulable,
    Error,
}

pub(crate) fn attempted(attempt: Attempt, taken: Duration) {
    let result = match attempt {
        Attempt::Scheduled => "scheduled",
        Attempt::Unschedulable => "unschedulable",
        Attempt::Error => "error",
    };
    let labels = [PROFILE, result];
    SCHEDULED.with(labels).inc();
    ATTEMPT.with(labels).observe(taken.as_secs_f64());
}

/// A pod was bound, at that attempt, so long after it was first queued.
pub(crate) fn bound(attempts: u32, waited: Duration) {
    POD_ATTEMPTS.with([]).observe(f64::from(attempts));
    let label = match attempts {
        0..=15 => attempts.to_string(),
        _ => "16+".to_owned(),
    };
    POD_SLI.with([&label]).observe(waited.as_secs_f64());
}

pub(crate) fn decided(taken: Duration) {
    ALGORITHM.with([]).observe(taken.as_secs_f64());
}

/// All plugins of an extension point have had their say.
pub(crate) fn point(point: &'static str, passed: bool, since: Instant) {
    let status = if passed { "Success" } else { "Unschedulable" };
    let labels = [point, PROFILE, status];
    POINT.with(labels).observe(since.elapsed().as_secs_f64());
}

/// A plugin had its say.
pub(crate) fn evaluated(point: &'static str, plugin: &'static str) {
    EVALUATIONS.with([point, plugin, PROFILE]).inc();
}

/// A pod is in the queue of that name from now on, because of the event.
pub(crate) fn queued(queue: &'static str, event: &'static str) {
    PENDING.with([queue]).inc();
    if queue != "gated" {
        INCOMING.with([event, queue]).inc();
    }
}

/// A pod is in the queue of that name no more.
pub(crate) fn unqueued(queue: &'static str) {
    PENDING.with([queue]).dec();
}

/// The plugin stands against a pod that waits, or no more.
pub(crate) fn rejects(plugin: &'static str, by: f64) {
    UNSCHEDULABLE.with([plugin, PROFILE]).add(by);
}

/// So many pods have to go for another.
pub(crate) fn preempts(victims: usize) {
    PREEMPTIONS.with([]).inc();
    VICTIMS.with([]).observe(victims as f64);
}

/// A pod is being bound until the guard is dropped.
pub(crate) fn binding() -> Held {
    TASKS.with(["binding"]).hold()
}

/// What the cache holds.
pub(crate) fn cached(nodes: usize, pods: usize) {
    for (of, count) in [("nodes", nodes), ("pods", pods)] {
        CACHED.with([of]).set(count as f64);
    }
}
