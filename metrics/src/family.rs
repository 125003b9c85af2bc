//! A metric of one name, with its series.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    ops::Deref,
    sync::{Arc, OnceLock},
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
    /// The only one, when there are no labels.
    single: OnceLock<Arc<T>>,
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
        assert!(!help.is_empty(), "a metric says what it counts");
        Family {
            description: Description {
                name,
                stability,
                help,
            },
            labels,
            buckets,
            series: RwLock::new(HashMap::with_hasher(BuildHasherDefault::new())),
            single: OnceLock::new(),
        }
    }

    /// The series with these label values, for a static beside code that counts often.
    pub const fn series(&'static self, values: [&'static str; N]) -> Series<T, N> {
        Series {
            family: self,
            values,
            found: OnceLock::new(),
        }
    }
}

impl<T: Value, const N: usize> Family<T, N> {
    /// The series with these label values, which is made when it is not there.
    pub fn with(&self, values: [&str; N]) -> Arc<T> {
        if N == 0 {
            let single = self.single.get_or_init(|| Arc::new(T::new(self.buckets)));
            return single.clone();
        }
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

/// A series that is looked up with its first use, and from then on only counts. It must not be one
/// that is forgotten.
pub struct Series<T: 'static, const N: usize> {
    family: &'static Family<T, N>,
    values: [&'static str; N],
    found: OnceLock<Arc<T>>,
}

impl<T: Value, const N: usize> Deref for Series<T, N> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        self.found.get_or_init(|| self.family.with(self.values))
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
        if N == 0 {
            // It is shown at zero too.
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
