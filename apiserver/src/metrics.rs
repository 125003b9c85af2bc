//! `/metrics`: what the server counts, under upstream's names.

mod access;
mod traffic;

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::{Duration, Instant},
};

use axum::body::Body;
use http::{Response, StatusCode, header};
use http_body::Body as _;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{request_info::RequestInfo, server::ApiServer};
pub use access::{Access, Authenticated};
pub use traffic::Events;
use traffic::{Measured, Watches};

/// Upstream's buckets of request durations, in seconds.
const DURATIONS: [f64; 25] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0,
];

/// The same without the time that a request waited for its turn.
const SLI_DURATIONS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0,
    30.0, 45.0, 60.0,
];

/// Upstream's buckets of the sizes of answers, in bytes.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Counters that upstream named before there was a custom of ending them in `_total`.
const UNTOTALLED: [&str; 2] = ["authenticated_user_requests", "authentication_attempts"];

/// Like [`RequestLabels`], where no difference is made for dry runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlainLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

impl From<RequestLabels> for PlainLabels {
    fn from(labels: RequestLabels) -> Self {
        PlainLabels {
            verb: labels.verb,
            group: labels.group,
            version: labels.version,
            resource: labels.resource,
            subresource: labels.subresource,
            scope: labels.scope,
            component: labels.component,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    major: &'static str,
    minor: &'static str,
    git_version: &'static str,
}

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<CodeLabels, Counter<u64, AtomicU64>>,
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    sli_durations: Family<PlainLabels, Histogram, fn() -> Histogram>,
    sizes: Family<PlainLabels, Histogram, fn() -> Histogram>,
    access: Access,
    watches: Watches,
    inflight: Family<KindLabels, Gauge<i64, AtomicI64>>,
    longrunning: Family<RequestLabels, Gauge<i64, AtomicI64>>,
    terminated: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(DURATIONS);
        let mut registry = Registry::default();
        let mut metrics = Metrics {
            access: Access::register(&mut registry),
            watches: Watches::register(&mut registry),
            registry,
            sli_durations: Family::new_with_constructor(|| Histogram::new(SLI_DURATIONS)),
            sizes: Family::new_with_constructor(|| Histogram::new(SIZES)),
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            inflight: Family::default(),
            longrunning: Family::default(),
            terminated: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "apiserver_request",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code",
            metrics.requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component",
            metrics.durations.clone(),
        );
        registry.register(
            "apiserver_request_sli_duration_seconds",
            "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component",
            metrics.sli_durations.clone(),
        );
        registry.register(
            "apiserver_response_sizes",
            "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component",
            metrics.sizes.clone(),
        );
        for request_kind in ["mutating", "readOnly"] {
            let labels = KindLabels { request_kind };
            drop(metrics.inflight.get_or_create(&labels));
        }
        registry.register(
            "apiserver_current_inflight_requests",
            "Maximal number of currently used inflight request limit of this apiserver per request kind in last second",
            metrics.inflight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component",
            metrics.longrunning.clone(),
        );
        registry.register(
            "apiserver_request_terminations",
            "Number of requests which apiserver terminated in self-defense",
            metrics.terminated.clone(),
        );
        let build = Family::<BuildLabels, Gauge<i64, AtomicI64>>::default();
        let labels = BuildLabels {
            major: "1",
            minor: "36",
            git_version: coracle_api::VERSION,
        };
        build.get_or_create(&labels).set(1);
        registry.register(
            "kubernetes_build_info",
            "A metric with a constant '1' value labeled by the version from which Kubernetes was built",
            build,
        );
        metrics
    }
}

impl Metrics {
    /// Who is let in.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The counters of the events that watchers of the kind are sent.
    pub fn events(&self, kind: &coracle_api::Kind) -> Events {
        self.watches.of(kind)
    }

    /// Notes the size of the answer to a read, now or when it was sent.
    pub fn measure(&self, info: &RequestInfo, response: Response<Body>) -> Response<Body> {
        let labels = labels(info, false);
        if info.long_running() || !matches!(labels.verb, "GET" | "LIST") {
            return response;
        }
        let sizes = self.sizes.get_or_create(&labels.into()).clone();
        match response.body().size_hint().exact() {
            Some(bytes) => {
                sizes.observe(bytes as f64);
                response
            }
            None => response.map(|body| Body::new(Measured::new(body, sizes))),
        }
    }

    /// Counts a request that was answered. `waited` is how long its turn did not come.
    pub fn answered(
        &self,
        info: &RequestInfo,
        dry_run: bool,
        code: StatusCode,
        since: Instant,
        waited: Duration,
    ) {
        let labels = labels(info, dry_run);
        if !info.long_running() {
            let taken = since.elapsed();
            let seconds = taken.as_secs_f64();
            self.durations.get_or_create(&labels).observe(seconds);
            let seconds = taken.saturating_sub(waited).as_secs_f64();
            let labels = labels.clone().into();
            self.sli_durations.get_or_create(&labels).observe(seconds);
        }
        let labels = CodeLabels {
            verb: labels.verb,
            dry_run: labels.dry_run,
            group: labels.group,
            version: labels.version,
            resource: labels.resource,
            subresource: labels.subresource,
            scope: labels.scope,
            component: labels.component,
            code: code.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a request that was turned away or cut short.
    pub fn terminated(&self) {
        self.terminated.inc();
    }

    /// Counts a request as under way until the guard is dropped.
    pub fn begin(&self, info: &RequestInfo) -> InFlight {
        let gauge = if info.long_running() {
            let labels = labels(info, false);
            self.longrunning.get_or_create(&labels).clone()
        } else {
            let labels = KindLabels {
                request_kind: if info.read_only() {
                    "readOnly"
                } else {
                    "mutating"
                },
            };
            self.inflight.get_or_create(&labels).clone()
        };
        gauge.inc();
        InFlight(gauge)
    }

    /// Answers `/metrics`.
    pub fn render(&self, server: &ApiServer) -> Response<Body> {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        if let Some(flow) = server.flow() {
            text.push_str(&flow.render_metrics());
        }
        let mut text = classic(&text);
        text.push_str(&of_storage(server));
        text.push_str(&of_device(server));
        if let Some(auditor) = server.audit() {
            text.push_str(&auditor.metrics());
        }
        text.push_str(&of_process());
        Response::builder()
            .header(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )
            .body(Body::from(text))
            .unwrap_or_default()
    }
}

/// A request under way.
pub struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn labels(info: &RequestInfo, dry_run: bool) -> RequestLabels {
    let scope = match (
        info.is_resource,
        info.name.as_str(),
        info.namespace.as_str(),
    ) {
        (false, ..) => "",
        (true, name, _) if !name.is_empty() || info.verb == "create" => "resource",
        (true, _, namespace) if !namespace.is_empty() => "namespace",
        _ => "cluster",
    };
    RequestLabels {
        verb: verb(info),
        dry_run: if dry_run { "All" } else { "" },
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: if info.is_resource {
            info.subresource.clone()
        } else {
            // Only paths that there are, or labels could be made without end.
            info.path
                .split('/')
                .nth(1)
                .map_or_else(String::new, known_root)
        },
        scope,
        component: if info.is_resource { "apiserver" } else { "" },
    }
}

fn known_root(root: &str) -> String {
    let known = [
        "api", "apis", "healthz", "livez", "readyz", "metrics", "openapi", "version",
    ];
    let root = if known.contains(&root) { root } else { "" };
    format!("/{root}")
}

fn verb(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "proxy" => "CONNECT",
        "post" => "POST",
        "head" => "HEAD",
        _ => "other",
    }
}

/// OpenMetrics text as Prometheus' older format, which upstream serves: a counter's type names
/// its samples, and there is no end mark.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in text.lines() {
        if line == "# EOF" {
            continue;
        }
        let comment = line
            .strip_prefix("# HELP ")
            .map(|rest| ("# HELP ", rest))
            .or_else(|| line.strip_prefix("# TYPE ").map(|rest| ("# TYPE ", rest)));
        match comment.and_then(|(what, rest)| Some((what, rest.split_once(' ')?))) {
            Some((what, (name, rest)))
                if counters.contains(&name) && !UNTOTALLED.contains(&name) =>
            {
                out.push_str(&format!("{what}{name}_total {rest}\n"));
            }
            _ => {
                let untotalled = UNTOTALLED
                    .iter()
                    .find_map(|name| Some((name, line.strip_prefix(*name)?)))
                    .and_then(|(name, rest)| Some((name, rest.strip_prefix("_total")?)));
                match untotalled {
                    Some((name, rest)) => {
                        out.push_str(name);
                        out.push_str(rest);
                    }
                    None => out.push_str(line),
                }
                out.push('\n');
            }
        }
    }
    out
}

/// How many objects there are of each resource, and who watches them.
fn of_storage(server: &ApiServer) -> String {
    let mut objects = String::from(
        "# HELP apiserver_resource_objects Number of stored objects at the time of last check split by kind.\n# TYPE apiserver_resource_objects gauge\n",
    );
    let mut stored = String::from(
        "# HELP apiserver_storage_objects [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind.\n# TYPE apiserver_storage_objects gauge\n",
    );
    let mut watchers = String::from(
        "# HELP apiserver_registered_watchers Number of currently registered watchers for a given resources\n# TYPE apiserver_registered_watchers gauge\n",
    );
    let table = server.registry().table();
    for kind in table.kinds() {
        let Some(resource) = table.find(&kind.group, &kind.version, &kind.resource) else {
            continue;
        };
        let Some(cache) = resource
            .cache
            .as_ref()
            .filter(|_| resource.conversion.is_none())
        else {
            continue;
        };
        let count = cache.objects().len();
        objects.push_str(&format!(
            "apiserver_resource_objects{{group=\"{}\",resource=\"{}\"}} {count}\n",
            kind.group, kind.resource,
        ));
        let dot = if kind.group.is_empty() { "" } else { "." };
        stored.push_str(&format!(
            "apiserver_storage_objects{{resource=\"{}{dot}{}\"}} {count}\n",
            kind.resource, kind.group,
        ));
        watchers.push_str(&format!(
            "apiserver_registered_watchers{{group=\"{}\",kind=\"{}\",version=\"{}\"}} {}\n",
            kind.group,
            kind.kind,
            kind.version,
            cache.watchers()
        ));
    }
    objects + &stored + &watchers
}

/// What was written to the device, which is what wears it out.
fn of_device(server: &ApiServer) -> String {
    let mut bytes = String::from(
        "# HELP coracle_store_written_bytes_total Bytes of keys and values written to the device, by the first two segments of the key.\n# TYPE coracle_store_written_bytes_total counter\n",
    );
    let mut writes = String::from(
        "# HELP coracle_store_writes_total Keys put or deleted on the device, by the first two segments of the key.\n# TYPE coracle_store_writes_total counter\n",
    );
    for written in server.registry().store().written() {
        let prefix = written.prefix.escape_default();
        bytes.push_str(&format!(
            "coracle_store_written_bytes_total{{prefix=\"{prefix}\"}} {}\n",
            written.bytes
        ));
        writes.push_str(&format!(
            "coracle_store_writes_total{{prefix=\"{prefix}\"}} {}\n",
            written.writes
        ));
    }
    bytes + &writes
}

/// Memory and processor time of the process, from `/proc`.
fn of_process() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // What follows the command, which may hold blanks: state is the first of them.
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map(|(_, fields)| fields.split(' ').collect())
        .unwrap_or_default();
    let number = |index: usize| {
        let field = fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok());
        field.unwrap_or(0)
    };
    // Linux counts processor time in hundredths of a second, and pages are of 4 KiB.
    let ticks = Duration::from_millis(10 * (number(11) + number(12)));
    let resident = number(21) * 4096;
    // Started so many ticks after the machine.
    let booted = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = booted
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse::<u64>().ok());
    let started = Duration::from_secs(booted.unwrap_or(0)) + Duration::from_millis(10 * number(19));
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let openable = limits.lines().find_map(|line| {
        let line = line.strip_prefix("Max open files")?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let openable = openable.unwrap_or(0);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    format!(
        "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n\
         # TYPE process_cpu_seconds_total counter\n\
         process_cpu_seconds_total {}\n\
         # HELP process_resident_memory_bytes Resident memory size in bytes.\n\
         # TYPE process_resident_memory_bytes gauge\n\
         process_resident_memory_bytes {resident}\n\
         # HELP process_virtual_memory_bytes Virtual memory size in bytes.\n\
         # TYPE process_virtual_memory_bytes gauge\n\
         process_virtual_memory_bytes {}\n\
         # HELP process_open_fds Number of open file descriptors.\n\
         # TYPE process_open_fds gauge\n\
         process_open_fds {open}\n\
         # HELP process_max_fds Maximum number of open file descriptors.\n\
         # TYPE process_max_fds gauge\n\
         process_max_fds {openable}\n\
         # HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n\
         # TYPE process_start_time_seconds gauge\n\
         process_start_time_seconds {}\n",
        ticks.as_secs_f64(),
        number(20),
        started.as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_as_their_samples() {
        let metrics = Metrics::default();
        let info = RequestInfo {
            is_resource: true,
            verb: "get".to_owned(),
            ..RequestInfo::default()
        };
        let (now, waited) = (Instant::now(), Duration::ZERO);
        metrics.answered(&info, false, StatusCode::OK, now, waited);
        let user = Authenticated::As("jane@example.com");
        metrics.access().authenticated(user, now);
        let mut text = String::new();
        encode(&mut text, &metrics.registry).unwrap();
        let text = classic(&text);
        assert!(
            text.contains("# TYPE apiserver_request_total counter\n"),
            "{text}"
        );
        assert!(text.contains("\napiserver_request_total{verb=\"GET\""));
        assert!(text.contains("# TYPE authentication_attempts counter\n"));
        assert!(text.contains("\nauthentication_attempts{result=\"success\"} 1\n"));
        assert!(text.contains("\nauthenticated_user_requests{username=\"email_id\"} 1\n"));
        assert!(!text.contains("# EOF"));
    }
}
