//! Sets of completion indexes, as a Job's status writes them: `0,2-5`.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    first: i32,
    last: i32,
}

/// A set of indexes, in order, as intervals that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<Interval>);

impl Indexes {
    /// Reads what [`fmt::Display`] writes. Indexes of `completions` and up are left out, and what is
    /// not well formed is ignored.
    pub fn parse(text: &str, completions: i32) -> Self {
        let number = |text: &str| text.parse::<i32>().ok();
        let intervals = text.split(',').filter_map(|part| {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            let last = last.min(completions - 1);
            (first <= last).then_some(Interval { first, last })
        });
        Indexes::default().with_intervals(intervals.collect())
    }

    /// With these too.
    pub fn with(&self, indexes: impl IntoIterator<Item = i32>) -> Self {
        let more = indexes.into_iter().map(|index| Interval {
            first: index,
            last: index,
        });
        self.with_intervals(more.collect())
    }

    /// In either.
    pub fn union(&self, other: &Self) -> Self {
        self.with_intervals(other.0.clone())
    }

    fn with_intervals(&self, mut all: Vec<Interval>) -> Self {
        all.extend(&self.0);
        all.sort_by_key(|interval| interval.first);
        let mut merged: Vec<Interval> = Vec::with_capacity(all.len());
        for interval in all {
            match merged.last_mut() {
                Some(last) if interval.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(interval.last);
                }
                _ => merged.push(interval),
            }
        }
        Indexes(merged)
    }

    pub fn count(&self) -> i32 {
        self.0
            .iter()
            .map(|interval| interval.last - interval.first + 1)
            .sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, index: i32) -> bool {
        let after = self.0.partition_point(|interval| interval.last < index);
        self.0
            .get(after)
            .is_some_and(|interval| interval.first <= index)
    }

    /// How many are in both.
    pub fn shared_with(&self, other: &Self) -> i32 {
        let overlap = |one: &Interval, other: &Interval| {
            (one.last.min(other.last) - one.first.max(other.first) + 1).max(0)
        };
        let pairs = self
            .0
            .iter()
            .flat_map(|one| other.0.iter().map(move |other| overlap(one, other)));
        pairs.sum()
    }

    /// The first of `0..completions` that are not in the set, `count` at most.
    pub fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        let end = Interval {
            first: completions,
            last: completions,
        };
        for interval in self.0.iter().chain([&end]) {
            let room = count - missing.len();
            missing.extend((next..interval.first.min(completions)).take(room));
            next = next.max(interval.last.saturating_add(1));
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Interval { first, last }) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written() {
        let cases = [
            ("", 9, ""),
            ("3", 9, "3"),
            ("1-2", 9, "1,2"),
            ("0,2-5,7", 9, "0,2-5,7"),
            ("0,1,2", 9, "0-2"),
            ("0-4", 3, "0-2"),
            ("0,5-7", 5, "0"),
            ("0,x,2", 9, "0,2"),
        ];
        for (text, completions, expected) in cases {
            let found = Indexes::parse(text, completions);
            assert_eq!(found.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn sets_grow_and_are_asked() {
        let set = Indexes::parse("1-3,7", 10);
        assert_eq!(set.with([4, 6]).to_string(), "1-4,6,7");
        assert_eq!(
            set.union(&Indexes::parse("0,5-9", 10)).to_string(),
            "0-3,5-9"
        );
        assert_eq!(set.count(), 4);
        let found: Vec<_> = (0..10).filter(|index| set.has(*index)).collect();
        assert_eq!(found, [1, 2, 3, 7]);
        assert_eq!(set.shared_with(&Indexes::parse("0-2,7,9", 10)), 3);
        assert_eq!(set.missing(3, 10), [0, 4, 5]);
        assert_eq!(set.missing(99, 10), [0, 4, 5, 6, 8, 9]);
        assert_eq!(set.missing(99, 3), [0]);
        assert_eq!(Indexes::default().missing(2, 5), [0, 1]);
    }
}
