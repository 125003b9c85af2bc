//! What the proxy counts, under the names of upstream's kube-proxy.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::sync::atomic::AtomicU64;

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrafficPolicy {
    pub traffic_policy: &'static str,
}

/// The numbers. Cheap to clone; all clones are the same numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) sync: Histogram,
    pub(crate) full_sync: Histogram,
    pub(crate) partial_sync: Histogram,
    pub(crate) programming: Histogram,
    pub(crate) last_sync: Seconds,
    pub(crate) last_queued: Seconds,
    pub(crate) endpoint_changes: Counter,
    pub(crate) service_changes: Counter,
    pub(crate) failures: Counter,
    pub(crate) without_local: Family<TrafficPolicy, Gauge>,
    pub(crate) conntrack: Histogram,
    pub(crate) forgotten: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let durations = || Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power)));
        // Fine up to a second, coarse up to minutes, as upstream's.
        let programming = (0..4)
            .map(|quarter| 0.25 + 0.25 * f64::from(quarter))
            .chain((2..60).map(f64::from))
            .chain((1..=5).map(|minute| 60.0 * f64::from(minute)));
        Metrics {
            sync: durations(),
            full_sync: durations(),
            partial_sync: durations(),
            programming: Histogram::new(programming),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            endpoint_changes: Counter::default(),
            service_changes: Counter::default(),
            failures: Counter::default(),
            without_local: Family::default(),
            conntrack: durations(),
            forgotten: Counter::default(),
        }
    }
}

impl Metrics {
    /// Shows the numbers in the registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        let mut histogram = |name: &str, help: &str, of: &Histogram| {
            registry.register(name, help, of.clone());
        };
        histogram(
            "sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
            &self.sync,
        );
        histogram(
            "sync_full_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for full resyncs",
            &self.full_sync,
        );
        histogram(
            "sync_partial_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for partial resyncs",
            &self.partial_sync,
        );
        histogram(
            "network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            &self.programming,
        );
        histogram(
            "conntrack_reconciler_sync_duration_seconds",
            "ReconcileConntrackFlowsLatency latency in seconds",
            &self.conntrack,
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            self.last_sync.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            self.last_queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            self.without_local.clone(),
        );
        let mut counter = |name: &str, help: &str, of: &Counter| {
            registry.register(name, help, of.clone());
        };
        counter(
            "sync_proxy_rules_endpoint_changes",
            "Cumulative proxy rules Endpoint changes",
            &self.endpoint_changes,
        );
        counter(
            "sync_proxy_rules_service_changes",
            "Cumulative proxy rules Service changes",
            &self.service_changes,
        );
        counter(
            "sync_proxy_rules_nftables_sync_failures",
            "Cumulative proxy nftables sync failures",
            &self.failures,
        );
        counter(
            "conntrack_reconciler_deleted_entries",
            "Cumulative conntrack flows deleted by conntrack reconciler",
            &self.forgotten,
        );
    }
}
