//! What is counted of the ways to the API, under the names of upstream's client library.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coracle_metrics::{
    Collect, Counter, Counters, Gauge, Gauges, Histogram, Histograms, Stability, exponential,
};
use parking_lot::Mutex;

const DURATIONS: [f64; 10] = exponential(1e-8, 10.0);
const REQUESTS: [f64; 12] = [
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
];

static ADDS: Counters<1> = Counters::new(
    "workqueue_adds_total",
    Stability::Beta,
    "Items put into a work queue.",
    ["name"],
);
static DEPTH: Gauges<1> = Gauges::new(
    "workqueue_depth",
    Stability::Beta,
    "Items that wait in a work queue now.",
    ["name"],
);
static LONGEST: Gauges<1> = Gauges::new(
    "workqueue_longest_running_processor_seconds",
    Stability::Beta,
    "Seconds since the oldest work under way was begun.",
    ["name"],
);
static QUEUED: Histograms<1> = Histograms::with_buckets(
    "workqueue_queue_duration_seconds",
    Stability::Beta,
    "Seconds that an item waited in a work queue.",
    ["name"],
    &DURATIONS,
);
static RETRIES: Counters<1> = Counters::new(
    "workqueue_retries_total",
    Stability::Beta,
    "Items put into a work queue once more to try again.",
    ["name"],
);
static UNFINISHED: Gauges<1> = Gauges::new(
    "workqueue_unfinished_work_seconds",
    Stability::Beta,
    "Seconds of all work under way together; when it only grows, something hangs.",
    ["name"],
);
static WORKED: Histograms<1> = Histograms::with_buckets(
    "workqueue_work_duration_seconds",
    Stability::Beta,
    "Seconds of work on an item of a work queue.",
    ["name"],
    &DURATIONS,
);
static REST: Counters<3> = Counters::new(
    "rest_client_requests_total",
    Stability::Alpha,
    "Requests made, by status code, method and host; without an answer, the code is <error>.",
    ["code", "host", "method"],
);
static REST_DURATION: Histograms<2> = Histograms::with_buckets(
    "rest_client_request_duration_seconds",
    Stability::Alpha,
    "Seconds from a request to its answer, by verb and host.",
    ["host", "verb"],
    &REQUESTS,
);
static LEADER: Gauges<1> = Gauges::new(
    "leader_election_master_status",
    Stability::Alpha,
    "1 while this process leads under the lease of that name, 0 while it stands by.",
    ["name"],
);
static SLOW_PATH: Counters<1> = Counters::new(
    "leader_election_slowpath_total",
    Stability::Alpha,
    "Renewals of the lease of that name that had to read it first.",
    ["name"],
);

static FAMILIES: &[&dyn Collect] = &[
    &ADDS,
    &DEPTH,
    &LONGEST,
    &QUEUED,
    &RETRIES,
    &UNFINISHED,
    &WORKED,
    &REST,
    &REST_DURATION,
    &LEADER,
    &SLOW_PATH,
];

/// Every family of this crate.
pub fn metrics() -> &'static [&'static dyn Collect] {
    measure_work();
    FAMILIES
}

/// Whether we lead under the lease of that name.
pub(crate) fn leads(name: &str, leads: bool) {
    LEADER.with([name]).set(if leads { 1.0 } else { 0.0 });
    SLOW_PATH.with([name]);
}

/// The API server answered, or did not: then the code is `<error>`.
pub(crate) fn answered(code: &str, host: &str, method: &str, since: Instant) {
    REST.with([code, host, method]).inc();
    let seconds = since.elapsed().as_secs_f64();
    REST_DURATION.with([host, method]).observe(seconds);
}

/// Milliseconds since the first use of this.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The queues of one name: a controller may have more than one, and may be started again.
pub(crate) struct Work {
    adds: Arc<Counter>,
    depth: Arc<Gauge>,
    queued: Arc<Histogram>,
    retries: Arc<Counter>,
    worked: Arc<Histogram>,
    name: &'static str,
    /// When what is being worked on was begun, by a number that is 0 where nothing is.
    begun: Mutex<Vec<Arc<AtomicU64>>>,
}

/// All there are: as many as there are names of controllers.
static ALL: Mutex<Vec<Arc<Work>>> = Mutex::new(Vec::new());

impl Work {
    pub(crate) fn of(name: &'static str) -> Arc<Self> {
        let mut all = ALL.lock();
        if let Some(known) = all.iter().find(|known| known.name == name) {
            return known.clone();
        }
        let work = Arc::new(Work {
            adds: ADDS.with([name]),
            depth: DEPTH.with([name]),
            queued: QUEUED.with([name]),
            retries: RETRIES.with([name]),
            worked: WORKED.with([name]),
            name,
            begun: Mutex::default(),
        });
        all.push(work.clone());
        work
    }

    /// Something was queued.
    pub(crate) fn added(&self) {
        self.adds.inc();
        self.depth.inc();
    }

    /// Something was queued that will be tried again.
    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    /// What waited so long is being worked on until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, waited: Duration) -> Working {
        self.depth.dec();
        self.queued.observe(waited.as_secs_f64());
        let begun = Arc::new(AtomicU64::new(now()));
        self.begun.lock().push(begun.clone());
        Working {
            work: self.clone(),
            since: Instant::now(),
            begun,
        }
    }

    /// So much will never be worked on.
    pub(crate) fn dropped(&self, count: usize) {
        self.depth.add(-(count as f64));
    }
}

/// Something is being worked on.
pub(crate) struct Working {
    work: Arc<Work>,
    since: Instant,
    begun: Arc<AtomicU64>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.work.worked.observe(self.since.elapsed().as_secs_f64());
        let mut begun = self.work.begun.lock();
        begun.retain(|begun| !Arc::ptr_eq(begun, &self.begun));
    }
}

fn measure_work() {
    let now = now();
    for work in ALL.lock().iter() {
        let (mut longest, mut sum) = (0.0f64, 0.0);
        for begun in work.begun.lock().iter() {
            let seconds = now.saturating_sub(begun.load(Ordering::Relaxed)) as f64 / 1e3;
            longest = longest.max(seconds);
            sum += seconds;
        }
        LONGEST.with([work.name]).set(longest);
        UNFINISHED.with([work.name]).set(sum);
    }
}
