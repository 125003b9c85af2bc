//! The store without a disk: for tests and throw-away API servers.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{
    Error, HistoryLimits, KeyValue, Listing, Revision, Store, Transaction, Watch, stage::Stage,
    state::Shared, watcher,
};

/// Keys in memory only; gone with the process.
pub struct MemoryStore {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// An empty store whose first write gets revision 1.
    pub fn new(history: HistoryLimits) -> Self {
        MemoryStore {
            shared: Arc::new(Shared::new(BTreeMap::new(), 0, history)),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new(HistoryLimits::default())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn revision(&self) -> Result<Revision, Error> {
        self.shared.revision()
    }

    async fn get(&self, key: &str) -> Result<Option<Arc<KeyValue>>, Error> {
        self.shared.get(key)
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.shared.list(prefix)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        let revision = {
            let mut state = self.shared.state.write();
            state.open()?;
            let mut stage = Stage::default();
            let next = state.revision + 1;
            stage.add(&state, &transaction, next, |_| 0)?;
            state.apply(stage.changes);
            state.revision
        };
        self.shared.changed.send_replace(());
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        watcher::watch(&self.shared, prefix, after)
    }

    async fn close(&self) {
        self.shared.close();
    }
}
