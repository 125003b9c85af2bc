//! From changes in a cache to keys in a queue, and to the work on them.
//!
//! A controller of one kind is [`follow`] and what it does to an object; one of several kinds puts
//! the same together from [`each`] and [`work::work`].

use std::{future::Future, sync::Arc};

use coracle_client::{Cached, Change, Changes, Informer, Queue};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    labels::Labels,
    owner,
    work::{self, Done, Key},
};

/// What a change means to a controller.
pub(crate) enum Seen<K> {
    /// Added (`old` is `None`), modified, or found when the controller started.
    Applied {
        old: Option<Arc<K>>,
        new: Arc<K>,
    },
    Deleted(Arc<K>),
    /// Changes were missed: queue everything that this kind could have to do with.
    Lagged,
}

/// Waits for the cache, then calls `on` for each object in it and for each change from then on.
///
/// An object that is replaced by another of the same name between two events is seen as deleted
/// and then as added.
pub(crate) async fn each<K: Cached>(informer: &Informer<K>, mut on: impl FnMut(Seen<K>)) {
    let mut changes: Changes<K> = informer.subscribe();
    informer.synced().await;
    for object in informer.list() {
        on(Seen::Applied {
            old: None,
            new: object,
        });
    }
    while let Some(change) = changes.next().await {
        match change {
            Change::Applied { old, new } => {
                let replaced = old
                    .as_ref()
                    .is_some_and(|old| old.meta().uid != new.meta().uid);
                match old {
                    Some(old) if replaced => {
                        on(Seen::Deleted(old));
                        on(Seen::Applied { old: None, new });
                    }
                    old => on(Seen::Applied { old, new }),
                }
            }
            Change::Deleted(object) => on(Seen::Deleted(object)),
            Change::Lagged => {
                for object in informer.list() {
                    on(Seen::Applied {
                        old: None,
                        new: object,
                    });
                }
                on(Seen::Lagged);
            }
        }
    }
}

/// How a controller that follows one kind works.
pub(crate) struct Pace {
    /// The controller, as it logs.
    pub name: &'static str,
    /// The queue, as it is counted.
    pub queue: &'static str,
    pub workers: usize,
}

/// Queues what `see` says of each object of the cache and of each change, and works on the queue's
/// keys until the shutdown. Dropping the future ends it all.
pub(crate) async fn follow<K: Cached, F>(
    pace: Pace,
    cache: &Informer<K>,
    shutdown: &CancellationToken,
    mut see: impl FnMut(&Queue<Key>, Seen<K>),
    sync: impl Fn(Key) -> F,
) where
    F: Future<Output = Result<Done, Error>>,
{
    let queue: Queue<Key> = Queue::named(pace.queue);
    let seen = each(cache, |seen| see(&queue, seen));
    let workers = async {
        cache.synced().await;
        work::work(pace.name, &queue, pace.workers, shutdown, sync).await;
    };
    tokio::select! {
        () = seen => {}
        () = workers => {}
        () = shutdown.cancelled() => {}
    }
}

/// Queues an object that is there, whatever has changed.
pub(crate) fn applied<K: Cached>(queue: &Queue<Key>, seen: Seen<K>) {
    if let Seen::Applied { new, .. } = seen {
        queue.add(Key::of(new.meta()));
    }
}

/// Queues the owner of what changed, the one before too when it has another now; for what has no
/// owner and may find one, all that select it.
pub(crate) fn queue_owners<O: Cached, K: Cached>(
    queue: &Queue<Key>,
    owners: &Informer<O>,
    seen: Seen<K>,
    selects: impl Fn(&O, Option<&Labels>) -> bool,
) {
    let queue_owner = |object: &K| {
        if let Some(owner) = owner::resolve(owners, object.meta()) {
            queue.add(Key::of(owner.meta()));
        }
    };
    match seen {
        Seen::Applied { old, new } => {
            let (old, meta) = (old.as_ref().map(|old| old.meta()), new.meta());
            if let Some(old) = old
                && owner::controller_of(old) != owner::controller_of(meta)
                && let Some(owner) = owner::resolve(owners, old)
            {
                queue.add(Key::of(owner.meta()));
            }
            if owner::controller_of(meta).is_some() {
                queue_owner(&new);
            } else if old.is_none_or(|old| {
                old.labels != meta.labels || old.owner_references != meta.owner_references
            }) {
                let namespace = meta.namespace.as_deref().unwrap_or_default();
                for owner in owners.list_namespace(namespace) {
                    if selects(&owner, meta.labels.as_ref()) {
                        queue.add(Key::of(owner.meta()));
                    }
                }
            }
        }
        Seen::Deleted(object) => queue_owner(&object),
        Seen::Lagged => {
            for owner in owners.list() {
                queue.add(Key::of(owner.meta()));
            }
        }
    }
}
