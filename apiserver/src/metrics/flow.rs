//! What flow control counts. A label comes from the configuration only, so that there are few.

use std::time::{Duration, Instant};

use coracle_metrics::{Collect, Counters, Gauges, Held, Histograms, Stability};

const WAITS: [f64; 13] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0,
];
const EXECUTIONS: [f64; 15] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0,
];
const SEATS: [f64; 4] = [1.0, 2.0, 4.0, 10.0];

static DISPATCHED: Counters<2> = Counters::new(
    "apiserver_flowcontrol_dispatched_requests_total",
    Stability::Beta,
    "Requests that flow control let through, by flow schema and priority level.",
    ["flow_schema", "priority_level"],
);
static REJECTED: Counters<3> = Counters::new(
    "apiserver_flowcontrol_rejected_requests_total",
    Stability::Beta,
    "Requests that flow control turned away, by reason.",
    ["flow_schema", "priority_level", "reason"],
);
static WAITING: Gauges<2> = Gauges::new(
    "apiserver_flowcontrol_current_inqueue_requests",
    Stability::Beta,
    "Requests waiting in a queue of flow control now.",
    ["flow_schema", "priority_level"],
);
static EXECUTING: Gauges<2> = Gauges::new(
    "apiserver_flowcontrol_current_executing_requests",
    Stability::Beta,
    "Requests let through by flow control and under way now; a watch counts until it is set up.",
    ["flow_schema", "priority_level"],
);
static EXECUTING_SEATS: Gauges<2> = Gauges::new(
    "apiserver_flowcontrol_current_executing_seats",
    Stability::Beta,
    "Seats taken by the requests that are under way now; a watch takes its seats until it is set up.",
    ["flow_schema", "priority_level"],
);
static WAIT: Histograms<3> = Histograms::with_buckets(
    "apiserver_flowcontrol_request_wait_duration_seconds",
    Stability::Beta,
    "Seconds that a request waited for its turn; execute tells whether it came.",
    ["execute", "flow_schema", "priority_level"],
    &WAITS,
);
static EXECUTION: Histograms<3> = Histograms::with_buckets(
    "apiserver_flowcontrol_request_execution_seconds",
    Stability::Alpha,
    "Seconds that a request held its seats; for a watch, until it was set up.",
    ["flow_schema", "priority_level", "type"],
    &EXECUTIONS,
);
static WORK: Histograms<2> = Histograms::with_buckets(
    "apiserver_flowcontrol_work_estimated_seats",
    Stability::Alpha,
    "Seats that a request was thought to need.",
    ["flow_schema", "priority_level"],
    &SEATS,
);
static NOMINAL: Gauges<1> = Gauges::new(
    "apiserver_flowcontrol_nominal_limit_seats",
    Stability::Beta,
    "Seats that a priority level has by its configuration.",
    ["priority_level"],
);
static CURRENT: Gauges<1> = Gauges::new(
    "apiserver_flowcontrol_current_limit_seats",
    Stability::Alpha,
    "Seats that a priority level may use now, with what it lent and borrowed.",
    ["priority_level"],
);
static LOWER: Gauges<1> = Gauges::new(
    "apiserver_flowcontrol_lower_limit_seats",
    Stability::Alpha,
    "Seats that a priority level keeps whatever the others need.",
    ["priority_level"],
);
static UPPER: Gauges<1> = Gauges::new(
    "apiserver_flowcontrol_upper_limit_seats",
    Stability::Alpha,
    "Seats that a priority level may use at most, with all it can borrow.",
    ["priority_level"],
);

pub(super) static ALL: &[&dyn Collect] = &[
    &DISPATCHED,
    &REJECTED,
    &WAITING,
    &EXECUTING,
    &EXECUTING_SEATS,
    &WAIT,
    &EXECUTION,
    &WORK,
    &NOMINAL,
    &CURRENT,
    &LOWER,
    &UPPER,
];

/// What a request was found to be.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    pub schema: &'a str,
    pub level: &'a str,
}

impl Of<'_> {
    fn labels(&self) -> [&str; 2] {
        [self.schema, self.level]
    }

    /// The request waits until the guard is dropped.
    pub fn wait(self) -> Held {
        WAITING.with(self.labels()).hold()
    }

    /// It waited so long, and was handled then or not.
    pub fn waited(self, wait: Duration, executes: bool) {
        let execute = if executes { "true" } else { "false" };
        let labels = [execute, self.schema, self.level];
        WAIT.with(labels).observe(wait.as_secs_f64());
    }

    /// It is handled until the guard is dropped.
    pub fn dispatch(self) -> Dispatched {
        DISPATCHED.with(self.labels()).inc();
        WORK.with(self.labels()).observe(1.0);
        Dispatched {
            _requests: EXECUTING.with(self.labels()).hold(),
            _seats: EXECUTING_SEATS.with(self.labels()).hold(),
            execution: EXECUTION.with([self.schema, self.level, "regular"]),
            since: Instant::now(),
        }
    }

    pub fn reject(self, reason: &'static str) {
        REJECTED.with([self.schema, self.level, reason]).inc();
    }
}

/// A request that is being handled.
pub struct Dispatched {
    _requests: Held,
    _seats: Held,
    execution: std::sync::Arc<coracle_metrics::Histogram>,
    since: Instant,
}

impl Drop for Dispatched {
    fn drop(&mut self) {
        self.execution.observe(self.since.elapsed().as_secs_f64());
    }
}

/// The seats of a level: its own, what it may have at this moment, what it keeps of its own
/// whatever others need, and what it may have at most.
#[derive(Clone, Copy)]
pub struct Limits {
    pub nominal: usize,
    pub current: usize,
    pub lower: usize,
    pub upper: usize,
}

/// Shows the seats of a level.
pub fn limits(level: &str, limits: Limits) {
    NOMINAL.with([level]).set(limits.nominal as f64);
    CURRENT.with([level]).set(limits.current as f64);
    LOWER.with([level]).set(limits.lower as f64);
    UPPER.with([level]).set(limits.upper as f64);
}
