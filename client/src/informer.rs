//! Informers: for each kind one watch and one cache, shared by every component of the process.
//!
//! An [`Informer`] is a handle to that cache. The cache has one writer, the watch; objects are
//! shared by `Arc` and never cloned. Subscribers learn of changes through a bounded channel;
//! one that falls behind gets [`Change::Lagged`] and must look at the whole cache again.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

/// Changes a subscriber may fall behind before it is told [`Change::Lagged`].
const SUBSCRIBER_CAPACITY: usize = 1024;

/// What happened to an object in the cache.
#[derive(Debug)]
pub enum Change<K> {
    /// The object was added (`old` is `None`) or modified.
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    /// The object is gone; this is how it last stood.
    Deleted(Arc<K>),
    /// Changes were missed: look at the whole cache.
    Lagged,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Change::Applied { old, new } => Change::Applied {
                old: old.clone(),
                new: new.clone(),
            },
            Change::Deleted(object) => Change::Deleted(object.clone()),
            Change::Lagged => Change::Lagged,
        }
    }
}

/// The changes since the subscription, in order.
pub struct Changes<K>(broadcast::Receiver<Change<K>>);

impl<K> Changes<K> {
    /// The next change; `None` when the informer has ended.
    pub async fn next(&mut self) -> Option<Change<K>> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Lagged),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// What can be kept in an informer: every `k8s-openapi` kind.
pub trait Cached:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Cached for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// All informers of the process. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    started: Arc<Mutex<HashMap<TypeId, Started>>>,
}

struct Started {
    informer: Box<dyn Any + Send>,
    task: tokio::task::AbortHandle,
}

impl Informers {
    /// Nothing is watched until [`Informers::get`] asks for it.
    pub fn new(client: Client) -> Self {
        Informers {
            client,
            started: Arc::default(),
        }
    }

    /// The cache of `K`, watched from the first call on.
    pub fn get<K: Cached>(&self) -> Informer<K> {
        let mut started = self.started.lock();
        let entry = started.entry(TypeId::of::<K>()).or_insert_with(|| {
            let informer = Informer::<K>::new();
            let task = tokio::spawn(run(Api::all(self.client.clone()), informer.clone()));
            Started {
                informer: Box::new(informer),
                task: task.abort_handle(),
            }
        });
        entry
            .informer
            .downcast_ref::<Informer<K>>()
            .expect("the entry under a type's id is of that type")
            .clone()
    }

    /// Ends every watch. The caches stay readable.
    pub fn stop(&self) {
        for started in self.started.lock().values() {
            started.task.abort();
        }
    }
}

/// `(namespace, name)`; the namespace of a cluster-scoped object is empty.
type Key = (String, String);

struct Shared<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    changes: broadcast::Sender<Change<K>>,
    synced: watch::Sender<bool>,
}

/// A handle to the cache of one kind. Cheap to clone.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer {
            shared: self.shared.clone(),
        }
    }
}

impl<K: Cached> Informer<K> {
    fn new() -> Self {
        Informer {
            shared: Arc::new(Shared {
                objects: RwLock::default(),
                changes: broadcast::channel(SUBSCRIBER_CAPACITY).0,
                synced: watch::channel(false).0,
            }),
        }
    }

    /// The object, if it exists. `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared
            .objects
            .read()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Every object, in order of namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.objects.read().values().cloned().collect()
    }

    /// The objects of one namespace, in order of name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared
            .objects
            .read()
            .range((namespace.to_owned(), String::new())..)
            .take_while(|((of, _), _)| of == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.shared.objects.read().len()
    }

    /// Whether the cache holds no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns once the cache has been filled for the first time.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `self.shared`, so the wait cannot fail.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Changes from now on. Subscribe first, then list: nothing is missed.
    pub fn subscribe(&self) -> Changes<K> {
        Changes(self.shared.changes.subscribe())
    }

    fn apply(&self, object: K) {
        let new = Arc::new(object);
        let old = self.shared.objects.write().insert(key(&*new), new.clone());
        let _ = self.shared.changes.send(Change::Applied { old, new });
    }

    fn delete(&self, object: &K) {
        if let Some(old) = self.shared.objects.write().remove(&key(object)) {
            let _ = self.shared.changes.send(Change::Deleted(old));
        }
    }

    /// After a re-list: what is not in `listed` has been deleted meanwhile.
    fn replace(&self, listed: BTreeMap<Key, K>) {
        let gone: Vec<Arc<K>> = {
            let objects = self.shared.objects.read();
            objects
                .iter()
                .filter(|(key, _)| !listed.contains_key(*key))
                .map(|(_, object)| object.clone())
                .collect()
        };
        for object in gone {
            self.delete(&object);
        }
        for (key, object) in listed {
            let unchanged = self.shared.objects.read().get(&key).is_some_and(|known| {
                known.meta().resource_version == object.meta().resource_version
            });
            if !unchanged {
                self.apply(object);
            }
        }
        self.shared.synced.send_replace(true);
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

async fn run<K: Cached>(api: Api<K>, informer: Informer<K>) {
    let mut listed = BTreeMap::new();
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .into_stream()
        .boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed.clear(),
            Ok(Some(watcher::Event::InitApply(object))) => {
                listed.insert(key(&object), object);
            }
            Ok(Some(watcher::Event::InitDone)) => informer.replace(std::mem::take(&mut listed)),
            Ok(Some(watcher::Event::Apply(object))) => informer.apply(object),
            Ok(Some(watcher::Event::Delete(object))) => informer.delete(&object),
            Ok(None) => return,
            Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch failed, retrying"),
        }
    }
}
