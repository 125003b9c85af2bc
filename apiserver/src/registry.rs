//! What is served, and the feed that keeps the watch caches at the store's revision.
//!
//! Enter at [`Registry`]. It knows every served resource, reads the store once, and then
//! follows it with a single watch; [`Registry::fresh`] is what makes cached reads linearizable.

pub(crate) mod expiry;
mod table;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use coracle_api::Kind;
use coracle_store::{Event, Listing, Revision, Store, Transaction, WatchBatch};
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{cache::Cache, error::ApiError, metrics::storage};

pub use table::{Resource, Table};

/// What all keys start with.
pub const ROOT: &str = "/registry/";
/// How long a read waits for the cache to catch up with the store, as upstream.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a list can be continued, and how far back an exact revision can be asked for:
/// upstream's compaction interval.
const HORIZON_AGE: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(500);
/// Kinds that are being added at the same time.
const COMMANDS: usize = 16;

/// The served resources and their caches. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    table: ArcSwap<Table>,
    /// Up to where the caches have followed the store; `None` until they are filled.
    progress: watch::Sender<Option<Revision>>,
    horizons: Mutex<VecDeque<(Instant, Revision)>>,
    commands: mpsc::Sender<Load>,
    incoming: Mutex<Option<mpsc::Receiver<Load>>>,
}

/// Fills a cache that was added while the feed runs.
struct Load {
    cache: Arc<Cache>,
    done: oneshot::Sender<()>,
}

impl Registry {
    /// Serves `kinds` from `store`, once [`Registry::run`] runs.
    pub fn new(store: Arc<dyn Store>, kinds: &[Arc<Kind>]) -> Self {
        let (commands, incoming) = mpsc::channel(COMMANDS);
        Registry(Arc::new(Inner {
            store,
            table: ArcSwap::from_pointee(Table::new(kinds)),
            progress: watch::Sender::new(None),
            horizons: Mutex::default(),
            commands,
            incoming: Mutex::new(Some(incoming)),
        }))
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// What is served at this moment.
    pub fn table(&self) -> Arc<Table> {
        self.0.table.load_full()
    }

    /// The resource that a URL names.
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        self.0.table.load().find(group, version, resource).cloned()
    }

    /// Serves other kinds beside those there are, or in place of those of the same group,
    /// version and resource. Returns when they can be read.
    pub async fn add(&self, kinds: &[Arc<Kind>]) {
        let mut added = Vec::new();
        self.0.table.rcu(|table| {
            let (table, caches) = table.with(kinds);
            added = caches;
            table
        });
        for cache in added {
            let (done, loaded) = oneshot::channel();
            if self.0.commands.send(Load { cache, done }).await.is_ok() {
                // An error means that the feed has ended, and the server with it.
                let _ = loaded.await;
            }
        }
    }

    /// Commits a transaction that is about the object of `key`.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    pub async fn commit(
        &self,
        operation: &'static str,
        key: &str,
        transaction: Transaction,
    ) -> Result<Revision, coracle_store::Error> {
        let since = std::time::Instant::now();
        let committed = self.0.store.commit(transaction).await;
        if let Some(cache) = self.0.table.load().cache_of(key) {
            let refused = matches!(&committed, Err(coracle_store::Error::Conflict { .. }));
            let failed = committed.is_err() && !refused;
            storage::Of::cache(cache).requested(operation, since, failed);
        }
        committed
    }

    /// No longer serves the resources of which `keep` is false.
    pub fn retain(&self, keep: impl Fn(&Kind) -> bool) {
        self.0.table.rcu(|table| table.without(&keep));
    }

    /// Up to where the caches have followed the store; `None` until they are filled.
    pub fn progress(&self) -> Option<Revision> {
        *self.0.progress.borrow()
    }

    /// Returns when the caches are filled for the first time.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self
            .0
            .progress
            .subscribe()
            .wait_for(|progress| progress.is_some())
            .await;
    }

    /// Waits until the caches hold every write acknowledged before this call, and returns the
    /// revision that they are at.
    pub async fn fresh(&self) -> Result<Revision, ApiError> {
        let revision = self.0.store.revision().await?;
        self.reached(revision).await
    }

    /// Waits until the caches are at `revision` or later, and returns where they are.
    ///
    /// # Errors
    /// They are not, after three seconds: "too large resource version".
    pub async fn reached(&self, revision: Revision) -> Result<Revision, ApiError> {
        if let Some(progress) = self.progress().filter(|progress| *progress >= revision) {
            return Ok(progress);
        }
        let mut progress = self.0.progress.subscribe();
        let reached = progress.wait_for(|p| p.is_some_and(|p| p >= revision));
        match tokio::time::timeout(FRESH_TIMEOUT, reached).await {
            Ok(Ok(progress)) => Ok(progress.unwrap_or(revision)),
            Ok(Err(_)) | Err(_) => Err(match self.progress() {
                Some(current) => ApiError::too_large_resource_version(revision, current),
                None => ApiError::too_many_requests("storage is (re)initializing", 1),
            }),
        }
    }

    /// Reads of an exact revision before this one are refused, so that clients which page for
    /// too long notice, as they do upstream.
    pub fn horizon(&self) -> Revision {
        let horizons = self.0.horizons.lock();
        let old = horizons
            .iter()
            .rev()
            .find(|(at, _)| at.elapsed() >= HORIZON_AGE);
        old.map_or(0, |(_, revision)| *revision)
    }

    /// Follows the store until `shutdown`. Must be called once.
    pub async fn run(&self, shutdown: CancellationToken) {
        let Some(mut incoming) = self.0.incoming.lock().take() else {
            return;
        };
        while !shutdown.is_cancelled() {
            let followed = self.follow(&mut incoming, &shutdown).await;
            if let Err(error) = followed {
                tracing::warn!(%error, "the watch caches lost the store, reading it again");
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn follow(
        &self,
        incoming: &mut mpsc::Receiver<Load>,
        shutdown: &CancellationToken,
    ) -> Result<(), coracle_store::Error> {
        let since = std::time::Instant::now();
        let listing = self.0.store.list(ROOT).await;
        for cache in self.0.table.load().caches() {
            storage::Of::cache(cache).requested("list", since, listing.is_err());
        }
        let listing = listing?;
        let revision = listing.revision;
        let mut batches = self.0.store.watch(ROOT, revision).await?;
        self.fill(&listing);
        drop(listing);
        self.0.progress.send_replace(Some(revision));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                batch = batches.next() => match batch {
                    Some(batch) => self.apply(&batch?),
                    None => return Err(coracle_store::Error::Closed),
                },
                Some(load) = incoming.recv() => self.load(load).await?,
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn fill(&self, listing: &Listing) {
        let table = self.0.table.load();
        for cache in table.caches() {
            let prefix = cache.prefix();
            let start = listing.items.partition_point(|item| &*item.key < prefix);
            let below = &listing.items[start..];
            let end = below.partition_point(|item| item.key.starts_with(prefix));
            cache.reset(&below[..end], listing.revision);
        }
    }

    /// Fills one cache. What the feed delivers for it again later is older than the listing
    /// and is skipped.
    async fn load(&self, load: Load) -> Result<(), coracle_store::Error> {
        let since = std::time::Instant::now();
        let listing = self.0.store.list(load.cache.prefix()).await;
        storage::Of::cache(&load.cache).requested("list", since, listing.is_err());
        let listing = listing?;
        load.cache.reset(&listing.items, listing.revision);
        let _ = load.done.send(());
        Ok(())
    }

    fn apply(&self, batch: &WatchBatch) {
        let now = std::time::Instant::now();
        let table = self.0.table.load();
        let mut grouped: Vec<(&Arc<Cache>, Vec<&Event>)> = Vec::new();
        for event in &batch.events {
            let key = match event {
                Event::Put { current, .. } => &current.key,
                Event::Delete { previous, .. } => &previous.key,
            };
            let Some(cache) = table.cache_of(key) else {
                continue;
            };
            match grouped.iter_mut().find(|(of, _)| Arc::ptr_eq(of, cache)) {
                Some((_, events)) => events.push(event),
                None => grouped.push((cache, vec![event])),
            }
        }
        for (cache, events) in grouped {
            cache.apply(&events, now);
        }
        self.0.progress.send_replace(Some(batch.revision));
    }

    fn tick(&self) {
        let Some(progress) = self.progress() else {
            return;
        };
        {
            let mut horizons = self.0.horizons.lock();
            horizons.push_back((Instant::now(), progress));
            // The second is old enough to be the horizon: the first is no longer needed.
            while horizons
                .get(1)
                .is_some_and(|(at, _)| at.elapsed() >= HORIZON_AGE)
            {
                horizons.pop_front();
            }
        }
        let horizon = self.horizon();
        for cache in self.0.table.load().caches() {
            cache.expire_pages(horizon);
        }
    }
}
