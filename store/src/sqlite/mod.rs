//! The embedded store: SQLite holds the current objects and the revision, nothing else.
//!
//! Enter at [`SqliteStore::open`]. Reads are served from memory. Writes go to one thread, which
//! commits all that are waiting as one SQLite transaction: one fsync for many writers, and none
//! is acknowledged or visible before it is durable. History is kept in memory only, so the file
//! grows with the number and size of objects, never with time.
//!
//! Keys below a *volatile* prefix never reach the disk but take revisions of the same sequence.
//! The file therefore records a revision ahead of the current one, up to which numbers may be
//! given out; after a crash the sequence goes on from there, so no number is ever used twice.
//!
//! On a full device nothing is added, but deletes go on, with what leads to them, and so does what
//! is volatile: some space is kept for them, see [`spare`].

mod file;
mod spare;
mod writer;

use std::{path::Path, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Error, HistoryLimits, KeyValue, Listing, Revision, Store, Transaction, Watch, Written,
    state::Shared, watcher, written::Counters,
};
use file::File;
use writer::{Request, Writer};

/// Transactions that wait for the writer; further callers wait to be let in.
const WAITING: usize = 1024;

/// How a [`SqliteStore`] behaves.
#[derive(Clone, Debug, Default)]
pub struct SqliteConfig {
    pub history: HistoryLimits,
    /// Prefixes of keys that live in memory only, for example `/registry/leases/`.
    pub volatile: Vec<String>,
    /// The file may grow to this many bytes, then writes give [`Error::Full`]. `None`: as far as
    /// the device goes.
    pub max_bytes: Option<u64>,
}

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the store {}: another process is using it", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open the store {}: the file is damaged: {reason}; restore it from a backup or move it away to begin with an empty cluster", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot open the store {}: it was written by a newer version (format {found}, this version knows {known})", path.display())]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("cannot open the store {}: {reason}", path.display())]
    Other { path: PathBuf, reason: String },
}

/// The store in one SQLite file. Dropping it closes it too, but only [`Store::close`] waits
/// until the file is free.
pub struct SqliteStore {
    path: PathBuf,
    shared: Arc<Shared>,
    written: Arc<Counters>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    stopped: watch::Receiver<bool>,
}

impl SqliteStore {
    /// Opens or creates the file, reads all of it, and starts the writer thread.
    ///
    /// Blocks: call it before serving or off the runtime's threads.
    pub fn open(path: &Path, config: SqliteConfig) -> Result<Self, OpenError> {
        let (file, loaded) = File::open(path, config.max_bytes)?;
        let shared = Arc::new(Shared::new(loaded.objects, loaded.revision, config.history));
        let written = Arc::new(Counters::default());
        let (requests, waiting) = mpsc::channel(WAITING);
        let (stopping, stopped) = watch::channel(false);
        let writer = Writer::new(file, shared.clone(), written.clone(), config.volatile);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                writer.run(waiting);
                stopping.send_replace(true);
            })
            .map_err(|error| OpenError::Other {
                path: path.to_owned(),
                reason: format!("cannot start the writer thread: {error}"),
            })?;
        Ok(SqliteStore {
            path: path.to_owned(),
            shared,
            written,
            requests: Mutex::new(Some(requests)),
            stopped,
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
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
        let requests = self.requests.lock().clone().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        requests
            .send(Request { transaction, reply })
            .await
            .map_err(|_| Error::Closed)?;
        drop(requests);
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        watcher::watch(&self.shared, prefix, after)
    }

    fn written(&self) -> Vec<Written> {
        self.written.read()
    }

    async fn size(&self) -> Option<u64> {
        let file = tokio::fs::metadata(&self.path).await.ok()?.len();
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        let wal = tokio::fs::metadata(wal).await;
        Some(file + wal.map_or(0, |wal| wal.len()))
    }

    async fn close(&self) {
        // Without a sender the writer ends after what is waiting.
        self.requests.lock().take();
        let mut stopped = self.stopped.clone();
        // An error means that the thread is gone, which is as good.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        self.shared.close();
    }
}
