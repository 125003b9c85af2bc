//! From changes in a cache to keys in a queue.

use std::sync::Arc;

use coracle_client::{Cached, Change, Changes, Informer, Queue};

use crate::{labels::Labels, owner, work::Key};

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
