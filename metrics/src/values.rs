//! The values of single series: all are counted with atomics only.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Kind, Samples};

/// What a series holds.
pub trait Value: Send + Sync + 'static {
    const KIND: Kind;

    /// At zero. `buckets` are the upper bounds of a histogram's buckets, in order.
    fn new(buckets: &'static [f64]) -> Self;

    /// Puts what it holds on the page, under these label values.
    fn show(&self, labels: &[&str], samples: &mut Samples<'_>);
}

/// Only ever grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Value for Counter {
    const KIND: Kind = Kind::Counter;

    fn new(_: &'static [f64]) -> Self {
        Counter::default()
    }

    fn show(&self, labels: &[&str], samples: &mut Samples<'_>) {
        samples.add(labels, self.get() as f64);
    }
}

/// What one thread counts for a [`Counter`], which learns of it when this is dropped.
#[derive(Debug)]
pub struct Tally {
    of: Arc<Counter>,
    count: Cell<u64>,
}

impl Tally {
    pub fn new(of: Arc<Counter>) -> Self {
        Tally {
            of,
            count: Cell::new(0),
        }
    }

    pub fn inc(&self) {
        self.count.set(self.count.get() + 1);
    }

    /// At zero, for the same counter.
    pub fn another(&self) -> Self {
        Tally::new(self.of.clone())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        match self.count.get() {
            0 => {}
            count => self.of.add(count),
        }
    }
}

/// Goes up and down. The bits of an `f64`.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    pub fn add(&self, value: f64) {
        add(&self.0, value);
    }

    pub fn inc(&self) {
        self.add(1.0);
    }

    pub fn dec(&self) {
        self.add(-1.0);
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Counts as one until the guard is dropped.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.inc();
        Held(self.clone())
    }
}

impl Value for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn new(_: &'static [f64]) -> Self {
        Gauge::default()
    }

    fn show(&self, labels: &[&str], samples: &mut Samples<'_>) {
        samples.add(labels, self.get());
    }
}

/// Counts as one in a gauge until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<Gauge>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How often values fell into which bucket.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        add(&self.sum, value);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        let counts = self.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Value for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn new(buckets: &'static [f64]) -> Self {
        Histogram {
            bounds: buckets,
            counts: (0..=buckets.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn show(&self, labels: &[&str], samples: &mut Samples<'_>) {
        let mut total = 0;
        for (bound, count) in self.bounds.iter().chain(&[f64::INFINITY]).zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            samples.bucket(labels, *bound, total);
        }
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        samples.totals(labels, sum, total);
    }
}

fn add(bits: &AtomicU64, value: f64) {
    let sum = |bits| Some((f64::from_bits(bits) + value).to_bits());
    // The closure never declines.
    let _ = bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
}

/// Bounds that begin at `start` and grow by `factor` each.
pub const fn exponential<const N: usize>(start: f64, factor: f64) -> [f64; N] {
    let mut bounds = [start; N];
    let mut index = 1;
    while index < N {
        bounds[index] = bounds[index - 1] * factor;
        index += 1;
    }
    bounds
}

/// Bounds that begin at `start` and are `width` apart.
pub const fn linear<const N: usize>(start: f64, width: f64) -> [f64; N] {
    let mut bounds = [start; N];
    let mut index = 1;
    while index < N {
        bounds[index] = bounds[index - 1] + width;
        index += 1;
    }
    bounds
}
