//! A revisioned key-value store with watch: etcd's rules behind one trait.
//!
//! Enter at [`Store`]. Keys are paths such as `/registry/pods/default/web`, values are
//! opaque bytes. Every committed transaction takes the next number of one global
//! [`Revision`] sequence. What the trait promises, every backend's behaviour is tested
//! against in one suite of functions over it.
//!
//! Backends: [`MemoryStore`], [`SqliteStore`], [`EtcdStore`].

mod etcd;
mod history;
mod memory;
mod sqlite;
mod stage;
mod state;
mod watcher;
mod written;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use etcd::{ClientFiles, EtcdConfig, EtcdStore};
pub use history::HistoryLimits;
pub use memory::MemoryStore;
pub use sqlite::{OpenError, SqliteConfig, SqliteStore};
pub use written::Written;

/// A point in the store's history. 0 is "before everything"; the first write gets 1 or more.
pub type Revision = u64;

/// One key as it stood at some revision. Whoever holds it shares one [`Arc`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The revision at which the key came into being (a delete ends a key's life).
    pub create_revision: Revision,
    /// The revision of the latest write to the key.
    pub mod_revision: Revision,
}

/// What a key must be for a transaction to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(Arc<str>),
    /// The key exists and was last written at this revision.
    ModRevision(Arc<str>, Revision),
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put {
        key: Arc<str>,
        value: Bytes,
    },
    /// Deleting a key that does not exist is not an error and makes no event.
    Delete {
        key: Arc<str>,
    },
}

/// Writes that commit together, at one revision, if all comparisons hold.
///
/// A key is written at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub compares: Vec<Compare>,
    pub writes: Vec<Write>,
    /// It is a step towards a delete, such as a mark that the object is to go. A backend that
    /// keeps space for deletes lets it have some.
    pub frees: bool,
}

/// A consistent list of the keys below a prefix, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision the listing was taken at.
    pub revision: Revision,
    pub items: Vec<Arc<KeyValue>>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put {
        current: Arc<KeyValue>,
        previous: Option<Arc<KeyValue>>,
    },
    /// `revision` is the revision of the deletion; `previous` is the key as it last stood.
    Delete {
        revision: Revision,
        previous: Arc<KeyValue>,
    },
}

impl Event {
    /// The revision at which the change was committed.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put { current, .. } => current.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

/// What a watch yields, in revision order.
///
/// A stream ends with an error when the watcher fell behind the bounded history.
pub type Watch = BoxStream<'static, Result<WatchBatch, Error>>;

/// Events in revision order, and how far the watch has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// May be empty: then the batch only says that nothing happened up to `revision`.
    pub events: Vec<Event>,
    /// Every event at or before this revision has been delivered.
    pub revision: Revision,
}

/// A key whose value is there but cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub key: Arc<str>,
    pub mod_revision: Revision,
    pub reason: String,
}

/// Why a store operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A comparison failed; `current` is the key that failed it, as it stands.
    #[error("comparison failed")]
    Conflict {
        key: Arc<str>,
        current: Option<Arc<KeyValue>>,
    },
    /// The revision asked for is older than the history that is kept.
    #[error("revision {requested} has been compacted, the oldest is {oldest}")]
    Compacted {
        requested: Revision,
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future, the current is {current}")]
    Future {
        requested: Revision,
        current: Revision,
    },
    /// The device is full: the write was refused, nothing was lost, reads go on.
    #[error("cannot write: no space left in the data directory")]
    Full,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Anything else that the backend reported.
    #[error("store: {0}")]
    Backend(String),
}

/// The store. All methods may be called from many tasks at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The latest committed revision. Every write acknowledged before the call is at or below it.
    /// Every watch gets there before long, whatever its prefix.
    async fn revision(&self) -> Result<Revision, Error>;

    /// The key as it stands now, or `None`.
    async fn get(&self, key: &str) -> Result<Option<Arc<KeyValue>>, Error>;

    /// Every key that starts with `prefix`, as they stand now.
    async fn list(&self, prefix: &str) -> Result<Listing, Error>;

    /// Commits the transaction durably and returns its revision.
    ///
    /// A transaction that changes nothing (no writes, or deletes of absent keys only) takes no
    /// revision of its own and returns the current one.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a comparison fails; then nothing was written. After
    /// [`Error::Backend`] or [`Error::Closed`] the transaction may or may not have been
    /// committed, as after a lost connection.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error>;

    /// The changes below `prefix` with a revision greater than `after`.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the history kept does not reach back to `after`, and later as
    /// the last item of a stream that was not read fast enough; [`Error::Future`] when `after`
    /// has not happened yet.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error>;

    /// What was written to the device since the store was opened, for each kind of key.
    fn written(&self) -> Vec<Written> {
        Vec::new()
    }

    /// Bytes that the store takes on its device, when it has one and knows.
    async fn size(&self) -> Option<u64> {
        None
    }

    /// The keys below `prefix` whose values are there but cannot be read, as far as lists and
    /// watches have come across them. Those gave an empty value.
    fn unreadable(&self, _prefix: &str) -> Vec<Unreadable> {
        Vec::new()
    }

    /// Whether the value would be stored in another form if it were written again.
    async fn is_stale(&self, _key: &str) -> Result<bool, Error> {
        Ok(false)
    }

    /// Waits for writes under way and closes the store. Later calls give [`Error::Closed`], and
    /// so does every watch as its last item.
    async fn close(&self);
}
