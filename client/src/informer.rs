//! Informers: for each kind one watch and one cache, shared by every component of the process.
//!
//! An [`Informer`] is a handle to that cache. The cache has one writer, the watch; objects are
//! shared by `Arc` and never cloned. Subscribers learn of changes through a bounded channel;
//! one that falls behind gets [`Change::Lagged`] and must look at the whole cache again.
//!
//! The cache knows which resource version it has reached, so a component that has written can wait
//! with [`Informer::reached`] until it reads its own write. `metadata.managedFields` is not kept.

mod source;

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
};

use kube::{Api, Client, Resource, ResourceExt as _};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

use source::Source;

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
    started: Arc<Mutex<HashMap<(TypeId, String), Started>>>,
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
        self.matching("")
    }

    /// The cache of those objects of `K` that this field selector selects, for example
    /// `metadata.name=kube-root-ca.crt`.
    pub fn matching<K: Cached>(&self, fields: &str) -> Informer<K> {
        let mut started = self.started.lock();
        let key = (TypeId::of::<K>(), fields.to_owned());
        let entry = started.entry(key).or_insert_with(|| {
            let informer = Informer::<K>::new();
            let source = Source {
                api: Api::all(self.client.clone()),
                fields: (!fields.is_empty()).then(|| fields.to_owned()),
            };
            let task = tokio::spawn(source::run(source, informer.clone()));
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
    cache: RwLock<Cache<K>>,
    changes: broadcast::Sender<Change<K>>,
    synced: watch::Sender<bool>,
    /// The resource version that the cache has reached.
    version: watch::Sender<u64>,
}

struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Keys by the uid of the controller, kept from the first [`Informer::controlled_by`] on.
    by_controller: Option<HashMap<String, BTreeSet<Key>>>,
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
                cache: RwLock::new(Cache {
                    objects: BTreeMap::new(),
                    by_controller: None,
                }),
                changes: broadcast::channel(SUBSCRIBER_CAPACITY).0,
                synced: watch::channel(false).0,
                version: watch::channel(0).0,
            }),
        }
    }

    /// The object, if it exists. `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared
            .cache
            .read()
            .objects
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Every object, in order of namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.cache.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, in order of name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared
            .cache
            .read()
            .objects
            .range((namespace.to_owned(), String::new())..)
            .take_while(|((of, _), _)| of == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects whose controlling owner has this uid, in order of namespace and name. With an
    /// empty uid, the objects that have no controller.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        if let Some(found) = self.shared.cache.read().controlled_by(uid) {
            return found;
        }
        let mut cache = self.shared.cache.write();
        cache.index();
        cache.controlled_by(uid).unwrap_or_default()
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.shared.cache.read().objects.len()
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

    /// Returns once the cache shows everything up to `resource_version`: what the caller wrote at
    /// that version, it reads from then on. Returns at once when it is not a number.
    ///
    /// Waits for as long as the API cannot be watched.
    pub async fn reached(&self, resource_version: &str) {
        let Ok(wanted) = resource_version.parse::<u64>() else {
            return;
        };
        let mut version = self.shared.version.subscribe();
        let _ = version.wait_for(|version| *version >= wanted).await;
    }

    /// Returns once `holds` does. It is asked now, and again after every change of the cache.
    pub async fn wait_for(&self, mut holds: impl FnMut(&Self) -> bool) {
        let mut version = self.shared.version.subscribe();
        while !holds(self) {
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    /// Changes from now on. Subscribe first, then list: nothing is missed.
    pub fn subscribe(&self) -> Changes<K> {
        Changes(self.shared.changes.subscribe())
    }

    fn apply(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let new = Arc::new(object);
        let old = self.shared.cache.write().insert(new.clone());
        let _ = self.shared.changes.send(Change::Applied { old, new });
    }

    fn delete(&self, key: &Key) {
        let old = self.shared.cache.write().remove(key);
        if let Some(old) = old {
            let _ = self.shared.changes.send(Change::Deleted(old));
        }
    }

    /// After a re-list: what is not in `listed` has been deleted meanwhile.
    fn replace(&self, listed: BTreeMap<Key, K>) {
        let gone: Vec<Key> = {
            let cache = self.shared.cache.read();
            let keys = cache.objects.keys();
            keys.filter(|key| !listed.contains_key(*key))
                .cloned()
                .collect()
        };
        for key in &gone {
            self.delete(key);
        }
        for (key, object) in listed {
            let unchanged = self
                .shared
                .cache
                .read()
                .objects
                .get(&key)
                .is_some_and(|known| {
                    known.meta().resource_version == object.meta().resource_version
                });
            if !unchanged {
                self.apply(object);
            }
        }
    }

    fn advance(&self, resource_version: Option<&str>) {
        if let Some(reached) = resource_version.and_then(|version| version.parse::<u64>().ok()) {
            self.shared
                .version
                .send_modify(|version| *version = reached.max(*version));
        }
    }
}

impl<K: Cached> Cache<K> {
    fn insert(&mut self, new: Arc<K>) -> Option<Arc<K>> {
        let key = key(&*new);
        let controller = controller_uid(&*new).to_owned();
        let old = self.objects.insert(key.clone(), new);
        if let Some(index) = &mut self.by_controller {
            if let Some(old) = &old
                && controller_uid(&**old) != controller
            {
                unindex(index, controller_uid(&**old), &key);
            }
            index.entry(controller).or_default().insert(key);
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        if let Some(index) = &mut self.by_controller {
            unindex(index, controller_uid(&*old), key);
        }
        Some(old)
    }

    fn index(&mut self) {
        let mut index: HashMap<String, BTreeSet<Key>> = HashMap::new();
        for (key, object) in &self.objects {
            let controller = controller_uid(&**object).to_owned();
            index.entry(controller).or_default().insert(key.clone());
        }
        self.by_controller = Some(index);
    }

    fn controlled_by(&self, uid: &str) -> Option<Vec<Arc<K>>> {
        let keys = self.by_controller.as_ref()?.get(uid);
        let keys = keys.into_iter().flatten();
        Some(
            keys.filter_map(|key| self.objects.get(key).cloned())
                .collect(),
        )
    }
}

fn unindex(index: &mut HashMap<String, BTreeSet<Key>>, uid: &str, key: &Key) {
    if let Some(keys) = index.get_mut(uid) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(uid);
        }
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The uid of the owner that controls the object; empty when none does.
fn controller_uid<K: Resource>(object: &K) -> &str {
    let owners = object.meta().owner_references.iter().flatten();
    owners
        .filter(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::ConfigMap,
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    };

    use super::*;

    fn object(name: &str, version: &str, controller: &str) -> ConfigMap {
        let owner = OwnerReference {
            uid: controller.to_owned(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("default".to_owned()),
                resource_version: Some(version.to_owned()),
                owner_references: (!controller.is_empty()).then(|| vec![owner]),
                managed_fields: Some(Vec::new()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn names(objects: &[Arc<ConfigMap>]) -> Vec<String> {
        objects.iter().map(|object| object.name_any()).collect()
    }

    #[test]
    fn the_index_of_controllers_follows_the_cache() {
        let informer = Informer::new();
        informer.apply(object("a", "1", "x"));
        informer.apply(object("b", "2", ""));
        assert_eq!(names(&informer.controlled_by("x")), ["a"]);
        informer.apply(object("b", "3", "x"));
        informer.apply(object("c", "4", "x"));
        assert_eq!(names(&informer.controlled_by("x")), ["a", "b", "c"]);
        assert!(informer.controlled_by("").is_empty());
        informer.apply(object("a", "5", ""));
        informer.delete(&("default".to_owned(), "c".to_owned()));
        assert_eq!(names(&informer.controlled_by("x")), ["b"]);
        assert_eq!(names(&informer.controlled_by("")), ["a"]);
        let kept = informer.get("default", "a").expect("it is cached");
        assert_eq!(kept.metadata.managed_fields, None);
    }

    #[test]
    fn a_list_replaces_what_was_known_and_tells_only_the_difference() {
        let informer = Informer::new();
        informer.apply(object("gone", "1", ""));
        informer.apply(object("same", "2", ""));
        let mut changes = informer.subscribe();
        let listed = [object("same", "2", ""), object("new", "4", "")];
        informer.replace(listed.into_iter().map(|o| (key(&o), o)).collect());
        let mut seen = Vec::new();
        while let Ok(change) = changes.0.try_recv() {
            seen.push(match change {
                Change::Applied { new, .. } => format!("+{}", new.name_any()),
                Change::Deleted(old) => format!("-{}", old.name_any()),
                Change::Lagged => "lagged".to_owned(),
            });
        }
        assert_eq!(seen, ["-gone", "+new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_until_the_cache_shows_its_write() {
        let informer = Informer::<ConfigMap>::new();
        informer.advance(Some("9"));
        let wait = informer.reached("10");
        tokio::pin!(wait);
        assert!(futures::poll!(wait.as_mut()).is_pending());
        informer.advance(Some("12"));
        wait.await;
        informer.reached("not-a-number").await;
    }
}
