//! What is counted of the audit log.

use coracle_metrics::{Collect, Counters, Stability};

static EVENTS: Counters = Counters::new(
    "apiserver_audit_event_total",
    Stability::Alpha,
    "Counter of audit events generated and sent to the audit backend.",
    [],
);
static ERRORS: Counters<1> = Counters::new(
    "apiserver_audit_error_total",
    Stability::Alpha,
    "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
    ["plugin"],
);
static LEVELS: Counters<1> = Counters::new(
    "apiserver_audit_level_total",
    Stability::Alpha,
    "Counter of policy levels for audit events (1 per request).",
    ["level"],
);
static REJECTED: Counters = Counters::new(
    "apiserver_audit_requests_rejected_total",
    Stability::Alpha,
    "Counter of apiserver requests rejected due to an error in audit logging backend.",
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
