//! The loop around every controller: keys from a queue, a bounded number of workers, retries with
//! backoff.

use std::{future::Future, hash::Hash, time::Duration};

use coracle_client::Queue;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// `namespace/name` of an object; the namespace of a cluster-scoped one is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub fn of(meta: &ObjectMeta) -> Self {
        Key::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What became of the work on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Until something changes.
    Settled,
    /// Look at it again after this long, even when nothing changes.
    Again(Duration),
    /// Too early: look at it again after the backoff.
    Retry,
}

/// Works on the queue's keys with this many workers until the shutdown.
///
/// All workers run inside the returned future: dropping it ends them.
pub(crate) async fn work<K, F>(
    controller: &str,
    queue: &Queue<K>,
    workers: usize,
    shutdown: &CancellationToken,
    sync: impl Fn(K) -> F,
) where
    K: Clone + Eq + Hash + Ord + Send + std::fmt::Display,
    F: Future<Output = Result<Done, Error>>,
{
    let worker = || async {
        loop {
            let key = tokio::select! {
                () = shutdown.cancelled() => return,
                key = queue.next() => key,
            };
            match sync(key.clone()).await {
                Ok(Done::Settled) => queue.forget(&key),
                Ok(Done::Again(delay)) => {
                    queue.forget(&key);
                    queue.add_after(key.clone(), delay);
                }
                Ok(Done::Retry) => queue.retry(key.clone()),
                Err(error) => {
                    if error.is_conflict() {
                        tracing::debug!(controller, %key, %error, "written by somebody else too");
                    } else {
                        tracing::info!(controller, %key, %error, "failed, trying again");
                    }
                    queue.retry(key.clone());
                }
            }
            queue.done(&key);
        }
    };
    futures::future::join_all((0..workers).map(|_| worker())).await;
}
