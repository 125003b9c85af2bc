//! Where an informer's objects come from: a list, and the watch that goes on from there.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};

use super::{Cached, Informer, key};

/// Objects asked for at a time when listing.
const PAGE: u32 = 500;
/// How long the server keeps one watch request open.
const WATCH_SECONDS: u32 = 290;
/// Between attempts while the API cannot be reached.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// What an informer watches.
pub(super) struct Source<K> {
    pub api: Api<K>,
    pub fields: Option<String>,
}

/// Keeps the cache in line with the server, for ever.
pub(super) async fn run<K: Cached>(source: Source<K>, informer: Informer<K>) {
    let mut delay = FIRST_DELAY;
    loop {
        match list(&source, &informer).await {
            Ok(version) => {
                delay = FIRST_DELAY;
                follow(&source, &informer, version).await;
            }
            Err(error) => {
                tracing::debug!(kind = %K::kind(&()), %error, "cannot list, retrying");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_DELAY);
            }
        }
    }
}

/// Fills the cache with what is there now; returns the version of that.
async fn list<K: Cached>(
    source: &Source<K>,
    informer: &Informer<K>,
) -> Result<String, kube::Error> {
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector.clone_from(&source.fields);
    let mut listed = BTreeMap::new();
    loop {
        let page = source.api.list(&params).await?;
        listed.extend(page.items.into_iter().map(|object| (key(&object), object)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => {
                informer.replace(listed);
                let version = page.metadata.resource_version.unwrap_or_default();
                informer.advance(Some(&version));
                informer.shared.synced.send_replace(true);
                return Ok(version);
            }
        }
    }
}

/// Applies the changes after `version`. Returns when the history is lost and a list is needed.
async fn follow<K: Cached>(source: &Source<K>, informer: &Informer<K>, mut version: String) {
    let mut delay = FIRST_DELAY;
    loop {
        let started = tokio::time::Instant::now();
        if let Err(error) = watch_once(source, informer, &mut version).await {
            if matches!(&error, kube::Error::Api(status) if status.code == 410) {
                return;
            }
            tracing::warn!(kind = %K::kind(&()), %error, "watch failed, trying again");
        }
        // A server that ends watches as soon as they start is not asked in a tight loop.
        if started.elapsed() > MAX_DELAY {
            delay = FIRST_DELAY;
        } else {
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }
}

/// One watch request: ends well when the server ends it.
async fn watch_once<K: Cached>(
    source: &Source<K>,
    informer: &Informer<K>,
    version: &mut String,
) -> Result<(), kube::Error> {
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.field_selector.clone_from(&source.fields);
    let mut events = source.api.watch(&params, version).await?.boxed();
    loop {
        // A connection that died silently ends no stream.
        let patience = Duration::from_secs(u64::from(WATCH_SECONDS) + 5);
        let next = tokio::time::timeout(patience, events.try_next()).await;
        let Some(event) = next.unwrap_or(Ok(None))? else {
            return Ok(());
        };
        let reached = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let reached = object.resource_version();
                informer.apply(object);
                reached
            }
            WatchEvent::Deleted(object) => {
                let reached = object.resource_version();
                informer.delete(&key(&object));
                reached
            }
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        };
        informer.advance(reached.as_deref());
        if let Some(reached) = reached {
            *version = reached;
        }
    }
}
