//! Watches of the metadata of everything that can be deleted. Which kinds those are is discovered,
//! and again whenever a CRD or an APIService changes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DynamicObject, ListParams, PartialObjectMeta, WatchEvent, WatchParams},
    core::ApiResource,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    Collector,
    graph::Seen,
    node::{Identity, Kind, Owner},
    uid::Uid,
};
use crate::{
    context::Removed,
    discovery::{self, Served},
};

/// Objects asked for at a time when listing.
const PAGE: u32 = 500;
const WATCH_SECONDS: u32 = 290;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// A new kind is served a moment after its definition has changed; it is looked for twice.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(3);
/// Without any sign of a change.
const REFRESH: Duration = Duration::from_secs(600);
/// How long collecting waits for kinds that cannot be listed.
const PATIENCE: Duration = Duration::from_secs(30);

/// All watches. They end when this is dropped.
pub(super) struct Watches {
    collector: Arc<Collector>,
    synced: watch::Sender<bool>,
}

struct Running {
    task: AbortHandle,
    synced: watch::Receiver<bool>,
}

impl Watches {
    pub fn new(collector: Arc<Collector>) -> Self {
        Watches {
            collector,
            synced: watch::channel(false).0,
        }
    }

    /// Returns once the graph shows everything that was there at the start.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Keeps one watch running for each kind that discovery finds.
    pub async fn run(&self) {
        let mut tasks = JoinSet::new();
        let mut running: HashMap<ApiResource, Running> = HashMap::new();
        let mut delay = FIRST_DELAY;
        let mut next = REFRESH;
        loop {
            match discovery::discover(&self.collector.client).await {
                Ok(found) => {
                    delay = FIRST_DELAY;
                    self.follow(found, &mut running, &mut tasks);
                    if !*self.synced.borrow() {
                        let all = running.values_mut().map(|one| async {
                            let _ = one.synced.wait_for(|synced| *synced).await.is_ok();
                        });
                        let all = futures::future::join_all(all);
                        if tokio::time::timeout(PATIENCE, all).await.is_err() {
                            tracing::info!(
                                "not every kind can be watched, collecting nevertheless"
                            );
                        }
                        self.synced.send_replace(true);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot discover what the API serves, retrying");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(MAX_DELAY);
                    continue;
                }
            }
            tokio::select! {
                () = self.collector.rediscover.notified() => {
                    tokio::time::sleep(SOON).await;
                    next = LATER;
                }
                () = tokio::time::sleep(next) => next = REFRESH,
            }
            while tasks.try_join_next().is_some() {}
        }
    }

    fn follow(
        &self,
        found: discovery::Discovered,
        running: &mut HashMap<ApiResource, Running>,
        tasks: &mut JoinSet<()>,
    ) {
        let collectable: HashSet<ApiResource> = found
            .served
            .iter()
            .filter(|served| is_collected(served))
            .map(|served| served.resource.clone())
            .collect();
        // A group that cannot answer keeps its watches.
        let failed = |resource: &ApiResource| {
            let prefix = format!("{}:", resource.api_version);
            found
                .failed
                .iter()
                .any(|failed| failed.starts_with(&prefix))
        };
        let former = std::mem::take(running);
        for (resource, one) in former {
            if collectable.contains(&resource) || failed(&resource) {
                running.insert(resource, one);
            } else {
                one.task.abort();
                self.collector.forget(&resource);
            }
        }
        let mut served = self.collector.served.lock();
        if found.failed.is_empty() {
            served.clear();
        }
        for one in found.served {
            let kind = Kind {
                api_version: one.resource.api_version.clone(),
                kind: one.resource.kind.clone(),
            };
            if is_collected(&one) && !running.contains_key(&one.resource) {
                let (sender, synced) = watch::channel(false);
                let task = tasks.spawn(watch(self.collector.clone(), one.clone(), sender));
                running.insert(one.resource.clone(), Running { task, synced });
            }
            served.insert(kind, one);
        }
    }
}

/// Events own nothing and nobody owns them.
fn is_collected(served: &Served) -> bool {
    let resource = &served.resource;
    let is_event = resource.plural == "events"
        && (resource.group.is_empty() || resource.group == "events.k8s.io");
    served.preferred
        && !is_event
        && ["delete", "list", "watch"]
            .iter()
            .all(|verb| served.can(verb))
}

async fn watch(collector: Arc<Collector>, served: Served, synced: watch::Sender<bool>) {
    let watcher = Watcher {
        api: served.api(&collector.client, ""),
        kind: {
            let resource = &served.resource;
            collector
                .graph
                .lock()
                .kind(&resource.api_version, &resource.kind)
        },
        served,
        collector,
    };
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        let ended = match Box::pin(watcher.list()).await {
            Ok(version) => {
                synced.send_replace(true);
                Box::pin(watcher.follow(version)).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(resource = watcher.served.resource.plural, %error, "watch failed");
        }
        if started.elapsed() > MAX_DELAY {
            delay = FIRST_DELAY;
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(MAX_DELAY);
    }
}

struct Watcher {
    collector: Arc<Collector>,
    served: Served,
    kind: Arc<Kind>,
    api: Api<DynamicObject>,
}

type Metadata = PartialObjectMeta<DynamicObject>;

impl Watcher {
    /// Takes everything in, and out what is not there any more. Returns the version of that.
    async fn list(&self) -> Result<String, kube::Error> {
        let mut params = ListParams::default().limit(PAGE);
        let known = self.collector.graph.lock().observed(&self.kind);
        let mut gone: HashSet<_> = known.into_iter().collect();
        loop {
            let page = self.api.list_metadata(&params).await?;
            for object in &page.items {
                let uid = object.metadata.uid.as_deref().unwrap_or_default();
                gone.remove(&Uid::from(uid));
                self.apply(object);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => {
                    for uid in gone {
                        let view = self.collector.graph.lock().view(&uid);
                        if let Some(view) = view {
                            self.removed(&view.identity);
                        }
                    }
                    return Ok(page.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    /// Ends well when a list is needed again.
    async fn follow(&self, mut version: String) -> Result<(), kube::Error> {
        loop {
            let started = Instant::now();
            match self.follow_once(&mut version).await {
                Err(kube::Error::Api(status)) if status.code == 410 => return Ok(()),
                other => other?,
            }
            if started.elapsed() < Duration::from_secs(1) {
                tokio::time::sleep(FIRST_DELAY).await;
            }
        }
    }

    async fn follow_once(&self, version: &mut String) -> Result<(), kube::Error> {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let mut events = self.api.watch_metadata(&params, version).await?.boxed();
        loop {
            let patience = Duration::from_secs(u64::from(WATCH_SECONDS) + 5);
            let next = tokio::time::timeout(patience, events.try_next()).await;
            let Some(event) = next.unwrap_or(Ok(None))? else {
                return Ok(());
            };
            let reached = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.apply(&object);
                    object.resource_version()
                }
                WatchEvent::Deleted(object) => {
                    self.removed(&self.identity(&object));
                    object.resource_version()
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            };
            if let Some(reached) = reached {
                *version = reached;
            }
        }
    }

    fn identity(&self, object: &Metadata) -> Identity {
        let meta = object.meta();
        Identity {
            kind: self.kind.clone(),
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
        }
    }

    fn apply(&self, object: &Metadata) {
        let identity = self.identity(object);
        let finalizers = object.finalizers();
        let has = |wanted: &str| finalizers.iter().any(|finalizer| finalizer == wanted);
        let mut graph = self.collector.graph.lock();
        let owners = object.owner_references().iter();
        let owners = owners
            .map(|owner| Owner {
                kind: graph.kind(&owner.api_version, &owner.kind),
                name: owner.name.as_str().into(),
                uid: owner.uid.as_str().into(),
                blocks: owner.block_owner_deletion == Some(true),
            })
            .collect();
        let effects = graph.observe(&Seen {
            identity,
            owners,
            deleted: object.metadata.deletion_timestamp.is_some(),
            foreground: has("foregroundDeletion"),
            orphan: has("orphan"),
        });
        drop(graph);
        self.collector.take(effects);
        self.note_definition();
    }

    fn removed(&self, identity: &Identity) {
        let effects = self.collector.graph.lock().removed(identity);
        self.collector.take(effects);
        self.collector.context.tell_removal(Removed {
            namespace: identity.namespace.to_string(),
        });
        self.note_definition();
    }

    fn note_definition(&self) {
        if matches!(
            self.served.resource.plural.as_str(),
            "customresourcedefinitions" | "apiservices"
        ) {
            self.collector.rediscover.notify_one();
        }
    }
}

impl Collector {
    /// The kind is not served any more: what was seen of it is gone.
    fn forget(&self, resource: &ApiResource) {
        let mut graph = self.graph.lock();
        let kind = graph.kind(&resource.api_version, &resource.kind);
        let mut effects = Vec::new();
        for uid in graph.observed(&kind) {
            if let Some(view) = graph.view(&uid) {
                effects.extend(graph.removed(&view.identity));
            }
        }
        drop(graph);
        self.take(effects);
    }
}
