//! How soon failed daemons are replaced: after a second, then ever more slowly.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(15 * 60);

/// Failures of one generation of a set on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub uid: String,
    pub generation: i64,
    pub node: String,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    since: Timestamp,
}

impl Entry {
    fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.since)).unwrap_or_default()
    }
}

/// What is remembered of failures; lost with the process, which only makes it try sooner.
#[derive(Debug, Default)]
pub(super) struct Backoff(HashMap<Place, Entry>);

impl Backoff {
    /// How long the next replacement there has to wait; `None` when it need not.
    pub fn wait(&self, place: &Place, now: Timestamp) -> Option<Duration> {
        let entry = self.0.get(place)?;
        (entry.age(now) < entry.delay).then_some(entry.delay)
    }

    /// One is replaced now: the next one has to wait longer.
    pub fn note(&mut self, place: Place, now: Timestamp) {
        self.0.retain(|_, entry| entry.age(now) <= 2 * MAX);
        let delay = self
            .0
            .get(&place)
            .map_or(FIRST, |entry| (2 * entry.delay).min(MAX));
        self.0.insert(place, Entry { delay, since: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_are_forgotten() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let place = Place {
            uid: "u".to_owned(),
            generation: 1,
            node: "n".to_owned(),
        };
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait(&place, at(0)), None);
        backoff.note(place.clone(), at(0));
        assert_eq!(backoff.wait(&place, at(0)), Some(FIRST));
        assert_eq!(backoff.wait(&place, at(1)), None);
        backoff.note(place.clone(), at(1));
        assert_eq!(backoff.wait(&place, at(1)), Some(2 * FIRST));
        for _ in 0..20 {
            backoff.note(place.clone(), at(10));
        }
        assert_eq!(backoff.wait(&place, at(10)), Some(MAX));
        backoff.note(place.clone(), at(10 + 1801));
        assert_eq!(backoff.wait(&place, at(1811)), Some(FIRST));
    }
}
