//! What is counted of every request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use coracle_metrics::{Collect, Counters, Gauges, Histogram, Histograms, Stability};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use crate::{registry::Registry, request_info::RequestInfo};

/// Upstream's buckets of request durations, in seconds.
const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// The same without the time that a request waited for its turn.
const SLI_DURATIONS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0,
    30.0, 45.0, 60.0,
];

/// Upstream's buckets of the sizes of answers, in bytes.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// And of the bodies of requests.
const BODIES: [f64; 31] = coracle_metrics::linear(50_000.0, 100_000.0);

static REQUESTS: Counters<9> = Counters::new(
    "apiserver_request_total",
    Stability::Stable,
    "Requests answered, by what was asked of which resource and the HTTP status code.",
    insert(0, "code", insert::<7, 8>(1, "dry_run", Labels::NAMES)),
);
static DURATION: Histograms<8> = Histograms::with_buckets(
    "apiserver_request_duration_seconds",
    Stability::Stable,
    "Seconds from a request to its answer, by what was asked of which resource; watches and other long-running requests are left out.",
    insert(1, "dry_run", Labels::NAMES),
    &DURATIONS,
);
static SLI_DURATION: Histograms<7> = Histograms::with_buckets(
    "apiserver_request_sli_duration_seconds",
    Stability::Alpha,
    "Seconds from a request to its answer, without the wait for its turn.",
    Labels::NAMES,
    &SLI_DURATIONS,
);
static RESPONSE_SIZES: Histograms<7> = Histograms::with_buckets(
    "apiserver_response_sizes",
    Stability::Stable,
    "Bytes in answers to reads, by resource.",
    Labels::NAMES,
    &SIZES,
);
static BODY_SIZES: Histograms<3> = Histograms::with_buckets(
    "apiserver_request_body_size_bytes",
    Stability::Alpha,
    "Bytes in request bodies, by resource and verb.",
    ["group", "resource", "verb"],
    &BODIES,
);
static TERMINATIONS: Counters<8> = Counters::new(
    "apiserver_request_terminations_total",
    Stability::Alpha,
    "Requests turned away or cut short to protect the server.",
    insert(0, "code", Labels::NAMES),
);
static DEPRECATED: Gauges<5> = Gauges::new(
    "apiserver_requested_deprecated_apis",
    Stability::Stable,
    "1 for each deprecated resource that was asked for, with the release that drops it.",
    [
        "group",
        "removed_release",
        "resource",
        "subresource",
        "version",
    ],
);

pub(super) static ALL: &[&dyn Collect] = &[
    &REQUESTS,
    &DURATION,
    &SLI_DURATION,
    &RESPONSE_SIZES,
    &BODY_SIZES,
    &TERMINATIONS,
    &DEPRECATED,
];

/// The labels that most families of requests have.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a> {
    component: &'static str,
    group: &'a str,
    resource: &'a str,
    scope: &'static str,
    subresource: &'a str,
    verb: &'static str,
    version: &'a str,
}

impl<'a> Labels<'a> {
    pub const NAMES: [&'static str; 7] = [
        "component",
        "group",
        "resource",
        "scope",
        "subresource",
        "verb",
        "version",
    ];

    /// Only of what there is, or labels could be made without end.
    pub fn of(registry: &Registry, info: &'a RequestInfo) -> Self {
        let (resource, name) = (info.is_resource, info.name.as_str());
        if !resource {
            return Labels {
                component: "",
                group: "",
                resource: "",
                scope: "",
                subresource: known_root(&info.path),
                verb: verb(info),
                version: "",
            };
        }
        let scope = if !name.is_empty() || info.verb == "create" {
            "resource"
        } else if info.namespace.is_empty() {
            "cluster"
        } else {
            "namespace"
        };
        let table = registry.table();
        let found = table.find(&info.group, &info.version, &info.resource);
        let known = |text: &'a str| if found.is_some() { text } else { "" };
        let subresource = found.map_or("", |found| {
            let served = found.kind.subresource(&info.subresource);
            served.map_or("", |_| info.subresource.as_str())
        });
        Labels {
            component: "apiserver",
            group: known(&info.group),
            resource: known(&info.resource),
            scope,
            subresource,
            verb: verb(info),
            version: known(&info.version),
        }
    }

    pub fn array(self) -> [&'a str; 7] {
        [
            self.component,
            self.group,
            self.resource,
            self.scope,
            self.subresource,
            self.verb,
            self.version,
        ]
    }
}

/// The labels with one more at this place.
const fn insert<'a, const N: usize, const M: usize>(
    at: usize,
    one: &'a str,
    labels: [&'a str; N],
) -> [&'a str; M] {
    const { assert!(M == N + 1) };
    let mut more = [one; M];
    let mut index = 0;
    while index < N {
        more[if index < at { index } else { index + 1 }] = labels[index];
        index += 1;
    }
    more
}

fn known_root(path: &str) -> &'static str {
    const KNOWN: [&str; 8] = [
        "/api", "/apis", "/healthz", "/livez", "/readyz", "/metrics", "/openapi", "/version",
    ];
    let root = path.find('/').map_or("", |first| {
        let rest = &path[first + 1..];
        let end = rest.find('/').map_or(path.len(), |end| first + 1 + end);
        &path[first..end]
    });
    KNOWN
        .into_iter()
        .find(|known| *known == root)
        .unwrap_or("/")
}

fn verb(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        // Connections are told apart from reads of the same method.
        _ if info.is_resource
            && matches!(
                info.subresource.as_str(),
                "attach" | "exec" | "portforward" | "proxy"
            ) =>
        {
            "CONNECT"
        }
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "proxy" => "CONNECT",
        "head" => "HEAD",
        _ => "other",
    }
}

/// Notes the size of the answer to a read, now or when it was sent.
pub fn measure(
    registry: &Registry,
    info: &RequestInfo,
    response: Response<Body>,
) -> Response<Body> {
    let labels = Labels::of(registry, info);
    if info.long_running() || !matches!(labels.verb, "GET" | "LIST") {
        return response;
    }
    let sizes = RESPONSE_SIZES.with(labels.array());
    match response.body().size_hint().exact() {
        Some(bytes) => {
            sizes.observe(bytes as f64);
            response
        }
        None => response.map(|body| Body::new(Measured::new(body, sizes))),
    }
}

/// A request that was answered.
pub struct Answered {
    pub dry_run: bool,
    pub code: StatusCode,
    pub since: Instant,
    /// How long its turn did not come.
    pub waited: Duration,
}

/// Counts a request that was answered.
pub fn answered(registry: &Registry, info: &RequestInfo, answered: &Answered) {
    let labels = Labels::of(registry, info);
    let dry_run = if answered.dry_run { "All" } else { "" };
    let with_dry_run = insert::<7, 8>(1, dry_run, labels.array());
    if !info.long_running() {
        let taken = answered.since.elapsed();
        DURATION.with(with_dry_run).observe(taken.as_secs_f64());
        let seconds = taken.saturating_sub(answered.waited).as_secs_f64();
        SLI_DURATION.with(labels.array()).observe(seconds);
    }
    let all = insert(0, answered.code.as_str(), with_dry_run);
    REQUESTS.with(all).inc();
}

/// Counts a request that was turned away or cut short.
pub fn terminated(registry: &Registry, info: &RequestInfo, code: StatusCode) {
    let labels = Labels::of(registry, info);
    let labels = insert(0, code.as_str(), labels.array());
    TERMINATIONS.with(labels).inc();
}

/// Notes that a resource is used which upstream advises against.
pub fn deprecated(info: &RequestInfo, subresource: &str) {
    let labels = [&info.group, "", &info.resource, subresource, &info.version];
    DEPRECATED.with(labels).set(1.0);
}

/// Notes the size of the body of a write.
pub fn sent(info: &RequestInfo, bytes: usize) {
    // Whoever reads a body has found its resource.
    let labels = [&*info.group, &*info.resource, &*info.verb];
    BODY_SIZES.with(labels).observe(bytes as f64);
}

/// A body whose size is noted when it was sent, or its client went away.
struct Measured {
    body: Body,
    sent: usize,
    sizes: Arc<Histogram>,
}

impl Measured {
    fn new(body: Body, sizes: Arc<Histogram>) -> Self {
        Measured {
            body,
            sent: 0,
            sizes,
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.sizes.observe(self.sent as f64);
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.sent += data.len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_paths_become_labels() {
        for (path, label) in [
            ("/readyz/ping", "/readyz"),
            ("/version", "/version"),
            ("/made/up", "/"),
            ("/", "/"),
            ("", "/"),
        ] {
            assert_eq!(known_root(path), label, "{path}");
        }
    }
}
