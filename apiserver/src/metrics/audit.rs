//! What is counted of the audit log.

use coracle_metrics::{Collect, Counters, Stability};

static EVENTS: Counters = Counters::new(
    "apiserver_audit_event_total",
    Stability::Alpha,
    "Audit events made and given to the backends.",
    [],
);
static ERRORS: Counters<1> = Counters::new(
    "apiserver_audit_error_total",
    Stability::Alpha,
    "Audit events lost, by the backend (log or webhook) that did not take them.",
    ["plugin"],
);
static LEVELS: Counters<1> = Counters::new(
    "apiserver_audit_level_total",
    Stability::Alpha,
    "Requests by the audit level that the policy has for them.",
    ["level"],
);
static REJECTED: Counters = Counters::new(
    "apiserver_audit_requests_rejected_total",
    Stability::Alpha,
    "Requests refused because the audit log could not be written.",
    [],
);

pub(super) static ALL: &[&dyn Collect] = &[&EVENTS, &ERRORS, &LEVELS, &REJECTED];

/// An event was made.
pub fn event() {
    EVENTS.with([]).inc();
}

/// The policy says so much of a request.
pub fn level(level: &'static str) {
    LEVELS.with([level]).inc();
}

/// So many events were not taken by a plugin, which is `log` or `webhook`.
pub fn dropped(plugin: &'static str, events: usize) {
    ERRORS.with([plugin]).add(events as u64);
}
