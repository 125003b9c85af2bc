//! The latest changes of one resource, from which watches are served.
//!
//! Bounded by count, by age and by bytes: a watcher that falls behind it has to list again.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_store::Revision;

use super::entry::Entry;

/// Changes are kept at least this many, whatever their age.
const MIN_CHANGES: usize = 100;
const MAX_CHANGES: usize = 16_384;
/// How long changes are kept: as long as upstream keeps the history in etcd.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Bytes of objects that changes may keep alive, beyond the first [`MIN_CHANGES`].
const MAX_BYTES: usize = 16 << 20;

/// One change of one object.
pub struct Change {
    pub revision: Revision,
    /// The object after the change; `None`: it was deleted.
    pub current: Option<Arc<Entry>>,
    /// The object before the change; `None`: it did not exist.
    pub previous: Option<Arc<Entry>>,
    at: Instant,
}

impl Change {
    pub fn new(
        revision: Revision,
        current: Option<Arc<Entry>>,
        previous: Option<Arc<Entry>>,
        at: Instant,
    ) -> Self {
        Change {
            revision,
            current,
            previous,
            at,
        }
    }

    /// The key of the object.
    pub fn key(&self) -> &Arc<str> {
        let entry = self.current.as_ref().or(self.previous.as_ref());
        entry
            .expect("a change has an object before or after it")
            .key()
    }

    fn bytes(&self) -> usize {
        let length = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |e| e.stored().len());
        length(&self.previous) + length(&self.current)
    }
}

/// The history no longer reaches back that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision from which changes can still be had.
    pub oldest: Revision,
}

/// Changes in order. Each has a sequence number, one above that of the change before it.
pub struct History {
    changes: VecDeque<Arc<Change>>,
    /// The sequence number of the first change kept.
    first: u64,
    /// Every change after this revision is here.
    floor: Revision,
    bytes: usize,
}

impl History {
    /// An empty history that begins after `floor`.
    pub fn new(floor: Revision) -> Self {
        History {
            changes: VecDeque::new(),
            first: 0,
            floor,
            bytes: 0,
        }
    }

    /// Empties it; sequence numbers given out before are out of reach afterwards.
    pub fn restart(&mut self, floor: Revision) {
        self.first = self.end() + 1;
        self.floor = floor;
        self.bytes = 0;
        self.changes.clear();
    }

    pub fn push(&mut self, change: Arc<Change>) {
        let now = change.at;
        self.bytes += change.bytes();
        self.changes.push_back(change);
        while self.changes.len() > MIN_CHANGES {
            let oldest = &self.changes[0];
            let keep = self.changes.len() <= MAX_CHANGES
                && self.bytes <= MAX_BYTES
                && now.duration_since(oldest.at) <= MAX_AGE;
            if keep {
                break;
            }
            self.bytes -= oldest.bytes();
            self.floor = oldest.revision;
            self.first += 1;
            self.changes.pop_front();
        }
    }

    /// The sequence number that the next change will get.
    pub fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The sequence number of the first change after `revision`.
    pub fn after(&self, revision: Revision) -> Result<u64, TooOld> {
        if revision < self.floor {
            return Err(TooOld { oldest: self.floor });
        }
        let index = self
            .changes
            .partition_point(|change| change.revision <= revision);
        Ok(self.first + index as u64)
    }

    /// Up to `limit` changes from the sequence number on.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<Arc<Change>>, TooOld> {
        let Some(index) = from.checked_sub(self.first) else {
            return Err(TooOld { oldest: self.floor });
        };
        let length = self.changes.len();
        let index = usize::try_from(index).map_or(length, |index| index.min(length));
        Ok(self.changes.range(index..).take(limit).cloned().collect())
    }

    /// The changes after `revision`, latest first.
    pub fn back_to(
        &self,
        revision: Revision,
    ) -> Result<impl Iterator<Item = &Arc<Change>>, TooOld> {
        if revision < self.floor {
            return Err(TooOld { oldest: self.floor });
        }
        Ok(self
            .changes
            .iter()
            .rev()
            .take_while(move |change| change.revision > revision))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use coracle_api::kinds;
    use coracle_store::KeyValue;

    use super::*;

    fn change(revision: Revision, at: Instant) -> Arc<Change> {
        let kind = kinds::find("", "v1", "ConfigMap").unwrap();
        let stored = Arc::new(KeyValue {
            key: "/registry/configmaps/default/a".into(),
            value: Bytes::from_static(br#"{"metadata":{"name":"a"}}"#),
            create_revision: revision,
            mod_revision: revision,
        });
        let entry = Entry::new(&stored, None, &*kind.strategy).unwrap();
        Arc::new(Change::new(revision, Some(Arc::new(entry)), None, at))
    }

    #[test]
    fn old_changes_go_but_the_latest_stay() {
        let start = Instant::now();
        let mut history = History::new(10);
        for revision in 11..=10 + 2 * MIN_CHANGES as u64 {
            history.push(change(revision, start));
        }
        assert_eq!(history.after(10), Ok(0));
        history.push(change(1000, start + MAX_AGE * 2));
        assert_eq!(history.changes.len(), MIN_CHANGES);
        let oldest = history.floor;
        assert_eq!(history.after(oldest - 1), Err(TooOld { oldest }));
        let from = history.after(oldest).unwrap();
        assert_eq!(history.read(from, 1).unwrap()[0].revision, oldest + 1);
        assert!(history.read(0, 1).is_err());
        assert_eq!(history.back_to(999).unwrap().count(), 1);
    }

    #[test]
    fn a_restart_leaves_nothing_within_reach() {
        let mut history = History::new(10);
        history.push(change(11, Instant::now()));
        let end = history.end();
        history.restart(20);
        assert!(history.read(end, 1).is_err());
        assert!(history.after(19).is_err());
        assert!(
            history
                .read(history.after(20).unwrap(), 1)
                .unwrap()
                .is_empty()
        );
    }
}
