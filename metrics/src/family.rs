//! A metric of one name, with its series.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use parking_lot::RwLock;

use crate::{Collect, Counter, Description, Gauge, Histogram, Page, Stability, Value};

/// The series that a family holds at most.
pub const MAX_SERIES: usize = 20_000;

pub type Counters<const N: usize = 0> = Family<Counter, N>;
pub type Gauges<const N: usize = 0> = Family<Gauge, N>;
pub type Histograms<const N: usize = 0> = Family<Histogram, N>;

/// The series of the same hash of their label values, which is nearly always one.
type Alike<T, const N: usize> = Vec<([Box<str>; N], Arc<T>)>;
type Hasher = BuildHasherDefault<DefaultHasher>;

/// A metric of one name with `N` labels.
pub struct Family<T, const N: usize> {
    description: Description,
    labels: [&'static str; N],
    buckets: &'static [f64],
    series: RwLock<HashMap<u64, Alike<T, N>, Hasher>>,
}

impl<T, const N: usize> Family<T, N> {
    pub const fn new(
        name: &'static str,
        stability: Stability,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Self {
        Family::with_buckets(name, stability, help, labels, &[])
    }

    /// `buckets` are the upper bounds of a histogram's buckets, in order, without infinity.
    pub const fn with_buckets(
        name: &'static str,
        stability: Stability,
        help: &'static str,
        labels: [&'static str; N],
        buckets: &'static [f64],
    ) -> Self {
        Family {
            description: Description {
                name,
                stability,
                help,
            },
            labels,
            buckets,
            series: RwLock::new(HashMap::with_hasher(BuildHasherDefault::new())),
        }
    }
}

impl<T: Value, const N: usize> Family<T, N> {
    /// The series with these label values, which is made when it is not there.
    pub fn with(&self, values: [&str; N]) -> Arc<T> {
        if let Some(series) = self.find(&values) {
            return series;
        }
        let mut all = self.series.write();
        // So many hashes that differ mean as many series.
        let values = if all.len() < MAX_SERIES {
            values
        } else {
            [""; N]
        };
        let alike = all.entry(hash(&values)).or_default();
        if let Some((_, series)) = alike.iter().find(|(known, _)| same(known, &values)) {
            return series.clone();
        }
        let series = Arc::new(T::new(self.buckets));
        alike.push((values.map(Box::from), series.clone()));
        series
    }

    fn find(&self, values: &[&str; N]) -> Option<Arc<T>> {
        let all = self.series.read();
        let mut alike = all.get(&hash(values))?.iter();
        let (_, series) = alike.find(|(known, _)| same(known, values))?;
        Some(series.clone())
    }

    /// Forgets the series of which it is true; what still holds one counts for nobody.
    pub fn forget(&self, of: impl Fn(&[Box<str>; N]) -> bool) {
        self.series.write().retain(|_, alike| {
            alike.retain(|(values, _)| !of(values));
            !alike.is_empty()
        });
    }
}

fn hash(values: &[&str]) -> u64 {
    Hasher::new().hash_one(values)
}

fn same<const N: usize>(known: &[Box<str>; N], values: &[&str; N]) -> bool {
    known
        .iter()
        .zip(values)
        .all(|(known, value)| **known == **value)
}

impl<T: Value, const N: usize> Collect for Family<T, N> {
    fn collect(&self, page: &mut Page) {
        let mut all: Vec<_> = {
            let series = self.series.read();
            series.values().flatten().cloned().collect()
        };
        if N == 0 && all.is_empty() {
            // There is only one, and it is zero as yet.
            all.push(([""; N].map(Box::from), self.with([""; N])));
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        page.family(&self.description, T::KIND, &self.labels, |samples| {
            for (values, series) in &all {
                series.show(&values.each_ref().map(|value| &**value), samples);
            }
        });
    }
}
