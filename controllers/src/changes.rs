//! From changes in a cache to keys in a queue.

use std::sync::Arc;

use coracle_client::{Cached, Change, Changes, Informer};

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
