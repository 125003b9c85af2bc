//! The store that encrypts what is written and decrypts what is read.
//!
//! What an upstream API server has left in the same etcd is mostly protobuf. It is read as the
//! JSON that would be written here, and stays as it is until something writes the object again.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::codec::stored;
use coracle_store::{
    Compare, Error, Event, KeyValue, Listing, Revision, Store, Transaction, Unreadable, Watch,
    WatchBatch, Write, Written,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::rules::Rules;
use crate::registry::ROOT;

/// Values that are written again at the same time.
const AT_ONCE: usize = 64;

/// A store that keeps values encrypted in another one. Cheap to clone.
#[derive(Clone)]
pub struct EncryptedStore(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    rules: Mutex<Arc<Rules>>,
    /// Revision and reason of values that could not be read.
    unreadable: Mutex<BTreeMap<Arc<str>, (Revision, String)>>,
    /// Changes when what could be read before and what can be read now differ: watches end.
    reread: watch::Sender<u64>,
}

impl EncryptedStore {
    pub fn new(store: Arc<dyn Store>, rules: Rules) -> Self {
        EncryptedStore(Arc::new(Inner {
            store,
            rules: Mutex::new(Arc::new(rules)),
            unreadable: Mutex::default(),
            reread: watch::Sender::new(0),
        }))
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.0.rules.lock().clone()
    }

    /// Goes on with other rules. When it returns, nothing is being written by the old ones any
    /// more. If they make other values readable than before, every watch ends, so that its
    /// reader begins anew.
    pub async fn set_rules(&self, rules: Rules) -> Result<(), Error> {
        let rules = Arc::new(rules);
        let old = std::mem::replace(&mut *self.0.rules.lock(), rules.clone());
        old.writes.close();
        old.writes.wait().await;
        // Whoever gave up waiting for a write may have left it in the store's queue: this passes
        // through after it.
        self.0.store.commit(Transaction::default()).await?;
        let listing = self.0.store.list(ROOT).await?;
        let readable = |rules: &Rules, item: &KeyValue| rules.open(&item.key, &item.value).is_ok();
        let differs = listing
            .items
            .iter()
            .any(|item| readable(&old, item) != readable(&rules, item));
        if differs {
            self.0.reread.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Writes every value again that is not stored as the rules say now. Returns how many.
    ///
    /// # Errors
    /// Of the store. What was written until then stays.
    pub async fn reencrypt(&self) -> Result<usize, Error> {
        let rules = self.rules();
        let listing = self.0.store.list(ROOT).await?;
        let stale: Vec<Arc<str>> = listing
            .items
            .iter()
            .filter(|item| is_stale(&rules, item))
            .map(|item| item.key.clone())
            .collect();
        drop(listing);
        let count = stale.len();
        stream::iter(stale)
            .map(|key| self.rewrite(key))
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await?;
        Ok(count)
    }

    /// How many values are stored in another way than the rules say now.
    pub(super) async fn stale(&self) -> Result<usize, Error> {
        let rules = self.rules();
        let items = self.0.store.list(ROOT).await?.items;
        Ok(items.iter().filter(|item| is_stale(&rules, item)).count())
    }

    async fn rewrite(&self, key: Arc<str>) -> Result<(), Error> {
        loop {
            let Some(item) = self.0.store.get(&key).await? else {
                return Ok(());
            };
            let (rules, _writing) = self.begin_write();
            let plain = match rules.open(&key, &item.value) {
                Ok(opened) if opened.stale => opened.plain.unwrap_or_else(|| item.value.clone()),
                Ok(_) | Err(_) => return Ok(()),
            };
            let mut transaction = Transaction {
                compares: vec![Compare::ModRevision(key.clone(), item.mod_revision)],
                writes: vec![Write::Put {
                    key: key.clone(),
                    value: plain,
                }],
                ..Transaction::default()
            };
            seal(&rules, &mut transaction)?;
            match self.0.store.commit(transaction).await {
                Ok(_) => return Ok(()),
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The rules to write by, and what tells until when.
    fn begin_write(&self) -> (Arc<Rules>, TaskTrackerToken) {
        let rules = self.0.rules.lock();
        (rules.clone(), rules.writes.token())
    }

    fn open(&self, rules: &Rules, item: Arc<KeyValue>) -> Arc<KeyValue> {
        let read = read(rules, &item);
        match &read {
            Ok(_) => self.readable(&item.key, item.mod_revision),
            Err(reason) => self.0.note(&item, reason),
        }
        match read.unwrap_or_else(|_| Some(Bytes::new())) {
            Some(value) => with_value(item, value),
            None => item,
        }
    }

    fn readable(&self, key: &str, revision: Revision) {
        let mut unreadable = self.0.unreadable.lock();
        if unreadable
            .get(key)
            .is_some_and(|(noted, _)| *noted <= revision)
        {
            unreadable.remove(key);
        }
    }

    /// What was before is not asked for by anyone, so that it is not worth decrypting.
    fn open_event(&self, rules: &Rules, event: Event) -> Event {
        let blank = |item: Arc<KeyValue>| {
            if rules.concern(&item.key) {
                with_value(item, Bytes::new())
            } else {
                item
            }
        };
        match event {
            Event::Put { current, previous } => Event::Put {
                current: self.open(rules, current),
                previous: previous.map(blank),
            },
            Event::Delete { revision, previous } => {
                self.readable(&previous.key, revision);
                Event::Delete {
                    revision,
                    previous: blank(previous),
                }
            }
        }
    }

    fn open_batch(&self, mut batch: WatchBatch) -> WatchBatch {
        if !batch.events.is_empty() {
            let rules = self.rules();
            let events = batch.events.into_iter();
            batch.events = events.map(|event| self.open_event(&rules, event)).collect();
        }
        batch
    }
}

impl Inner {
    fn note(&self, item: &KeyValue, reason: &str) {
        tracing::error!(key = %item.key, reason, "a stored value cannot be read");
        let mut unreadable = self.unreadable.lock();
        unreadable.insert(item.key.clone(), (item.mod_revision, reason.to_owned()));
    }
}

fn with_value(mut item: Arc<KeyValue>, value: Bytes) -> Arc<KeyValue> {
    Arc::make_mut(&mut item).value = value;
    item
}

/// The value as JSON that nobody has encrypted; none where it is stored so.
fn read(rules: &Rules, item: &KeyValue) -> Result<Option<Bytes>, String> {
    let plain = rules.open(&item.key, &item.value)?.plain;
    match stored::canonical(plain.as_ref().unwrap_or(&item.value)) {
        Ok(Some(canonical)) => Ok(Some(canonical.into())),
        Ok(None) => Ok(plain),
        Err(error) => Err(error.to_string()),
    }
}

fn is_stale(rules: &Rules, item: &KeyValue) -> bool {
    rules
        .open(&item.key, &item.value)
        .is_ok_and(|opened| opened.stale)
}

fn seal(rules: &Rules, transaction: &mut Transaction) -> Result<(), Error> {
    for write in &mut transaction.writes {
        if let Write::Put { key, value } = write
            && let Some(sealed) = rules.seal(key, value).map_err(Error::Backend)?
        {
            *value = sealed;
        }
    }
    Ok(())
}

#[async_trait]
impl Store for EncryptedStore {
    async fn revision(&self) -> Result<Revision, Error> {
        self.0.store.revision().await
    }

    async fn get(&self, key: &str) -> Result<Option<Arc<KeyValue>>, Error> {
        let item = self.0.store.get(key).await?;
        Ok(item.map(|item| self.open(&self.rules(), item)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = self.0.store.list(prefix).await?;
        let rules = self.rules();
        let listed = listing.revision;
        self.0
            .unreadable
            .lock()
            .retain(|key, (revision, _)| !key.starts_with(prefix) || *revision > listed);
        let items = listing.items.into_iter();
        listing.items = items.map(|item| self.open(&rules, item)).collect();
        Ok(listing)
    }

    async fn commit(&self, mut transaction: Transaction) -> Result<Revision, Error> {
        let (rules, _writing) = self.begin_write();
        seal(&rules, &mut transaction)?;
        match self.0.store.commit(transaction).await {
            Err(Error::Conflict { key, current }) => {
                let current = current.map(|current| self.open(&rules, current));
                Err(Error::Conflict { key, current })
            }
            committed => committed,
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        let reread = self.0.reread.subscribe();
        let opened = self.0.store.watch(prefix, after).await?;
        let state = (self.clone(), opened, reread);
        Ok(stream::unfold(Some(state), async |state| {
            let (store, mut opened, mut reread) = state?;
            let item = tokio::select! {
                batch = opened.next() => batch?.map(|batch| store.open_batch(batch)),
                _ = reread.changed() => Err(Error::Backend(
                    "the configuration of encryption has changed".to_owned(),
                )),
            };
            let ended = item.is_err();
            Some((item, (!ended).then_some((store, opened, reread))))
        })
        .boxed())
    }

    async fn size(&self) -> Option<u64> {
        self.0.store.size().await
    }

    fn written(&self) -> Vec<Written> {
        self.0.store.written()
    }

    fn unreadable(&self, prefix: &str) -> Vec<Unreadable> {
        let unreadable = self.0.unreadable.lock();
        if unreadable.is_empty() {
            return Vec::new();
        }
        unreadable
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (mod_revision, reason))| Unreadable {
                key: key.clone(),
                mod_revision: *mod_revision,
                reason: reason.clone(),
            })
            .collect()
    }

    async fn is_stale(&self, key: &str) -> Result<bool, Error> {
        let rules = self.rules();
        if !rules.concern(key) {
            return Ok(false);
        }
        let item = self.0.store.get(key).await?;
        Ok(item.is_some_and(|item| is_stale(&rules, &item)))
    }

    async fn close(&self) {
        self.0.store.close().await;
    }
}
