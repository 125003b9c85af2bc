//! A store of each backend for one test, and the shorthand that tests share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use coracle_store::{
    Compare, Error, Event, HistoryLimits, MemoryStore, Revision, SqliteConfig, SqliteStore, Store,
    Transaction, Watch, WatchBatch, Write,
};
use futures::StreamExt as _;

use crate::etcd::{self, Server};

/// Nothing in these tests takes this long.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Small enough to be overrun quickly.
pub const HISTORY: HistoryLimits = HistoryLimits {
    events: 4000,
    bytes: 1 << 20,
};

/// The backends that need no server.
#[derive(Clone, Copy, Debug)]
pub enum Backend {
    Memory,
    Sqlite,
}

pub struct Fixture {
    pub store: Arc<dyn Store>,
    /// Etcd's address, where the store is in etcd.
    etcd: Option<SocketAddr>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new(backend: Backend) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store: Arc<dyn Store> = match backend {
            Backend::Memory => Arc::new(MemoryStore::new(HISTORY)),
            Backend::Sqlite => Arc::new(open(&directory.path().join("state.db"))),
        };
        Fixture {
            store,
            etcd: None,
            _directory: directory,
        }
    }

    /// An empty store in etcd.
    pub async fn on_etcd(server: &Server) -> Self {
        let store = server.connect().await;
        for item in store.list("").await.expect("a list").items {
            delete(&store, &item.key).await;
        }
        Fixture {
            store: Arc::new(store),
            etcd: Some(server.address()),
            _directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Makes the store forget what came before now.
    pub async fn forget_history(&self) {
        match self.etcd {
            Some(address) => {
                put(&*self.store, "/forget/me", "1").await;
                // Etcd keeps the revision that it compacts to.
                let last = put(&*self.store, "/forget/me", "2").await;
                etcd::compact(address, last);
            }
            None => {
                for index in 0..HISTORY.events + 10 {
                    put(&*self.store, "/forget/me", &index.to_string()).await;
                }
            }
        }
    }
}

pub fn open(path: &std::path::Path) -> SqliteStore {
    let config = SqliteConfig {
        history: HISTORY,
        volatile: vec!["/volatile/".to_owned()],
        max_bytes: None,
    };
    SqliteStore::open(path, config).expect("the store opens")
}

pub fn write_put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.into(),
        value: value.to_owned().into(),
    }
}

pub fn write_delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}

pub fn transaction(compares: &[Compare], writes: &[Write]) -> Transaction {
    Transaction {
        compares: compares.to_vec(),
        writes: writes.to_vec(),
        ..Transaction::default()
    }
}

pub async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store
        .commit(transaction(&[], &[write_put(key, value)]))
        .await
        .expect("an unconditional put commits")
}

pub async fn delete(store: &dyn Store, key: &str) -> Revision {
    store
        .commit(transaction(&[], &[write_delete(key)]))
        .await
        .expect("an unconditional delete commits")
}

pub async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix).await.expect("a list");
    listing
        .items
        .iter()
        .map(|item| item.key.to_string())
        .collect()
}

/// The next batch, or the error that ends the watch.
pub async fn next(watch: &mut Watch) -> Result<WatchBatch, Error> {
    tokio::time::timeout(DEADLINE, watch.next())
        .await
        .expect("the watch yields before the deadline")
        .expect("the watch has not ended")
}

/// Events until the watch has seen `revision`.
pub async fn events_until(watch: &mut Watch, revision: Revision) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let batch = next(watch).await.expect("the watch goes on");
        events.extend(batch.events);
        if batch.revision >= revision {
            return events;
        }
    }
}

/// `+key=value` for a put, `-key` for a deletion.
pub fn describe(event: &Event) -> String {
    match event {
        Event::Put { current, .. } => {
            let value = String::from_utf8_lossy(&current.value);
            format!("+{}={value}", current.key)
        }
        Event::Delete { previous, .. } => format!("-{}", previous.key),
    }
}
