//! What is counted of the store and of the caches before it.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use coracle_metrics::{
    Collect, Counter, Counters, Description, Histograms, Kind, Page, Samples, Stability,
    exponential,
};

use crate::{cache::Cache, server::ApiServer};

/// Upstream's, in seconds.
const REQUESTS: [f64; 22] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0,
];
const WAITS: [f64; 9] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0];
const TRANSFORMATIONS: [f64; 25] = exponential(5e-6, 2.0);

static REQUEST: Histograms<3> = Histograms::with_buckets(
    "etcd_request_duration_seconds",
    Stability::Alpha,
    "Seconds that the store took to answer, by operation and resource.",
    ["group", "operation", "resource"],
    &REQUESTS,
);
static REQUESTED: Counters<3> = Counters::new(
    "etcd_requests_total",
    Stability::Alpha,
    "Questions to the store, by operation and resource.",
    ["group", "operation", "resource"],
);
static FAILED: Counters<3> = Counters::new(
    "etcd_request_errors_total",
    Stability::Alpha,
    "Questions to the store that failed, by operation and resource.",
    ["group", "operation", "resource"],
);
static EVENTS: Counters<2> = Counters::new(
    "apiserver_storage_events_received_total",
    Stability::Beta,
    "Changes that the store told of, by resource.",
    ["group", "resource"],
);
static CACHED_EVENTS: Counters<2> = Counters::new(
    "apiserver_watch_cache_events_received_total",
    Stability::Alpha,
    "Changes that the cache of a resource took in.",
    ["group", "resource"],
);
static DISPATCHED: Counters<2> = Counters::new(
    "apiserver_watch_cache_events_dispatched_total",
    Stability::Alpha,
    "Changes that the cache of a resource passed on, counted once for each watch.",
    ["group", "resource"],
);
static INITIALIZATIONS: Counters<2> = Counters::new(
    "apiserver_watch_cache_initializations_total",
    Stability::Alpha,
    "Times that the cache of a resource was filled from the store.",
    ["group", "resource"],
);
static FRESH: Histograms<2> = Histograms::with_buckets(
    "apiserver_watch_cache_read_wait_seconds",
    Stability::Alpha,
    "Seconds that a read waited until the cache was new enough.",
    ["group", "resource"],
    &WAITS,
);
static LISTS: Counters<3> = Counters::new(
    "apiserver_cache_list_total",
    Stability::Alpha,
    "Lists answered from the cache.",
    ["group", "index", "resource"],
);
static RETURNED: Counters<2> = Counters::new(
    "apiserver_cache_list_returned_objects_total",
    Stability::Alpha,
    "Objects in lists answered from the cache.",
    ["group", "resource"],
);
static TRANSFORMED: Counters<4> = Counters::new(
    "apiserver_storage_transformation_operations_total",
    Stability::Alpha,
    "Values encrypted (to_storage) or decrypted (from_storage), by resource and provider; the status of those that worked is OK.",
    [
        "resource",
        "status",
        "transformation_type",
        "transformer_prefix",
    ],
);
static TRANSFORMATION: Histograms<2> = Histograms::with_buckets(
    "apiserver_storage_transformation_duration_seconds",
    Stability::Alpha,
    "Seconds to encrypt (to_storage) or decrypt (from_storage) a value.",
    ["transformation_type", "transformer_prefix"],
    &TRANSFORMATIONS,
);

pub(super) static ALL: &[&dyn Collect] = &[
    &REQUEST,
    &REQUESTED,
    &FAILED,
    &EVENTS,
    &CACHED_EVENTS,
    &DISPATCHED,
    &INITIALIZATIONS,
    &FRESH,
    &LISTS,
    &RETURNED,
    &TRANSFORMED,
    &TRANSFORMATION,
];

/// The resource and group that a prefix of keys stands for, as upstream's layout has them:
/// `/registry/pods/…` and `/registry/apps/…` alike are named by the table of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl<'a> Of<'a> {
    pub fn cache(cache: &'a Cache) -> Self {
        let (group, resource) = cache.group_resource();
        Of { group, resource }
    }

    /// The store was asked for something.
    pub fn requested(self, operation: &'static str, since: Instant, failed: bool) {
        let labels = [self.group, operation, self.resource];
        let seconds = since.elapsed().as_secs_f64();
        REQUEST.with(labels).observe(seconds);
        REQUESTED.with(labels).inc();
        if failed {
            FAILED.with(labels).inc();
        }
    }

    pub fn initialized(self) {
        INITIALIZATIONS.with(self.labels()).inc();
    }

    /// A read waited so long for the cache.
    pub fn waited(self, wait: Duration) {
        FRESH.with(self.labels()).observe(wait.as_secs_f64());
    }

    /// A list was answered.
    pub fn listed(self, returned: usize) {
        LISTS.with([self.group, "", self.resource]).inc();
        RETURNED.with(self.labels()).add(returned as u64);
    }

    fn labels(&self) -> [&'a str; 2] {
        [self.group, self.resource]
    }
}

/// The changes of one resource. They are many, so the series are kept.
#[derive(Debug, Default)]
pub struct Events(OnceLock<[Arc<Counter>; 3]>);

impl Events {
    /// The store told of so many changes, and so many watchers were woken.
    pub fn count(&self, of: Of<'_>, received: usize, dispatched: usize) {
        let families = [&EVENTS, &CACHED_EVENTS, &DISPATCHED];
        let kept = self
            .0
            .get_or_init(|| families.map(|family| family.with(of.labels())));
        for (counter, count) in kept.iter().zip([received, received, dispatched]) {
            counter.add(count as u64);
        }
    }
}

/// Which way a value went.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    FromStorage,
    ToStorage,
}

/// A value was decrypted or encrypted. `prefix`: what a value begins with that the provider made.
pub fn transformed(resource: &str, way: Way, prefix: &str, ok: bool, since: Instant) {
    let way = match way {
        Way::FromStorage => "from_storage",
        Way::ToStorage => "to_storage",
    };
    let status = if ok { "OK" } else { "Internal" };
    TRANSFORMED.with([resource, status, way, prefix]).inc();
    if ok {
        let seconds = since.elapsed().as_secs_f64();
        TRANSFORMATION.with([way, prefix]).observe(seconds);
    }
}

const OBJECTS: Description = Description {
    name: "apiserver_resource_objects",
    stability: Stability::Alpha,
    help: "Objects in the store, by resource; -1 when they could not be counted.",
};
const STORED: Description = Description {
    name: "apiserver_storage_objects",
    stability: Stability::Stable,
    help: "(Deprecated since 1.34.0) Objects in the store, by resource; -1 when they could not be counted. Use apiserver_resource_objects.",
};
const WATCHERS: Description = Description {
    name: "apiserver_registered_watchers",
    stability: Stability::None,
    help: "Watches of a resource that are open now.",
};
const VERSION: Description = Description {
    name: "apiserver_watch_cache_resource_version",
    stability: Stability::Alpha,
    help: "Resource version that the cache of a resource has reached, in its last 15 digits.",
};
const SIZE: Description = Description {
    name: "apiserver_storage_size_bytes",
    stability: Stability::Stable,
    help: "Bytes that the store takes on disk.",
};
const WRITTEN: Description = Description {
    name: "coracle_store_written_bytes_total",
    stability: Stability::None,
    help: "Bytes of keys and values written to the device, by the first two segments of the key.",
};
const WRITES: Description = Description {
    name: "coracle_store_writes_total",
    stability: Stability::None,
    help: "Keys put or deleted on the device, by the first two segments of the key.",
};
const UNAVAILABLE: Description = Description {
    name: "aggregator_unavailable_apiservice",
    stability: Stability::Alpha,
    help: "1 for an APIService that cannot be reached, 0 for one that can.",
};

/// What is read off at the time of asking: objects, watchers, sizes.
pub(super) async fn show(server: &ApiServer, page: &mut Page) {
    let store = server.registry().store();
    let by_resource = &["group", "resource"];
    each(server, page, &OBJECTS, by_resource, |samples, of, cache| {
        samples.add(&[of.group, of.resource], cache.objects().len() as f64);
    });
    each(
        server,
        page,
        &STORED,
        &["resource"],
        |samples, of, cache| {
            let dot = if of.group.is_empty() { "" } else { "." };
            let name = format!("{}{dot}{}", of.resource, of.group);
            samples.add(&[&name], cache.objects().len() as f64);
        },
    );
    each(
        server,
        page,
        &WATCHERS,
        by_resource,
        |samples, of, cache| {
            samples.add(&[of.group, of.resource], cache.watchers() as f64);
        },
    );
    if let Some(revision) = server.registry().progress() {
        let shown = (revision % 1_000_000_000_000_000) as f64;
        each(server, page, &VERSION, by_resource, |samples, of, _| {
            samples.add(&[of.group, of.resource], shown);
        });
    }
    if let Some(bytes) = store.size().await {
        page.family(&SIZE, Kind::Gauge, &["storage_cluster_id"], |samples| {
            samples.add(&["etcd-0"], bytes as f64);
        });
    }
    let written = store.written();
    page.family(&WRITTEN, Kind::Counter, &["prefix"], |samples| {
        for written in &written {
            samples.add(&[&written.prefix], written.bytes as f64);
        }
    });
    page.family(&WRITES, Kind::Counter, &["prefix"], |samples| {
        for written in &written {
            samples.add(&[&written.prefix], written.writes as f64);
        }
    });
    let documents = server.discovery().of(&server.registry().table());
    page.family(&UNAVAILABLE, Kind::Gauge, &["name"], |samples| {
        for (group, version) in documents.catalogue.group_versions() {
            samples.add(&[&format!("{version}.{group}")], 0.0);
        }
    });
}

fn each(
    server: &ApiServer,
    page: &mut Page,
    description: &Description,
    labels: &[&'static str],
    add: impl Fn(&mut Samples<'_>, Of<'_>, &Cache),
) {
    let table = server.registry().table();
    page.family(description, Kind::Gauge, labels, |samples| {
        for cache in table.caches() {
            add(samples, Of::cache(cache), cache);
        }
    });
}
