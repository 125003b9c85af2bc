//! What is counted of watches.

use std::{sync::Arc, time::Instant};

use coracle_api::Kind;
use coracle_metrics::{Collect, Counter, Counters, Histogram, Histograms, Stability, exponential};

const SIZES: [f64; 8] = exponential(1024.0, 2.0);
const DURATIONS: [f64; 17] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

static EVENTS: Counters<3> = Counters::new(
    "apiserver_watch_events_total",
    Stability::Alpha,
    "Events sent to watches, by resource.",
    ["group", "resource", "version"],
);
static EVENT_SIZES: Histograms<3> = Histograms::with_buckets(
    "apiserver_watch_events_sizes",
    Stability::Alpha,
    "Bytes in events sent to watches, by resource.",
    ["group", "resource", "version"],
    &SIZES,
);
static LISTS: Histograms<4> = Histograms::with_buckets(
    "apiserver_watch_list_duration_seconds",
    Stability::Beta,
    "Seconds until a watch had sent every object that was there when it began.",
    ["group", "resource", "scope", "version"],
    &DURATIONS,
);

pub(super) static ALL: &[&dyn Collect] = &[&EVENTS, &EVENT_SIZES, &LISTS];

/// The events of the watches of one kind.
pub struct Events {
    sent: Arc<Counter>,
    sizes: Arc<Histogram>,
}

impl Events {
    pub fn of(kind: &Kind) -> Self {
        let labels = [&*kind.group, &*kind.resource, &*kind.version];
        Events {
            sent: EVENTS.with(labels),
            sizes: EVENT_SIZES.with(labels),
        }
    }

    pub fn sent(&self, bytes: usize) {
        self.sent.inc();
        self.sizes.observe(bytes as f64);
    }
}

/// A watch has sent all the objects that its client wanted first.
pub fn listed(kind: &Kind, scope: &'static str, since: Instant) {
    let labels = [&*kind.group, &*kind.resource, scope, &*kind.version];
    let seconds = since.elapsed().as_secs_f64();
    LISTS.with(labels).observe(seconds);
}
