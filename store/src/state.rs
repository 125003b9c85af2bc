//! What a local backend holds in memory: the current keys in order, the revision and the recent
//! history, with one writer and many readers.
//!
//! The map, the history, listings and watchers share one [`KeyValue`].

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    Error, Event, HistoryLimits, KeyValue, Listing, Revision, history::History, stage::Change,
};

/// What stands at a current key.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub stored: Arc<KeyValue>,
    /// The row of the durable backend that holds it; 0 for an object held in memory only.
    pub row: i64,
}

pub(crate) struct State {
    pub objects: BTreeMap<Arc<str>, Object>,
    pub history: History,
    pub revision: Revision,
    pub closed: bool,
}

/// The state, and a bell that rings when it changes.
pub(crate) struct Shared {
    pub state: RwLock<State>,
    pub changed: watch::Sender<()>,
}

impl Shared {
    pub fn new(
        objects: BTreeMap<Arc<str>, Object>,
        revision: Revision,
        limits: HistoryLimits,
    ) -> Self {
        Shared {
            state: RwLock::new(State {
                objects,
                history: History::new(limits, revision),
                revision,
                closed: false,
            }),
            changed: watch::channel(()).0,
        }
    }

    pub fn revision(&self) -> Result<Revision, Error> {
        let state = self.state.read();
        state.open()?;
        Ok(state.revision)
    }

    pub fn get(&self, key: &str) -> Result<Option<Arc<KeyValue>>, Error> {
        let state = self.state.read();
        state.open()?;
        Ok(state.objects.get(key).map(|object| object.stored.clone()))
    }

    pub fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let state = self.state.read();
        state.open()?;
        let items = state
            .objects
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, object)| object.stored.clone())
            .collect();
        Ok(Listing {
            revision: state.revision,
            items,
        })
    }

    /// Makes committed changes visible and wakes the watchers.
    pub fn apply(&self, changes: Vec<Change>) {
        self.state.write().apply(changes);
        self.changed.send_replace(());
    }

    pub fn close(&self) {
        self.state.write().closed = true;
        self.changed.send_replace(());
    }
}

impl State {
    pub fn open(&self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        Ok(())
    }

    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.revision = change.revision;
            let event = match change.object {
                Some(object) => {
                    let current = object.stored.clone();
                    self.objects.insert(change.key, object);
                    Event::Put {
                        current,
                        previous: change.previous,
                    }
                }
                None => {
                    self.objects.remove(&change.key);
                    let Some(previous) = change.previous else {
                        continue;
                    };
                    Event::Delete {
                        revision: change.revision,
                        previous,
                    }
                }
            };
            self.history.push(event);
        }
    }
}
