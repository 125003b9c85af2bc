//! The ConfigMaps and Secrets that the pods of this node refer to, each watched by itself: a node
//! must not see, and need not hold, all those of the cluster.
//!
//! An object is watched from the first pod that refers to it to the last; one that says it is
//! immutable is read once. When an object changes, the pods that refer to it are told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// How long a caller waits for an object to be read for the first time.
const FIRST_READ: Duration = Duration::from_secs(20);

/// What can be watched here.
pub trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Whether the object says that it never changes.
    fn is_immutable(&self) -> bool;
}

impl Watched for ConfigMap {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Watched for Secret {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// Told when an object has changed that its owner refers to.
pub trait Interested: Send + Sync + 'static {
    fn objects_changed(&self);
}

#[derive(Clone, Debug)]
enum State<K> {
    Unread,
    Missing,
    Present(Arc<K>),
    /// The API refuses to give it.
    Refused(String),
}

struct Entry<K> {
    state: watch::Receiver<State<K>>,
    /// By the pod's identity.
    interested: Arc<Mutex<BTreeMap<String, Weak<dyn Interested>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `(namespace, name)`
type Key = (String, String);

/// The watched objects of one kind. Cheap to clone.
pub struct Objects<K> {
    client: Client,
    entries: Arc<Mutex<HashMap<Key, Entry<K>>>>,
}

impl<K> Clone for Objects<K> {
    fn clone(&self) -> Self {
        Objects {
            client: self.client.clone(),
            entries: self.entries.clone(),
        }
    }
}

impl<K: Watched> Objects<K> {
    pub fn new(client: Client) -> Self {
        Objects {
            client,
            entries: Arc::default(),
        }
    }

    /// Makes the pod refer to just these objects of its namespace.
    pub fn refer(
        &self,
        pod_uid: &str,
        namespace: &str,
        names: impl IntoIterator<Item = String>,
        interested: &Weak<dyn Interested>,
    ) {
        let keys: Vec<Key> = names
            .into_iter()
            .map(|name| (namespace.to_owned(), name))
            .collect();
        let mut entries = self.entries.lock();
        entries.retain(|key, entry| {
            let mut pods = entry.interested.lock();
            if !keys.contains(key) {
                pods.remove(pod_uid);
            }
            !pods.is_empty() || keys.contains(key)
        });
        for key in keys {
            let entry = entries
                .entry(key)
                .or_insert_with_key(|(namespace, name)| self.watch(namespace, name));
            let mut pods = entry.interested.lock();
            pods.insert(pod_uid.to_owned(), interested.clone());
        }
    }

    /// The pod refers to nothing any more.
    pub fn forget(&self, pod_uid: &str) {
        let nobody: Weak<dyn Interested> = Weak::<Nobody>::new();
        self.refer(pod_uid, "", std::iter::empty(), &nobody);
    }

    /// The object that some pod refers to; `None` when there is no such object.
    ///
    /// # Errors
    /// When the API does not give it, or nobody refers to it.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, String> {
        let key = (namespace.to_owned(), name.to_owned());
        let state = self
            .entries
            .lock()
            .get(&key)
            .map(|entry| entry.state.clone());
        let Some(mut state) = state else {
            return Err(format!("object {namespace:?}/{name:?} not registered"));
        };
        let read = state.wait_for(|state| !matches!(state, State::Unread));
        let read = match tokio::time::timeout(FIRST_READ, read).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => {
                return Err(format!(
                    "failed to sync {} cache: timed out waiting for the condition",
                    K::kind(&()).to_lowercase()
                ));
            }
        };
        match read {
            State::Present(object) => Ok(Some(object)),
            State::Missing | State::Unread => Ok(None),
            State::Refused(reason) => Err(reason),
        }
    }

    fn watch(&self, namespace: &str, name: &str) -> Entry<K> {
        let interested: Arc<Mutex<BTreeMap<String, Weak<dyn Interested>>>> = Arc::default();
        let (sender, state) = watch::channel(State::Unread);
        let api = Api::namespaced(self.client.clone(), namespace);
        let follow = follow(api, name.to_owned(), sender, interested.clone());
        Entry {
            state,
            interested,
            task: tokio::spawn(follow),
        }
    }
}

struct Nobody;

impl Interested for Nobody {
    fn objects_changed(&self) {}
}

async fn follow<K: Watched>(
    api: Api<K>,
    name: String,
    state: watch::Sender<State<K>>,
    interested: Arc<Mutex<BTreeMap<String, Weak<dyn Interested>>>>,
) {
    let set = |new: State<K>| {
        let first = matches!(*state.borrow(), State::Unread);
        state.send_replace(new);
        // Who asks for the object waits for its first reading.
        if !first {
            let pods: Vec<_> = interested.lock().values().cloned().collect();
            for pod in pods {
                if let Some(pod) = pod.upgrade() {
                    pod.objects_changed();
                }
            }
        }
    };
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, only).default_backoff().into_stream().boxed();
    let mut found = None;
    loop {
        let present = match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => {
                found = None;
                continue;
            }
            Ok(Some(watcher::Event::InitApply(object))) => {
                found = Some(object);
                continue;
            }
            Ok(Some(watcher::Event::InitDone)) => found.take(),
            Ok(Some(watcher::Event::Apply(object))) => Some(object),
            Ok(Some(watcher::Event::Delete(_))) => None,
            Ok(None) => return,
            Err(error) => {
                let unread = matches!(*state.borrow(), State::Unread);
                if unread && let Some(reason) = refusal(&error) {
                    set(State::Refused(reason));
                }
                continue;
            }
        };
        match present {
            Some(object) => {
                let immutable = object.is_immutable();
                set(State::Present(Arc::new(object)));
                if immutable {
                    // Dropping the stream ends the watch; the state stays while it is wanted.
                    drop(events);
                    return state.closed().await;
                }
            }
            None => set(State::Missing),
        }
    }
}

/// What the API says of a request that it will not answer otherwise next time.
fn refusal(error: &watcher::Error) -> Option<String> {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchFailed(error)) = error
    else {
        return None;
    };
    match error {
        kube::Error::Api(status) if (400..500).contains(&status.code) => {
            Some(status.message.clone())
        }
        _ => None,
    }
}
