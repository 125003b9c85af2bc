//! What the scheduler counts, under the names of upstream's.
//!
//! A decision counts much, and must not be slower for it: series are looked up once and kept, and
//! what is counted for every node is added up first ([`Evaluated`]).

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use coracle_metrics::{
    Collect, Counter, Counters, Gauge, Gauges, Held, Histogram, Histograms, Series, Stability,
    Tally, exponential,
};

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
    "Attempts to schedule a pod: 'scheduled', 'unschedulable' where no node fits, 'error' where the scheduler itself failed.",
    ["profile", "result"],
);
static ATTEMPT: Histograms<2> = Histograms::with_buckets(
    "scheduler_scheduling_attempt_duration_seconds",
    Stability::Stable,
    "Seconds from taking a pod off the queue to its binding, or to the decision that no node fits.",
    ["profile", "result"],
    &ATTEMPTS,
);
static ALGORITHM: Histograms = Histograms::with_buckets(
    "scheduler_scheduling_algorithm_duration_seconds",
    Stability::Alpha,
    "Seconds to choose a node for a pod.",
    [],
    &ATTEMPTS,
);
static POD_ATTEMPTS: Histograms = Histograms::with_buckets(
    "scheduler_pod_scheduling_attempts",
    Stability::Stable,
    "Attempts that it took to schedule a pod.",
    [],
    &COUNTS,
);
static POD_SLI: Histograms<1> = Histograms::with_buckets(
    "scheduler_pod_scheduling_sli_duration_seconds",
    Stability::Beta,
    "Seconds from queueing a pod to its binding, by the attempts that it took.",
    ["attempts"],
    &SLI,
);
static POINT: Histograms<3> = Histograms::with_buckets(
    "scheduler_framework_extension_point_duration_seconds",
    Stability::Stable,
    "Seconds in all plugins of an extension point for one pod.",
    ["extension_point", "profile", "status"],
    &POINTS,
);
static EVALUATIONS: Counters<3> = Counters::new(
    "scheduler_plugin_evaluation_total",
    Stability::Beta,
    "Pods that a plugin had a say on, by extension point (PreFilter, Filter and Score only).",
    ["extension_point", "plugin", "profile"],
);
static PENDING: Gauges<1> = Gauges::new(
    "scheduler_pending_pods",
    Stability::Stable,
    "Pods that wait: to be tried ('active'), for a time ('backoff'), for a change in the cluster ('unschedulable'), or not to be tried yet ('gated').",
    ["queue"],
);
static INCOMING: Counters<2> = Counters::new(
    "scheduler_queue_incoming_pods_total",
    Stability::Stable,
    "Pods put into a queue, by the event that put them there.",
    ["event", "queue"],
);
static UNSCHEDULABLE: Gauges<2> = Gauges::new(
    "scheduler_unschedulable_pods",
    Stability::Beta,
    "Waiting pods that a plugin rejected; a pod rejected by more than one counts for each.",
    ["plugin", "profile"],
);
static PREEMPTIONS: Counters = Counters::new(
    "scheduler_preemption_attempts_total",
    Stability::Stable,
    "Attempts to make room for a pod by evicting others.",
    [],
);
static VICTIMS: Histograms = Histograms::with_buckets(
    "scheduler_preemption_victims",
    Stability::Stable,
    "Pods evicted to make room for another.",
    [],
    &VICTIM_COUNTS,
);
static TASKS: Gauges<1> = Gauges::new(
    "scheduler_goroutines",
    Stability::Beta,
    "Tasks that run now, by what they do.",
    ["operation"],
);
static CACHED: Gauges<1> = Gauges::new(
    "scheduler_scheduler_cache_size",
    Stability::Alpha,
    "What the scheduler knows of: nodes, pods, and pods that are being bound.",
    ["type"],
);
static PERMIT: Histograms<1> = Histograms::with_buckets(
    "scheduler_permit_wait_duration_seconds",
    Stability::Beta,
    "Seconds that a pod waited for leave to be bound.",
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
    const RESULTS: [&str; 3] = ["scheduled", "unschedulable", "error"];
    static COUNTS: [Series<Counter, 2>; 3] = [
        SCHEDULED.series([PROFILE, RESULTS[0]]),
        SCHEDULED.series([PROFILE, RESULTS[1]]),
        SCHEDULED.series([PROFILE, RESULTS[2]]),
    ];
    static DURATIONS: [Series<Histogram, 2>; 3] = [
        ATTEMPT.series([PROFILE, RESULTS[0]]),
        ATTEMPT.series([PROFILE, RESULTS[1]]),
        ATTEMPT.series([PROFILE, RESULTS[2]]),
    ];
    COUNTS[attempt as usize].inc();
    DURATIONS[attempt as usize].observe(taken.as_secs_f64());
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

/// Where plugins have their say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    PreFilter,
    Filter,
    Score,
    PostFilter,
}

impl Point {
    const fn name(self) -> &'static str {
        match self {
            Point::PreFilter => "PreFilter",
            Point::Filter => "Filter",
            Point::Score => "Score",
            Point::PostFilter => "PostFilter",
        }
    }

    const fn outcomes(self) -> [Series<Histogram, 3>; 2] {
        [
            POINT.series([self.name(), PROFILE, "Unschedulable"]),
            POINT.series([self.name(), PROFILE, "Success"]),
        ]
    }

    /// All plugins have had their say.
    pub fn over(self, passed: bool, since: Instant) {
        static POINTS: [[Series<Histogram, 3>; 2]; 4] = [
            Point::PreFilter.outcomes(),
            Point::Filter.outcomes(),
            Point::Score.outcomes(),
            Point::PostFilter.outcomes(),
        ];
        POINTS[self as usize][usize::from(passed)].observe(since.elapsed().as_secs_f64());
    }
}

/// How often a plugin had its say.
#[derive(Debug)]
pub(crate) struct Evaluated {
    plugin: &'static str,
    by_point: [OnceLock<Arc<Counter>>; 4],
}

impl Evaluated {
    pub fn new(plugin: &'static str) -> Self {
        Evaluated {
            plugin,
            by_point: Default::default(),
        }
    }

    /// The plugin had its say so many times.
    pub fn add(&self, point: Point, times: usize) {
        self.at(point).add(times as u64);
    }

    /// For a pod that it looks at one node after the other for.
    pub fn tally(&self, point: Point) -> Tally {
        Tally::new(self.at(point).clone())
    }

    fn at(&self, point: Point) -> &Arc<Counter> {
        self.by_point[point as usize]
            .get_or_init(|| EVALUATIONS.with([point.name(), self.plugin, PROFILE]))
    }
}

/// Where a pod waits, as upstream calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Active,
    Backoff,
    Unschedulable,
    Gated,
}

impl Queue {
    const fn name(self) -> &'static str {
        match self {
            Queue::Active => "active",
            Queue::Backoff => "backoff",
            Queue::Unschedulable => "unschedulable",
            Queue::Gated => "gated",
        }
    }

    fn pending(self) -> &'static Arc<Gauge> {
        static QUEUES: [Series<Gauge, 1>; 4] = [
            PENDING.series([Queue::Active.name()]),
            PENDING.series([Queue::Backoff.name()]),
            PENDING.series([Queue::Unschedulable.name()]),
            PENDING.series([Queue::Gated.name()]),
        ];
        &QUEUES[self as usize]
    }
}

/// What is counted of the pods that wait, with the series that were used.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    incoming: Vec<((&'static str, Queue), Arc<Counter>)>,
    rejecting: Vec<(&'static str, Arc<Gauge>)>,
}

impl Waiting {
    /// A pod is in the queue from now on, because of the event.
    pub fn queued(&mut self, queue: Queue, event: &'static str) {
        queue.pending().inc();
        if queue != Queue::Gated {
            let find = || INCOMING.with([event, queue.name()]);
            known(&mut self.incoming, (event, queue), find).inc();
        }
    }

    /// A pod is in the queue no more.
    pub fn unqueued(&mut self, queue: Queue) {
        queue.pending().dec();
    }

    /// The plugin stands against a pod that waits, or no more.
    pub fn rejects(&mut self, plugin: &'static str, by: f64) {
        let find = || UNSCHEDULABLE.with([plugin, PROFILE]);
        known(&mut self.rejecting, plugin, find).add(by);
    }
}

/// There are few, so looking at each costs less than a hash.
fn known<K: PartialEq, T>(all: &mut Vec<(K, T)>, key: K, find: impl FnOnce() -> T) -> &T {
    let index = all.iter().position(|(known, _)| *known == key);
    let index = index.unwrap_or_else(|| {
        all.push((key, find()));
        all.len() - 1
    });
    &all[index].1
}

/// So many pods have to go for another.
pub(crate) fn preempts(victims: usize) {
    PREEMPTIONS.with([]).inc();
    VICTIMS.with([]).observe(victims as f64);
}

/// A pod is being bound until the guard is dropped.
pub(crate) fn binding() -> Held {
    static BINDING: Series<Gauge, 1> = TASKS.series(["binding"]);
    BINDING.hold()
}

/// What the cache holds.
pub(crate) fn cached(nodes: usize, pods: usize) {
    static NODES: Series<Gauge, 1> = CACHED.series(["nodes"]);
    static PODS: Series<Gauge, 1> = CACHED.series(["pods"]);
    NODES.set(nodes as f64);
    PODS.set(pods as f64);
}
