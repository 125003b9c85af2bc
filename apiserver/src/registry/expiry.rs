//! Objects that go by themselves: Events, an hour after they were last written.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use coracle_store::{Compare, Error, Revision, Store, Transaction, Write};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Cache, Watcher},
    selector::Filter,
};

/// Keys in the order in which they were written.
struct Queue {
    written: VecDeque<Written>,
    ttl: Duration,
}

struct Written {
    at: Instant,
    key: Arc<str>,
    revision: Revision,
}

impl Queue {
    fn push(&mut self, key: Arc<str>, revision: Revision) {
        self.written.push_back(Written {
            at: Instant::now(),
            key,
            revision,
        });
    }

    /// When the first of them is over.
    fn next(&self) -> Option<Instant> {
        self.written.front().map(|written| written.at + self.ttl)
    }

    fn pop_expired(&mut self) -> Option<Written> {
        let expired = self.next()? <= Instant::now();
        expired.then(|| self.written.pop_front())?
    }
}

/// Deletes the objects of a resource `ttl` after their last write, until `shutdown`. Those that
/// are there at the start get the whole time again.
pub async fn run(
    store: &dyn Store,
    cache: &Arc<Cache>,
    ttl: Duration,
    shutdown: CancellationToken,
) {
    let mut queue = Queue {
        written: VecDeque::new(),
        ttl,
    };
    while !shutdown.is_cancelled() {
        let (objects, mut watcher) = cache.watch_from_now(Arc::new(Filter::all(cache)));
        queue.written.clear();
        for entry in objects.values() {
            queue.push(entry.key().clone(), entry.revision);
        }
        drop(objects);
        follow(store, cache, &mut queue, &mut watcher, &shutdown).await;
    }
}

/// Returns when the watcher was left behind.
async fn follow(
    store: &dyn Store,
    cache: &Cache,
    queue: &mut Queue,
    watcher: &mut Watcher,
    shutdown: &CancellationToken,
) {
    loop {
        let next = queue.next();
        tokio::select! {
            () = shutdown.cancelled() => return,
            events = watcher.next() => {
                let Ok(events) = events else {
                    return;
                };
                for event in events {
                    queue.push(event.entry.key().clone(), event.revision);
                }
            }
            () = wait_until(next) => {
                while let Some(written) = queue.pop_expired() {
                    expire(store, cache, &written).await;
                }
            }
        }
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Deletes the key, unless it was written again since.
async fn expire(store: &dyn Store, cache: &Cache, written: &Written) {
    let current = cache.get(&written.key);
    if current.is_none_or(|entry| entry.revision != written.revision) {
        return;
    }
    let deletion = Transaction {
        compares: vec![Compare::ModRevision(written.key.clone(), written.revision)],
        writes: vec![Write::Delete {
            key: written.key.clone(),
        }],
        ..Transaction::default()
    };
    match store.commit(deletion).await {
        Ok(_) | Err(Error::Conflict { .. }) => {}
        Err(error) => tracing::warn!(key = %written.key, %error, "cannot expire"),
    }
}
