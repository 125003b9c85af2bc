//! `/metrics/slis`: how the server's own checks fare.

use coracle_metrics::{Collect, Counters, Gauges, Stability};

static CHECK: Gauges<2> = Gauges::new(
    "kubernetes_healthcheck",
    Stability::Stable,
    "How a health check last went: 1 passed, 0 failed.",
    ["name", "type"],
);
static CHECKS: Counters<3> = Counters::new(
    "kubernetes_healthchecks_total",
    Stability::Stable,
    "Health checks made, by how they went (success or error).",
    ["name", "status", "type"],
);

pub(super) static ALL: &[&dyn Collect] = &[&CHECK, &CHECKS];

/// A check was made for `/livez`, `/readyz` or `/healthz`, which are the types.
pub fn checked(name: &str, of: &str, ok: bool) {
    CHECK.with([name, of]).set(if ok { 1.0 } else { 0.0 });
    let status = if ok { "success" } else { "error" };
    CHECKS.with([name, status, of]).inc();
}
