//! A watcher: a position in the history of one resource.
//!
//! The cache wakes it when something happened that it might be interested in; it then reads
//! the history from where it stopped. So a slow watcher costs nothing, and one that the
//! history has left behind is ended.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use coracle_store::Revision;
use tokio::sync::Notify;

use super::{Cache, Change, Entry, Objects, TooOld};
use crate::selector::Filter;

/// Changes looked at before others get a turn.
const BATCH: usize = 256;

/// What a watch event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub fn name(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// One event for one watcher.
#[derive(Clone)]
pub struct WatchEvent {
    pub event_type: EventType,
    pub entry: Arc<Entry>,
    /// The resourceVersion to show; for deletions not that of the entry.
    pub revision: Revision,
}

/// A watcher as the cache knows it.
pub(super) struct Slot {
    filter: Arc<Filter>,
    notify: Notify,
}

impl Slot {
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Whether the watcher might be interested.
    pub(super) fn concerns(&self, change: &Change) -> bool {
        [&change.current, &change.previous]
            .into_iter()
            .flatten()
            .any(|entry| self.filter.matches(entry))
    }
}

/// Reads the changes of one resource that pass a filter.
pub struct Watcher {
    cache: Arc<Cache>,
    slot: Arc<Slot>,
    id: u64,
    /// The sequence number of the next change to look at.
    position: u64,
    /// Changes up to this revision are passed over: it may be in the future.
    after: Revision,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.cache.watchers.lock().remove(&self.id);
    }
}

impl Cache {
    /// Watches the changes after `revision`.
    ///
    /// # Errors
    /// The history does not reach back that far.
    pub fn watch_after(
        self: &Arc<Self>,
        revision: Revision,
        filter: Arc<Filter>,
    ) -> Result<Watcher, TooOld> {
        let mut watcher = self.register(filter);
        watcher.position = self.state.read().history.after(revision)?;
        watcher.after = revision;
        Ok(watcher)
    }

    /// The objects as they stand, and a watch of all changes after that.
    pub fn watch_from_now(self: &Arc<Self>, filter: Arc<Filter>) -> (Objects, Watcher) {
        let mut watcher = self.register(filter);
        let state = self.state.read();
        watcher.position = state.history.end();
        (state.objects.clone(), watcher)
    }

    /// How many watches are open.
    pub fn watchers(&self) -> usize {
        self.watchers.lock().len()
    }

    fn register(self: &Arc<Self>, filter: Arc<Filter>) -> Watcher {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let slot = Arc::new(Slot {
            filter,
            notify: Notify::new(),
        });
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.watchers.lock().insert(id, slot.clone());
        Watcher {
            cache: self.clone(),
            slot,
            id,
            position: 0,
            after: 0,
        }
    }
}

impl Watcher {
    pub fn filter(&self) -> &Arc<Filter> {
        &self.slot.filter
    }

    /// The next events; waits until there are some.
    ///
    /// # Errors
    /// The watcher fell behind the history, or the history was interrupted: it has to be ended.
    pub async fn next(&mut self) -> Result<Vec<WatchEvent>, TooOld> {
        loop {
            let before = self.position;
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.position == before {
                self.slot.notify.notified().await;
            }
        }
    }

    /// The next events that have happened already, some hundred at most. Empty does not mean
    /// that none follow, unless the position is that of [`Watcher::at_end`].
    pub fn ready(&mut self) -> Result<Vec<WatchEvent>, TooOld> {
        let changes = self.cache.state.read().history.read(self.position, BATCH)?;
        self.position += changes.len() as u64;
        Ok(changes
            .iter()
            .filter(|change| change.revision > self.after)
            .filter_map(|change| event(change, &self.slot.filter))
            .collect())
    }

    /// Whether all that has happened was read.
    pub fn at_end(&self) -> bool {
        self.position >= self.cache.state.read().history.end()
    }
}

/// What a change is to someone who only sees the objects that match: an object that comes to
/// match is added, one that ceases to match is deleted.
fn event(change: &Change, filter: &Filter) -> Option<WatchEvent> {
    let current = change
        .current
        .as_ref()
        .filter(|entry| filter.matches(entry));
    let previous = change
        .previous
        .as_ref()
        .filter(|entry| filter.matches(entry));
    let (event_type, entry) = match (current, previous) {
        (Some(entry), None) => (EventType::Added, entry),
        (Some(entry), Some(_)) => (EventType::Modified, entry),
        (None, Some(entry)) => (EventType::Deleted, entry),
        (None, None) => return None,
    };
    Some(WatchEvent {
        event_type,
        entry: entry.clone(),
        revision: change.revision,
    })
}
