//! The watch cache: for each resource its current objects, in their final bytes, and its latest
//! changes.
//!
//! Enter at [`Cache`]. It has one writer, the feed from the store ([`crate::registry`]), and
//! readers that never wait for it: a list clones the root of an immutable map, a watch reads
//! the shared history from its own position, so nothing is buffered per watcher.

mod entry;
mod hints;
mod history;
mod pages;
mod scan;
mod watcher;

use std::{collections::HashMap, ops::Bound, sync::Arc, time::Instant};

use bytes::Bytes;
use coracle_api::{Kind, Object, Strategy};
use coracle_store::{Event, KeyValue, Revision};
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};

#[cfg(test)]
pub use entry::parsed;
pub use entry::{Entry, EntryError, Fields};
pub use history::{Change, TooOld};
pub use watcher::{EventType, WatchEvent, Watcher};

use crate::metrics::storage;
use hints::Hints;
use history::History;
use pages::Pages;
use watcher::Slot;

/// Objects by key.
pub type Objects = OrdMap<Arc<str>, Arc<Entry>>;

/// The current objects and latest changes of one resource.
pub struct Cache {
    /// What the keys of the resource start with, for example `/registry/pods/`.
    prefix: Arc<str>,
    group: String,
    resource: String,
    namespaced: bool,
    strategy: Arc<dyn Strategy>,
    selectable_fields: Vec<String>,
    state: RwLock<State>,
    watchers: Mutex<HashMap<u64, Arc<Slot>>>,
    pages: Mutex<Pages>,
    hints: Mutex<Hints>,
    counted: storage::Events,
}

struct State {
    objects: Objects,
    history: History,
    /// The revision of the listing that the objects began with.
    listed: Revision,
    /// Changes whenever an object does.
    generation: u64,
}

impl Cache {
    /// An empty cache of the keys that start with `prefix`, where objects of `kind` are.
    pub fn new(prefix: &str, kind: &Kind) -> Self {
        let strategy = kind.strategy.clone();
        Cache {
            prefix: prefix.into(),
            group: kind.group.clone(),
            resource: kind.resource.clone(),
            namespaced: kind.namespaced,
            selectable_fields: strategy.selectable_field_names(),
            strategy,
            state: RwLock::new(State {
                objects: Objects::new(),
                history: History::new(0),
                listed: 0,
                generation: 0,
            }),
            watchers: Mutex::default(),
            pages: Mutex::default(),
            hints: Mutex::default(),
            counted: storage::Events::default(),
        }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Group and resource of what is stored.
    pub fn group_resource(&self) -> (&str, &str) {
        (&self.group, &self.resource)
    }

    pub fn namespaced(&self) -> bool {
        self.namespaced
    }

    /// The strategy of the stored kind.
    pub fn strategy(&self) -> &Arc<dyn Strategy> {
        &self.strategy
    }

    /// The names of the fields that [`Entry::field`] gives, in its order.
    pub fn selectable_fields(&self) -> &[String] {
        &self.selectable_fields
    }

    /// What the keys of a namespace start with; of the whole resource when it is empty.
    pub fn key_prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() || !self.namespaced {
            self.prefix.to_string()
        } else {
            format!("{}{namespace}/", self.prefix)
        }
    }

    /// The key of an object. `namespace` is ignored for cluster-scoped resources.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// Namespace and name of an object by its key; the namespace of a cluster-scoped object is
    /// empty.
    pub fn name_of<'k>(&self, key: &'k str) -> (&'k str, &'k str) {
        let path = key.strip_prefix(&*self.prefix).unwrap_or(key);
        match path.split_once('/') {
            Some((namespace, name)) if self.namespaced => (namespace, name),
            _ => ("", path),
        }
    }

    /// The object as it stands.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects as they stand.
    pub fn objects(&self) -> Objects {
        self.state.read().objects.clone()
    }

    /// The objects whose keys start with `prefix`, in order of their keys.
    pub fn below(&self, prefix: &str) -> Vec<Arc<Entry>> {
        let objects = self.objects();
        objects
            .range::<_, str>((Bound::Included(prefix), Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key().starts_with(prefix))
            .cloned()
            .collect()
    }

    /// A number that changes whenever an object does.
    pub fn generation(&self) -> u64 {
        self.state.read().generation
    }

    /// All objects as they stood at a revision that is not in the future.
    ///
    /// # Errors
    /// The history does not reach back that far.
    pub fn objects_at(&self, revision: Revision) -> Result<Objects, TooOld> {
        if let Some(objects) = self.pages.lock().get(revision) {
            return Ok(objects);
        }
        let state = self.state.read();
        let mut objects = state.objects.clone();
        for change in state.history.back_to(revision)? {
            match &change.previous {
                Some(previous) => objects.insert(change.key().clone(), previous.clone()),
                None => objects.remove(&**change.key()),
            };
        }
        Ok(objects)
    }

    /// Keeps a snapshot for the pages that follow.
    pub fn keep_page(&self, revision: Revision, objects: Objects) {
        self.pages.lock().keep(revision, objects);
    }

    /// Drops the snapshots that were taken before `horizon`.
    pub fn expire_pages(&self, horizon: Revision) {
        self.pages.lock().expire(horizon);
    }

    /// Takes over a listing of the whole resource. Watches that were open are ended: what
    /// happened since is not known.
    pub fn reset(&self, items: &[Arc<KeyValue>], revision: Revision) {
        storage::Of::cache(self).initialized();
        let objects: Objects = items
            .iter()
            .filter_map(|item| Some((item.key.clone(), self.entry(item)?)))
            .collect();
        {
            let mut state = self.state.write();
            state.objects = objects;
            state.listed = revision;
            state.history.restart(revision);
            state.generation += 1;
        }
        for slot in self.watchers.lock().values() {
            slot.wake();
        }
    }

    /// Applies changes in order and wakes the watchers that they concern. `events` are of keys
    /// of this resource.
    pub fn apply(&self, events: &[&Event], now: Instant) {
        let entries: Vec<Option<Arc<Entry>>> = events
            .iter()
            .map(|event| match event {
                Event::Put { current, .. } => self.entry(current),
                Event::Delete { .. } => None,
            })
            .collect();
        let mut changes = Vec::with_capacity(events.len());
        {
            let mut state = self.state.write();
            for (event, current) in events.iter().zip(entries) {
                if event.revision() <= state.listed {
                    continue;
                }
                let key = match event {
                    Event::Put { current, .. } => &current.key,
                    Event::Delete { previous, .. } => &previous.key,
                };
                let previous = match &current {
                    Some(entry) => state.objects.insert(key.clone(), entry.clone()),
                    None => state.objects.remove(&**key),
                };
                if current.is_none() && previous.is_none() {
                    continue;
                }
                let change = Change::new(event.revision(), current, previous, now);
                let change = Arc::new(change);
                state.history.push(change.clone());
                changes.push(change);
            }
            state.generation += 1;
        }
        let mut woken = 0;
        for slot in self.watchers.lock().values() {
            if changes.iter().any(|change| slot.concerns(change)) {
                slot.wake();
                woken += 1;
            }
        }
        let of = storage::Of::cache(self);
        self.counted.count(of, events.len(), woken);
    }

    /// Tells what is about to be written, in its stored version, so that it need not be decoded
    /// when it comes back.
    pub fn expect(&self, value: &Bytes, object: &dyn Object) {
        if !self.selectable_fields.is_empty() {
            let fields = Fields::of(object, &*self.strategy);
            self.hints.lock().put(value.clone(), fields);
        }
    }

    fn entry(&self, stored: &Arc<KeyValue>) -> Option<Arc<Entry>> {
        let fields = if self.selectable_fields.is_empty() {
            Some(Fields::default())
        } else {
            self.hints.lock().take(&stored.value)
        };
        Entry::new(stored, fields, &*self.strategy)
            .inspect_err(|error| tracing::error!(%error, "a stored object cannot be read"))
            .ok()
            .map(Arc::new)
    }
}
