//! What flow control counts, under upstream's names.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Counts, rules::Found};

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    priority_level: String,
}

/// The counters. A label comes from the configuration only, so that there are few.
pub struct Metrics {
    registry: Registry,
    dispatched: Family<Labels, Count>,
    rejected: Family<RejectedLabels, Count>,
    waiting: Family<Labels, Level>,
    executing: Family<Labels, Level>,
    nominal: Family<LevelLabels, Level>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            dispatched: Family::default(),
            rejected: Family::default(),
            waiting: Family::default(),
            executing: Family::default(),
            nominal: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "apiserver_flowcontrol_dispatched_requests",
            "Number of requests executed by API Priority and Fairness subsystem",
            metrics.dispatched.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_rejected_requests",
            "Number of requests rejected by API Priority and Fairness subsystem",
            metrics.rejected.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
            metrics.waiting.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_current_executing_requests",
            "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
            metrics.executing.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_nominal_limit_seats",
            "Nominal number of execution seats configured for each priority level",
            metrics.nominal.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// A request waits until the guard is dropped.
    pub fn wait(&self, found: &Found) -> Held {
        Held::new(&self.waiting.get_or_create(&labels(found)))
    }

    /// A request is handled until the guard is dropped.
    pub fn dispatch(&self, found: &Found) -> Held {
        let labels = labels(found);
        self.dispatched.get_or_create(&labels).inc();
        Held::new(&self.executing.get_or_create(&labels))
    }

    pub fn reject(&self, found: &Found, reason: &'static str) {
        let labels = RejectedLabels {
            priority_level: found.level.clone(),
            flow_schema: found.schema.clone(),
            reason,
        };
        self.rejected.get_or_create(&labels).inc();
    }

    /// All of it as OpenMetrics text.
    pub fn render(&self, counts: Vec<Counts>) -> String {
        for level in counts {
            let labels = LevelLabels {
                priority_level: level.level,
            };
            let seats = i64::try_from(level.nominal).unwrap_or(i64::MAX);
            self.nominal.get_or_create(&labels).set(seats);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn labels(found: &Found) -> Labels {
    Labels {
        priority_level: found.level.clone(),
        flow_schema: found.schema.clone(),
    }
}

/// Counts as one until it is dropped.
pub struct Held(Level);

impl Held {
    fn new(gauge: &Level) -> Self {
        gauge.inc();
        Held(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
