//! Watches in etcd: they survive lost connections, and get to every revision that
//! [`Store::revision`](crate::Store::revision) has told.
//!
//! Etcd says nothing to a watch about keys outside its prefix, yet they take revisions too. So a
//! watch that stays behind what someone was told asks etcd how far it is.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::sync::watch::Receiver;
use tonic::Code;

use super::{
    Shared,
    convert::{backend, key_value, prefix_end, prefix_start, revision_of},
    current,
    rpc::{self, Client, RangeRequest, WatchCreateRequest, WatchResponse, WatchStream},
};
use crate::{Error, Event, Revision, Watch, WatchBatch};

/// How long events get to arrive by themselves before etcd is asked for progress.
const PROGRESS_AFTER: Duration = Duration::from_millis(50);
/// The pause before a lost connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);

pub(super) async fn watch(
    client: Client,
    shared: Arc<Shared>,
    prefix: &str,
    after: Revision,
) -> Result<Watch, Error> {
    check(&client, after).await?;
    let mut watcher = Watcher {
        client,
        told: shared.told.subscribe(),
        shared,
        prefix: prefix.to_owned(),
        position: after,
        connection: None,
    };
    watcher.connect().await?;
    Ok(stream::unfold(Some(watcher), async |watcher| {
        let mut watcher = watcher?;
        let shared = watcher.shared.clone();
        let item = tokio::select! {
            item = watcher.next() => item,
            () = shared.closed.cancelled() => Err(Error::Closed),
        };
        let ended = item.is_err();
        Some((item, (!ended).then_some(watcher)))
    })
    .boxed())
}

/// Refuses what etcd would only refuse later, or wait for.
async fn check(client: &Client, after: Revision) -> Result<(), Error> {
    let now = current(client).await?;
    if after > now {
        return Err(Error::Future {
            requested: after,
            current: now,
        });
    }
    if after == now || is_kept(client, after).await? {
        return Ok(());
    }
    Err(Error::Compacted {
        requested: after,
        oldest: oldest(client, after, now).await?,
    })
}

/// Whether a watch after this revision can be served.
async fn is_kept(client: &Client, after: Revision) -> Result<bool, Error> {
    let request = RangeRequest {
        key: vec![0],
        revision: (after + 1).cast_signed(),
        count_only: true,
        ..RangeRequest::default()
    };
    match client.range(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::OutOfRange => Ok(false),
        Err(status) => Err(backend(&status)),
    }
}

/// The oldest revision that can be watched from. Etcd does not tell, so it is searched for.
async fn oldest(client: &Client, compacted: Revision, now: Revision) -> Result<Revision, Error> {
    let (mut low, mut high) = (compacted, now);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if is_kept(client, middle).await? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

struct Watcher {
    client: Client,
    shared: Arc<Shared>,
    told: Receiver<Revision>,
    prefix: String,
    position: Revision,
    connection: Option<WatchStream>,
}

impl Watcher {
    async fn connect(&mut self) -> Result<(), Error> {
        let create = WatchCreateRequest {
            key: prefix_start(&self.prefix),
            range_end: prefix_end(&self.prefix),
            start_revision: (self.position + 1).cast_signed(),
            progress_notify: true,
            prev_kv: true,
        };
        let stream = self
            .client
            .watch(create)
            .await
            .map_err(|status| backend(&status))?;
        self.connection = Some(stream);
        Ok(())
    }

    async fn next(&mut self) -> Result<WatchBatch, Error> {
        loop {
            if self.connection.is_none() && self.connect().await.is_err() {
                tokio::time::sleep(RECONNECT_AFTER).await;
                continue;
            }
            let Some(response) = self.receive().await else {
                self.connection = None;
                tokio::time::sleep(RECONNECT_AFTER).await;
                continue;
            };
            if let Some(batch) = self.batch(response)? {
                self.position = batch.revision;
                return Ok(batch);
            }
        }
    }

    /// The next response; `None` when the connection is lost.
    async fn receive(&mut self) -> Option<WatchResponse> {
        let connection = self.connection.as_mut()?;
        loop {
            let behind = *self.told.borrow_and_update() > self.position;
            tokio::select! {
                response = connection.message() => return response.ok()?,
                () = tokio::time::sleep(PROGRESS_AFTER), if behind => {
                    connection.request_progress().await.ok()?;
                    // Once asked, the answer is waited for.
                    tokio::select! {
                        response = connection.message() => return response.ok()?,
                        changed = self.told.changed() => changed.ok()?,
                    }
                }
                changed = self.told.changed(), if !behind => changed.ok()?,
            }
        }
    }

    /// `None` when the response says nothing new.
    fn batch(&self, response: WatchResponse) -> Result<Option<WatchBatch>, Error> {
        if response.compact_revision > 0 {
            return Err(Error::Compacted {
                requested: self.position,
                oldest: response.compact_revision.cast_unsigned(),
            });
        }
        if response.canceled {
            let reason = response.cancel_reason;
            return Err(Error::Backend(format!("etcd ended the watch: {reason}")));
        }
        let events: Vec<Event> = response
            .events
            .into_iter()
            .map(|event| self.event(event))
            .collect::<Result<_, _>>()?;
        let revision = match events.last() {
            Some(last) => last.revision(),
            // A new watch has not seen what is between its start and now.
            None if response.created => return Ok(None),
            None => revision_of(response.header.as_ref()),
        };
        Ok((revision > self.position).then_some(WatchBatch { events, revision }))
    }

    fn event(&self, event: rpc::Event) -> Result<Event, Error> {
        let previous = event.prev_kv.map(key_value).transpose()?;
        let current = event.kv.map(key_value).transpose()?;
        let current =
            current.ok_or_else(|| Error::Backend("etcd: an event of no key".to_owned()))?;
        if event.event_type == 0 {
            return Ok(Event::Put { current, previous });
        }
        let revision = current.mod_revision;
        match previous {
            Some(previous) => Ok(Event::Delete { revision, previous }),
            // It was compacted away meanwhile: the history does not reach back far enough.
            None => Err(Error::Compacted {
                requested: self.position,
                oldest: revision,
            }),
        }
    }
}
