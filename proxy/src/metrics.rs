//! What the proxy counts, under the names of upstream's kube-proxy.
//!
//! Both families of addresses are in one table and written together: they are counted as those of
//! IPv4, which every cluster has.

use std::time::Duration;

use coracle_metrics::{Collect, Counters, Gauges, Histograms, Stability, exponential};

const FAMILY: &str = "IPv4";
const DURATIONS: [f64; 15] = exponential(0.001, 2.0);
/// Fine up to a minute, then coarser, as upstream's.
const PROGRAMMING: [f64; 80] = programming();

const fn programming() -> [f64; 80] {
    let mut bounds = [0.0; 80];
    (bounds[0], bounds[1]) = (0.25, 0.5);
    let mut index = 2;
    while index < 80 {
        bounds[index] = match index {
            2..=61 => (index - 1) as f64,
            62..=73 => bounds[index - 1] + 5.0,
            _ => bounds[index - 1] + 30.0,
        };
        index += 1;
    }
    bounds
}

static SYNC: Histograms<1> = Histograms::with_buckets(
    "kubeproxy_sync_proxy_rules_duration_seconds",
    Stability::Alpha,
    "Seconds to bring the kernel's table up to date.",
    ["ip_family"],
    &DURATIONS,
);
static FULL_SYNC: Histograms<1> = Histograms::with_buckets(
    "kubeproxy_sync_full_proxy_rules_duration_seconds",
    Stability::Alpha,
    "Seconds to write the kernel's table anew.",
    ["ip_family"],
    &DURATIONS,
);
static PARTIAL_SYNC: Histograms<1> = Histograms::with_buckets(
    "kubeproxy_sync_partial_proxy_rules_duration_seconds",
    Stability::Alpha,
    "Seconds to write the changed part of the kernel's table.",
    ["ip_family"],
    &DURATIONS,
);
static NETWORK: Histograms<1> = Histograms::with_buckets(
    "kubeproxy_network_programming_duration_seconds",
    Stability::Alpha,
    "Seconds from a change of endpoints until packets go by it.",
    ["ip_family"],
    &PROGRAMMING,
);
static CONNTRACK: Histograms<1> = Histograms::with_buckets(
    "kubeproxy_conntrack_reconciler_sync_duration_seconds",
    Stability::Alpha,
    "Seconds to make the kernel forget flows to endpoints that went.",
    ["ip_family"],
    &DURATIONS,
);
static FORGOTTEN: Counters<1> = Counters::new(
    "kubeproxy_conntrack_reconciler_deleted_entries_total",
    Stability::Alpha,
    "Flows that the kernel was made to forget.",
    ["ip_family"],
);
static LAST_SYNC: Gauges<1> = Gauges::new(
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    Stability::Alpha,
    "When the kernel's table was last brought up to date, in seconds since 1970.",
    ["ip_family"],
);
static LAST_QUEUED: Gauges<1> = Gauges::new(
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    Stability::Alpha,
    "When it was last noted that the kernel's table is out of date, in seconds since 1970.",
    ["ip_family"],
);
static ENDPOINTS: Counters = Counters::new(
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    Stability::Alpha,
    "Changes of endpoints seen.",
    [],
);
static ENDPOINTS_PENDING: Gauges = Gauges::new(
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    Stability::Alpha,
    "Changes of endpoints that are not in the kernel's table yet.",
    [],
);
static SERVICES: Counters = Counters::new(
    "kubeproxy_sync_proxy_rules_service_changes_total",
    Stability::Alpha,
    "Changes of Services seen.",
    [],
);
static SERVICES_PENDING: Gauges = Gauges::new(
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    Stability::Alpha,
    "Changes of Services that are not in the kernel's table yet.",
    [],
);
static FAILURES: Counters<1> = Counters::new(
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
    Stability::Alpha,
    "Writes to the kernel's table that it refused.",
    ["ip_family"],
);
static CLEANUP_FAILURES: Counters<1> = Counters::new(
    "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
    Stability::Alpha,
    "Removals of what is left of old Services that the kernel refused.",
    ["ip_family"],
);
static WITHOUT_LOCAL: Gauges<2> = Gauges::new(
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    Stability::Alpha,
    "Services whose traffic must stay on this node, where they have no endpoint, by traffic policy (internal or external).",
    ["ip_family", "traffic_policy"],
);

/// Every family of this crate.
pub fn metrics() -> &'static [&'static dyn Collect] {
    // Alerts are made on these before there is one.
    FAILURES.with([FAMILY]);
    CLEANUP_FAILURES.with([FAMILY]);
    FORGOTTEN.with([FAMILY]);
    FAMILIES
}

static FAMILIES: &[&dyn Collect] = &[
    &SYNC,
    &FULL_SYNC,
    &PARTIAL_SYNC,
    &NETWORK,
    &CONNTRACK,
    &FORGOTTEN,
    &LAST_SYNC,
    &LAST_QUEUED,
    &ENDPOINTS,
    &ENDPOINTS_PENDING,
    &SERVICES,
    &SERVICES_PENDING,
    &FAILURES,
    &CLEANUP_FAILURES,
    &WITHOUT_LOCAL,
];

/// A Service changed.
pub(crate) fn service_changed() {
    SERVICES.with([]).inc();
    SERVICES_PENDING.with([]).inc();
}

/// The endpoints of a Service changed.
pub(crate) fn endpoints_changed() {
    ENDPOINTS.with([]).inc();
    ENDPOINTS_PENDING.with([]).inc();
}

/// `now`: seconds since the epoch.
pub(crate) fn queued(now: f64) {
    LAST_QUEUED.with([FAMILY]).set(now);
}

/// The kernel is up to date at `now`, in seconds since the epoch, and it took so long.
pub(crate) fn synced(now: f64, took: Duration) {
    SYNC.with([FAMILY]).observe(took.as_secs_f64());
    LAST_SYNC.with([FAMILY]).set(now);
    for pending in [&SERVICES_PENDING, &ENDPOINTS_PENDING] {
        pending.with([]).set(0.0);
    }
}

/// All rules were written.
pub(crate) fn wrote_all(took: Duration) {
    FULL_SYNC.with([FAMILY]).observe(took.as_secs_f64());
}

/// Some rules were written.
pub(crate) fn wrote_some(took: Duration) {
    PARTIAL_SYNC.with([FAMILY]).observe(took.as_secs_f64());
}

/// So many seconds after endpoints changed, packets go by it.
pub(crate) fn programmed(seconds: f64) {
    NETWORK.with([FAMILY]).observe(seconds);
}

/// The kernel refused rules.
pub(crate) fn refused() {
    FAILURES.with([FAMILY]).inc();
}

/// The kernel refused to take away what is left of Services that are gone.
pub(crate) fn not_swept() {
    CLEANUP_FAILURES.with([FAMILY]).inc();
}

/// So many Services have endpoints, but none on this node, that `internal` or `external` traffic
/// could go to.
pub(crate) fn without_local(policy: &'static str, count: u32) {
    WITHOUT_LOCAL.with([FAMILY, policy]).set(f64::from(count));
}

/// The kernel was made to forget so many flows.
pub(crate) fn forgot(flows: u64, took: Duration) {
    FORGOTTEN.with([FAMILY]).add(flows);
    CONNTRACK.with([FAMILY]).observe(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_upstreams() {
        assert_eq!(PROGRAMMING[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(PROGRAMMING[60..64], [59.0, 60.0, 65.0, 70.0]);
        assert_eq!(
            PROGRAMMING[73..],
            [120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0]
        );
    }
}
