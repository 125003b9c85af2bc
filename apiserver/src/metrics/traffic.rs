//! What is counted of the bytes that leave: answers to reads, and watch events.

use std::{
    pin::Pin,
    sync::atomic::AtomicU64,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use coracle_api::Kind;
use http_body::{Frame, SizeHint};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    group: String,
    version: String,
    resource: String,
}

/// The events of all watches.
#[derive(Clone)]
pub struct Watches {
    events: Family<KindLabels, Counter<u64, AtomicU64>>,
    sizes: Family<KindLabels, Histogram, fn() -> Histogram>,
}

impl Watches {
    pub fn register(registry: &mut Registry) -> Self {
        let watches = Watches {
            events: Family::default(),
            sizes: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1024.0, 2.0, 8))
            }),
        };
        registry.register(
            "apiserver_watch_events",
            "Number of events sent in watch clients",
            watches.events.clone(),
        );
        registry.register(
            "apiserver_watch_events_sizes",
            "Watch event size distribution in bytes",
            watches.sizes.clone(),
        );
        watches
    }

    /// The counters of the watches of one kind.
    pub fn of(&self, kind: &Kind) -> Events {
        let labels = KindLabels {
            group: kind.group.clone(),
            version: kind.version.clone(),
            resource: kind.resource.clone(),
        };
        Events {
            sent: self.events.get_or_create(&labels).clone(),
            sizes: self.sizes.get_or_create(&labels).clone(),
        }
    }
}

/// The events of one kind.
pub struct Events {
    sent: Counter<u64, AtomicU64>,
    sizes: Histogram,
}

impl Events {
    pub fn sent(&self, bytes: usize) {
        self.sent.inc();
        self.sizes.observe(bytes as f64);
    }
}

/// A body whose size is noted when it was sent, or its client went away.
pub struct Measured {
    body: Body,
    sent: usize,
    sizes: Histogram,
}

impl Measured {
    pub fn new(body: Body, sizes: Histogram) -> Self {
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
