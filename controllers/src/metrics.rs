//! What the controllers count, under the names of upstream's controller manager.

use std::time::Duration;

use coracle_metrics::{Collect, Counters, Gauges, Held, Histograms, Stability, exponential};

const JOB_SYNCS: [f64; 15] = exponential(0.004, 2.0);
const SKEWS: [f64; 10] = exponential(1.0, 2.0);
const ENDPOINTS: [f64; 15] = exponential(2.0, 2.0);
const AUTOSCALING: [f64; 15] = exponential(0.001, 2.0);

static RUNNING: Gauges<2> = Gauges::new(
    "running_managed_controllers",
    Stability::Beta,
    "Controllers that run now.",
    ["manager", "name"],
);
static JOB_SYNC: Counters<3> = Counters::new(
    "job_controller_job_syncs_total",
    Stability::Stable,
    "Times that a Job was looked at, by what came of it.",
    ["action", "completion_mode", "result"],
);
static JOB_SYNC_DURATION: Histograms<3> = Histograms::with_buckets(
    "job_controller_job_sync_duration_seconds",
    Stability::Stable,
    "Seconds to look at a Job once, by what came of it.",
    ["action", "completion_mode", "result"],
    &JOB_SYNCS,
);
static JOBS_FINISHED: Counters<3> = Counters::new(
    "job_controller_jobs_finished_total",
    Stability::Stable,
    "Jobs that are over, by result and reason.",
    ["completion_mode", "reason", "result"],
);
static JOB_PODS_FINISHED: Counters<2> = Counters::new(
    "job_controller_job_pods_finished_total",
    Stability::Stable,
    "Pods of Jobs that are over and counted in the status.",
    ["completion_mode", "result"],
);
static TRACKING: Counters<1> = Counters::new(
    "job_controller_terminated_pods_tracking_finalizer_total",
    Stability::Beta,
    "Ended pods with the finalizer batch.kubernetes.io/job-tracking: seen ('add') and let go ('delete').",
    ["event"],
);
static POLICY: Counters<1> = Counters::new(
    "job_controller_pod_failures_handled_by_failure_policy_total",
    Stability::Beta,
    "Failed pods that a rule of the Job's podFailurePolicy was applied to, by action: FailJob, Ignore or Count.",
    ["action"],
);
static SKEW: Histograms = Histograms::with_buckets(
    "cronjob_controller_job_creation_skew_duration_seconds",
    Stability::Stable,
    "Seconds from the time that a CronJob was due to the creation of its Job.",
    [],
    &SKEWS,
);
static EVICTIONS: Counters<1> = Counters::new(
    "node_collector_evictions_total",
    Stability::Stable,
    "Nodes given the taint that evicts their pods, by zone.",
    ["zone"],
);
static ADDED: Histograms = Histograms::with_buckets(
    "endpoint_slice_controller_endpoints_added_per_sync",
    Stability::Beta,
    "Endpoints that were new when a Service was looked at.",
    [],
    &ENDPOINTS,
);
static REMOVED: Histograms = Histograms::with_buckets(
    "endpoint_slice_controller_endpoints_removed_per_sync",
    Stability::Beta,
    "Endpoints that went when a Service was looked at.",
    [],
    &ENDPOINTS,
);
static ENDPOINTS_DESIRED: Gauges = Gauges::new(
    "endpoint_slice_controller_endpoints_desired",
    Stability::Beta,
    "Endpoints that all Services should have.",
    [],
);
static SLICES: Gauges = Gauges::new(
    "endpoint_slice_controller_num_endpoint_slices",
    Stability::Beta,
    "EndpointSlices of all Services.",
    [],
);
static SLICES_DESIRED: Gauges = Gauges::new(
    "endpoint_slice_controller_desired_endpoint_slices",
    Stability::Beta,
    "EndpointSlices that would do for all Services if each were full.",
    [],
);
static SLICE_CHANGES: Counters<1> = Counters::new(
    "endpoint_slice_controller_changes",
    Stability::Alpha,
    "EndpointSlices written, by operation: create, update or delete.",
    ["operation"],
);
static SLICE_SYNCS: Counters<1> = Counters::new(
    "endpoint_slice_controller_syncs",
    Stability::Alpha,
    "Times that the endpoints of a Service were brought up to date, by result.",
    ["result"],
);
static DISTRIBUTION: Gauges<1> = Gauges::new(
    "endpoint_slice_controller_services_count_by_traffic_distribution",
    Stability::Beta,
    "Services by the trafficDistribution that they ask for.",
    ["traffic_distribution"],
);
static RECONCILIATIONS: Counters<2> = Counters::new(
    "horizontal_pod_autoscaler_controller_reconciliations_total",
    Stability::Beta,
    "Times that an autoscaler was looked at, by action ('scale_down', 'scale_up', 'none') and first error ('spec', 'internal', 'none').",
    ["action", "error"],
);
static RECONCILIATION: Histograms<2> = Histograms::with_buckets(
    "horizontal_pod_autoscaler_controller_reconciliation_duration_seconds",
    Stability::Beta,
    "Seconds to look at an autoscaler once, by action ('scale_down', 'scale_up', 'none') and first error ('spec', 'internal', 'none').",
    ["action", "error"],
    &AUTOSCALING,
);
static COMPUTATIONS: Counters<3> = Counters::new(
    "horizontal_pod_autoscaler_controller_metric_computation_total",
    Stability::Beta,
    "Metrics of autoscalers that were worked out, by type as in spec.metrics, action ('scale_down', 'scale_up', 'none') and error ('spec', 'internal', 'none').",
    ["action", "error", "metric_type"],
);
static COMPUTATION: Histograms<3> = Histograms::with_buckets(
    "horizontal_pod_autoscaler_controller_metric_computation_duration_seconds",
    Stability::Beta,
    "Seconds to work out one metric of an autoscaler, by type as in spec.metrics, action ('scale_down', 'scale_up', 'none') and error ('spec', 'internal', 'none').",
    ["action", "error", "metric_type"],
    &AUTOSCALING,
);

/// Every family of this crate.
pub fn metrics() -> &'static [&'static dyn Collect] {
    FAMILIES
}

static FAMILIES: &[&dyn Collect] = &[
    &RUNNING,
    &JOB_SYNC,
    &JOB_SYNC_DURATION,
    &JOBS_FINISHED,
    &JOB_PODS_FINISHED,
    &TRACKING,
    &POLICY,
    &SKEW,
    &EVICTIONS,
    &ADDED,
    &REMOVED,
    &ENDPOINTS_DESIRED,
    &SLICES,
    &SLICES_DESIRED,
    &SLICE_CHANGES,
    &SLICE_SYNCS,
    &DISTRIBUTION,
    &RECONCILIATIONS,
    &RECONCILIATION,
    &COMPUTATIONS,
    &COMPUTATION,
];

/// A controller runs until the guard is dropped.
pub fn running(controller: &str) -> Held {
    let manager = "kube-controller-manager";
    RUNNING.with([manager, controller]).hold()
}

/// A Job was looked at. `action` is what came of it: `reconciling`, `tracking`, `pods_created` or
/// `pods_deleted`.
pub(crate) fn job_synced(action: &'static str, mode: &str, failed: bool, taken: Duration) {
    let labels = [action, mode, if failed { "error" } else { "success" }];
    JOB_SYNC.with(labels).inc();
    JOB_SYNC_DURATION.with(labels).observe(taken.as_secs_f64());
}

/// A Job is over. `reason` is empty for one that is complete.
pub(crate) fn job_finished(mode: &str, reason: &str, failed: bool) {
    let result = if failed { "failed" } else { "succeeded" };
    JOBS_FINISHED.with([mode, reason, result]).inc();
}

/// So many pods of a Job were counted, and will not be again.
pub(crate) fn job_pods_finished(mode: &str, succeeded: i32, failed: i32) {
    for (result, count) in [("succeeded", succeeded), ("failed", failed)] {
        let count = u64::try_from(count).unwrap_or(0);
        if count > 0 {
            JOB_PODS_FINISHED.with([mode, result]).add(count);
        }
    }
}

/// Pods that have ended and are still tracked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tracking {
    /// One more was seen.
    Add,
    /// One was let go of.
    Delete,
}

pub(crate) fn tracked(tracking: Tracking) {
    let event = match tracking {
        Tracking::Add => "add",
        Tracking::Delete => "delete",
    };
    TRACKING.with([event]).inc();
}

/// A rule of a Job's policy said what a failed pod leads to.
pub(crate) fn judged(action: &str) {
    POLICY.with([action]).inc();
}

/// A Job was created so long after its time.
pub(crate) fn scheduled(skew: Duration) {
    SKEW.with([]).observe(skew.as_secs_f64());
}

/// A node was given the taint that evicts its pods.
pub(crate) fn evicted(zone: &str) {
    EVICTIONS.with([zone]).inc();
}

/// What the slices of one Service are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slices {
    pub slices: usize,
    /// If they were as full as they can be.
    pub desired: usize,
    pub endpoints: usize,
    /// `spec.trafficDistribution`, if it is said.
    pub distribution: Option<String>,
}

/// The slices of a Service are no longer `before` but `after`; a Service without any is empty.
pub(crate) fn slices(before: &Slices, after: &Slices) {
    let change = |gauge: &Gauges, before: usize, after: usize| {
        gauge.with([]).add(after as f64 - before as f64);
    };
    change(&SLICES, before.slices, after.slices);
    change(&SLICES_DESIRED, before.desired, after.desired);
    change(&ENDPOINTS_DESIRED, before.endpoints, after.endpoints);
    for (of, by) in [(before, -1.0), (after, 1.0)] {
        if let Some(distribution) = &of.distribution {
            DISTRIBUTION.with([distribution]).add(by);
        }
    }
}

/// The endpoints of a Service were brought up to date.
pub(crate) fn endpoints_synced(added: usize, removed: usize, failed: bool) {
    let result = if failed { "error" } else { "success" };
    SLICE_SYNCS.with([result]).inc();
    ADDED.with([]).observe(added as f64);
    REMOVED.with([]).observe(removed as f64);
}

/// A slice was written: `create`, `update` or `delete`.
pub(crate) fn slice_changed(operation: &'static str) {
    SLICE_CHANGES.with([operation]).inc();
}

/// What an autoscaler came to, or one of its metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaled {
    pub from: i32,
    /// The same as before when there is an error.
    pub to: i32,
    pub failed: bool,
}

impl Scaled {
    fn labels(self) -> [&'static str; 2] {
        let action = match self.to.cmp(&self.from) {
            std::cmp::Ordering::Less => "scale_down",
            std::cmp::Ordering::Equal => "none",
            std::cmp::Ordering::Greater => "scale_up",
        };
        [action, if self.failed { "internal" } else { "none" }]
    }
}

/// An autoscaler was looked at.
pub(crate) fn autoscaled(scaled: Scaled, taken: Duration) {
    let labels = scaled.labels();
    RECONCILIATIONS.with(labels).inc();
    RECONCILIATION.with(labels).observe(taken.as_secs_f64());
}

/// One metric of an autoscaler was looked at, for example of the type `Resource`.
pub(crate) fn computed(metric_type: &str, scaled: Scaled, taken: Duration) {
    let [action, error] = scaled.labels();
    let labels = [action, error, metric_type];
    COMPUTATIONS.with(labels).inc();
    COMPUTATION.with(labels).observe(taken.as_secs_f64());
}
