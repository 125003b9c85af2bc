//! What the kubelet counts, under upstream's names, but for what is read off at the time of
//! asking (`crate::server::pages`).

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coracle_metrics::{Collect, Counters, Gauges, Histograms, Stability, exponential};

/// The bounds that Prometheus' library takes when none are said.
const USUAL: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const OPERATIONS: [f64; 14] = exponential(0.005, 2.5);
const STARTS: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0,
    300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
const PULLS: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
];
const STATUS_SYNCS: [f64; 11] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];
const STORAGE: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0,
];
const CONTAINERS: [f64; 5] = exponential(1.0, 2.0);

static OPERATION: Counters<1> = Counters::new(
    "kubelet_runtime_operations_total",
    Stability::Alpha,
    "Calls of the container runtime, by kind.",
    ["operation_type"],
);
static OPERATION_ERRORS: Counters<1> = Counters::new(
    "kubelet_runtime_operations_errors_total",
    Stability::Alpha,
    "Calls of the container runtime that failed, by kind.",
    ["operation_type"],
);
static OPERATION_DURATION: Histograms<1> = Histograms::with_buckets(
    "kubelet_runtime_operations_duration_seconds",
    Stability::Alpha,
    "Seconds that a call of the container runtime took, by kind.",
    ["operation_type"],
    &OPERATIONS,
);
static RELIST: Histograms = Histograms::with_buckets(
    "kubelet_pleg_relist_duration_seconds",
    Stability::Alpha,
    "Seconds to list all sandboxes and containers of the runtime.",
    [],
    &USUAL,
);
static RELIST_INTERVAL: Histograms = Histograms::with_buckets(
    "kubelet_pleg_relist_interval_seconds",
    Stability::Alpha,
    "Seconds from one listing of the runtime to the next.",
    [],
    &USUAL,
);
static LAST_SEEN: Gauges = Gauges::new(
    "kubelet_pleg_last_seen_seconds",
    Stability::Alpha,
    "When the runtime was last listed, in seconds since 1970.",
    [],
);
static WORKER: Histograms<1> = Histograms::with_buckets(
    "kubelet_pod_worker_duration_seconds",
    Stability::Alpha,
    "Seconds of one step of a pod's task, by kind: create, sync or kill.",
    ["operation_type"],
    &USUAL,
);
static WORKER_START: Histograms = Histograms::with_buckets(
    "kubelet_pod_worker_start_duration_seconds",
    Stability::Alpha,
    "Seconds until the task of a newly seen pod began.",
    [],
    &USUAL,
);
static POD_START: Histograms = Histograms::with_buckets(
    "kubelet_pod_start_duration_seconds",
    Stability::Alpha,
    "Seconds from the first sight of a pod until it ran.",
    [],
    &STARTS,
);
static POD_START_SLI: Histograms = Histograms::with_buckets(
    "kubelet_pod_start_sli_duration_seconds",
    Stability::Alpha,
    "Seconds from the creation of a pod until all its containers ran, less those for images and init containers.",
    [],
    &STARTS,
);
static POD_START_TOTAL: Histograms = Histograms::with_buckets(
    "kubelet_pod_start_total_duration_seconds",
    Stability::Alpha,
    "Seconds from the creation of a pod until all its containers ran.",
    [],
    &STARTS,
);
static STATUS_SYNC: Histograms = Histograms::with_buckets(
    "kubelet_pod_status_sync_duration_seconds",
    Stability::Alpha,
    "Seconds until a change of a pod's status was written to the API server.",
    [],
    &STATUS_SYNCS,
);
static SANDBOX: Histograms<1> = Histograms::with_buckets(
    "kubelet_run_podsandbox_duration_seconds",
    Stability::Alpha,
    "Seconds to make a pod sandbox, by handler of the runtime class.",
    ["runtime_handler"],
    &USUAL,
);
static SANDBOX_ERRORS: Counters<1> = Counters::new(
    "kubelet_run_podsandbox_errors_total",
    Stability::Alpha,
    "Pod sandboxes that could not be made, by handler of the runtime class.",
    ["runtime_handler"],
);
static PODS: Counters = Counters::new(
    "kubelet_started_pods_total",
    Stability::Alpha,
    "Pods that were started.",
    [],
);
static POD_ERRORS: Counters = Counters::new(
    "kubelet_started_pods_errors_total",
    Stability::Alpha,
    "Pods that could not be started.",
    [],
);
static STARTED: Counters<1> = Counters::new(
    "kubelet_started_containers_total",
    Stability::Alpha,
    "Containers that were started, by kind.",
    ["container_type"],
);
static STARTED_ERRORS: Counters<2> = Counters::new(
    "kubelet_started_containers_errors_total",
    Stability::Alpha,
    "Containers that could not be started, by kind and reason.",
    ["code", "container_type"],
);
static PER_POD: Histograms = Histograms::with_buckets(
    "kubelet_containers_per_pod_count",
    Stability::Alpha,
    "Containers in a pod.",
    [],
    &CONTAINERS,
);
static PULL: Histograms<1> = Histograms::with_buckets(
    "kubelet_image_pull_duration_seconds",
    Stability::Alpha,
    "Seconds to pull an image, by its size.",
    ["image_size_in_bytes"],
    &PULLS,
);
static REJECTIONS: Counters<1> = Counters::new(
    "kubelet_admission_rejections_total",
    Stability::Alpha,
    "Pods that were not admitted, by reason.",
    ["reason"],
);
static STORAGE_OPERATION: Histograms<4> = Histograms::with_buckets(
    "storage_operation_duration_seconds",
    Stability::Alpha,
    "Seconds to set up a volume, by plugin and how it ended.",
    ["migrated", "operation_name", "status", "volume_plugin"],
    &STORAGE,
);
static REQUESTS: Counters<4> = Counters::new(
    "kubelet_http_requests_total",
    Stability::Alpha,
    "Requests to the node's own endpoints, by method and first part of the path.",
    ["long_running", "method", "path", "server_type"],
);
static REQUEST_DURATION: Histograms<4> = Histograms::with_buckets(
    "kubelet_http_requests_duration_seconds",
    Stability::Alpha,
    "Seconds to answer a request to the node's own endpoints.",
    ["long_running", "method", "path", "server_type"],
    &USUAL,
);
static IMAGE_VOLUMES: Counters = Counters::new(
    "kubelet_image_volume_requested_total",
    Stability::Beta,
    "Image volumes asked for.",
    [],
);
static IMAGE_VOLUMES_MOUNTED: Counters = Counters::new(
    "kubelet_image_volume_mounted_succeed_total",
    Stability::Beta,
    "Image volumes that were mounted.",
    [],
);
static IMAGE_VOLUMES_FAILED: Counters = Counters::new(
    "kubelet_image_volume_mounted_errors_total",
    Stability::Beta,
    "Image volumes that could not be mounted.",
    [],
);
static RENEW_ERRORS: Counters = Counters::new(
    "kubelet_server_expiration_renew_errors",
    Stability::Alpha,
    "Serving certificates that could not be renewed.",
    [],
);
static CLIENT_RENEW_ERRORS: Counters = Counters::new(
    "kubelet_certificate_manager_client_expiration_renew_errors",
    Stability::Alpha,
    "Client certificates that could not be renewed.",
    [],
);
static PROBES: Counters<6> = Counters::new(
    "prober_probe_total",
    Stability::Beta,
    "Probes of a container, by type and result.",
    [
        "container",
        "namespace",
        "pod",
        "pod_uid",
        "probe_type",
        "result",
    ],
);
static PROBE_DURATION: Histograms<4> = Histograms::with_buckets(
    "prober_probe_duration_seconds",
    Stability::Alpha,
    "Seconds until a probe was answered.",
    ["container", "namespace", "pod", "probe_type"],
    &USUAL,
);

/// Every family that `/metrics` shows.
pub(crate) static FAMILIES: &[&dyn Collect] = &[
    &OPERATION,
    &OPERATION_ERRORS,
    &OPERATION_DURATION,
    &RELIST,
    &RELIST_INTERVAL,
    &LAST_SEEN,
    &WORKER,
    &WORKER_START,
    &POD_START,
    &POD_START_SLI,
    &POD_START_TOTAL,
    &STATUS_SYNC,
    &SANDBOX,
    &SANDBOX_ERRORS,
    &PODS,
    &POD_ERRORS,
    &STARTED,
    &STARTED_ERRORS,
    &PER_POD,
    &PULL,
    &REJECTIONS,
    &STORAGE_OPERATION,
    &REQUESTS,
    &REQUEST_DURATION,
    &IMAGE_VOLUMES,
    &IMAGE_VOLUMES_MOUNTED,
    &IMAGE_VOLUMES_FAILED,
    &RENEW_ERRORS,
    &CLIENT_RENEW_ERRORS,
];

/// Every family that `/metrics/probes` shows.
pub(crate) static PROBE_FAMILIES: &[&dyn Collect] = &[&PROBES, &PROBE_DURATION];

/// The runtime was asked for something: `create_container`, for example.
pub(crate) fn operation(kind: &str, took: Duration, failed: bool) {
    OPERATION.with([kind]).inc();
    let seconds = took.as_secs_f64();
    OPERATION_DURATION.with([kind]).observe(seconds);
    if failed {
        OPERATION_ERRORS.with([kind]).inc();
    }
}

/// Everything in the runtime was listed; it began at `since`.
pub(crate) fn listed(since: Instant) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    /// Milliseconds from the start to the last time; 0: never.
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    RELIST.with([]).observe(since.elapsed().as_secs_f64());
    let now = START.elapsed().as_secs_f64() * 1e3;
    let before = BEFORE.swap(now as u64 + 1, Ordering::Relaxed);
    if before > 0 {
        RELIST_INTERVAL
            .with([])
            .observe((now - before as f64).max(0.0) / 1e3);
    }
    let now = jiff::Timestamp::now().as_duration().as_secs_f64();
    LAST_SEEN.with([]).set(now);
}

/// What a pod's task was at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Create,
    Sync,
    Kill,
}

/// A pod's task has done one step.
pub(crate) fn worked(work: Work, took: Duration) {
    let operation = match work {
        Work::Create => "create",
        Work::Sync => "sync",
        Work::Kill => "kill",
    };
    WORKER.with([operation]).observe(took.as_secs_f64());
}

/// A pod's task begins, so long after the pod was seen. It has so many containers.
pub(crate) fn began(after: Duration, containers: usize) {
    WORKER_START.with([]).observe(after.as_secs_f64());
    PER_POD.with([]).observe(containers as f64);
}

/// How long it took until a pod ran.
pub(crate) struct PodStart {
    /// From when the kubelet saw it.
    pub seen: Duration,
    /// From when it was created.
    pub created: Duration,
    /// The part of that for images and init containers.
    pub waited: Duration,
}

impl PodStart {
    pub fn count(&self) {
        POD_START.with([]).observe(self.seen.as_secs_f64());
        POD_START_TOTAL.with([]).observe(self.created.as_secs_f64());
        let own = self.created.saturating_sub(self.waited);
        POD_START_SLI.with([]).observe(own.as_secs_f64());
    }
}

/// A status was written, so long after it became what it is.
pub(crate) fn status_written(after: Duration) {
    STATUS_SYNC.with([]).observe(after.as_secs_f64());
}

/// A sandbox was made, or not.
pub(crate) fn sandbox(handler: &str, took: Duration, failed: bool) {
    SANDBOX.with([handler]).observe(took.as_secs_f64());
    PODS.with([]).inc();
    if failed {
        SANDBOX_ERRORS.with([handler]).inc();
        POD_ERRORS.with([]).inc();
    }
}

/// A container is started: `container`, `init_container`, `ephemeral_container` or `podsandbox`.
pub(crate) fn container_starts(kind: &'static str) {
    STARTED.with([kind]).inc();
}

/// It could not be, for this reason.
pub(crate) fn container_failed(kind: &'static str, code: &str) {
    STARTED_ERRORS.with([code, kind]).inc();
}

/// An image of so many bytes was pulled.
pub(crate) fn pulled(bytes: u64, took: Duration) {
    PULL.with([size_class(bytes)]).observe(took.as_secs_f64());
}

/// Upstream's classes of sizes.
fn size_class(bytes: u64) -> &'static str {
    const MEGABYTE: u64 = 1 << 20;
    match bytes / MEGABYTE {
        _ if bytes == 0 => "N/A",
        0..10 => "0-10MB",
        10..100 => "10MB-100MB",
        100..500 => "100MB-500MB",
        500..1024 => "500MB-1GB",
        1024..5120 => "1GB-5GB",
        5120..10240 => "5GB-10GB",
        10240..20480 => "10GB-20GB",
        20480..30720 => "20GB-30GB",
        30720..40960 => "30GB-40GB",
        40960..61440 => "40GB-60GB",
        61440..102_400 => "60GB-100GB",
        _ => "GT100GB",
    }
}

/// A pod was not taken, for the reason that its status tells.
pub(crate) fn rejected(reason: &str) {
    REJECTIONS.with([reason]).inc();
}

/// A volume was set up, or could not be.
pub(crate) fn volume(plugin: &str, took: Duration, failed: bool) {
    let status = if failed { "fail-unknown" } else { "success" };
    let labels = ["false", "volume_mount", status, plugin];
    STORAGE_OPERATION.with(labels).observe(took.as_secs_f64());
    if plugin == "kubernetes.io/image" {
        IMAGE_VOLUMES.with([]).inc();
        let outcome = if failed {
            &IMAGE_VOLUMES_FAILED
        } else {
            &IMAGE_VOLUMES_MOUNTED
        };
        outcome.with([]).inc();
    }
}

/// A request to the node's endpoints was answered; `path` is the first part only.
pub(crate) fn answered(method: &str, path: &str, long_running: bool, took: Duration) {
    let long_running = if long_running { "true" } else { "false" };
    let labels = [long_running, method, path, "readwrite"];
    REQUESTS.with(labels).inc();
    REQUEST_DURATION.with(labels).observe(took.as_secs_f64());
}

/// The container that a probe is of.
#[derive(Clone, Debug)]
pub(crate) struct Probed {
    pub container: String,
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    /// `Liveness`, `Readiness` or `Startup`.
    pub kind: &'static str,
}

impl Probed {
    /// A probe was answered: `successful`, `failed` or `unknown`.
    pub fn answered(&self, result: &'static str, took: Duration) {
        let Probed {
            container,
            namespace,
            pod,
            pod_uid,
            kind,
        } = self;
        PROBES
            .with([container, namespace, pod, pod_uid, kind, result])
            .inc();
        if result != "unknown" {
            let labels = [container.as_str(), namespace, pod, kind];
            PROBE_DURATION.with(labels).observe(took.as_secs_f64());
        }
    }

    /// The container is not probed any more, and its series go.
    pub fn end(&self) {
        PROBES.forget(|[container, _, _, uid, kind, _]| {
            **container == *self.container && **uid == *self.pod_uid && **kind == *self.kind
        });
        PROBE_DURATION.forget(|[container, namespace, pod, kind]| {
            **container == *self.container
                && **namespace == *self.namespace
                && **pod == *self.pod
                && **kind == *self.kind
        });
    }
}

#[cfg(test)]
mod tests {
    use coracle_metrics::Page;

    use super::*;

    #[test]
    fn series_of_a_probe_go_with_its_container() {
        let probed = Probed {
            container: "app".to_owned(),
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            pod_uid: "u".to_owned(),
            kind: "Readiness",
        };
        probed.answered("successful", Duration::from_millis(3));
        let shown = || {
            let mut page = Page::default();
            page.add(PROBE_FAMILIES);
            page.render()
        };
        let line = "prober_probe_total{container=\"app\",namespace=\"shop\",pod=\"web\",pod_uid=\"u\",probe_type=\"Readiness\",result=\"successful\"} 1\n";
        assert!(shown().contains(line), "{}", shown());
        probed.end();
        assert!(!shown().contains("pod=\"web\""), "{}", shown());
    }
}
