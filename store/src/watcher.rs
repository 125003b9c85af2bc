//! Watches over the in-memory history.
//!
//! A watcher is a position in the shared ring, nothing is buffered for it: one that does not read
//! costs nothing and finds, when it reads again, that its position has been dropped.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use tokio::sync::watch;

use crate::{
    Error, Event, Revision, Watch, WatchBatch,
    state::{Shared, State},
};

/// Events in one batch; a batch is a little larger where a transaction must not be split.
const BATCH: usize = 512;

struct Watcher {
    shared: Arc<Shared>,
    changed: watch::Receiver<()>,
    prefix: String,
    position: Revision,
    ended: bool,
}

pub(crate) fn watch(shared: &Arc<Shared>, prefix: &str, after: Revision) -> Result<Watch, Error> {
    let state = shared.state.read();
    state.open()?;
    if after > state.revision {
        return Err(Error::Future {
            requested: after,
            current: state.revision,
        });
    }
    if after < state.history.floor() {
        return Err(compacted(&state, after));
    }
    let watcher = Watcher {
        shared: shared.clone(),
        changed: shared.changed.subscribe(),
        prefix: prefix.to_owned(),
        position: after,
        ended: false,
    };
    Ok(stream::unfold(watcher, async |mut watcher| {
        if watcher.ended {
            return None;
        }
        let item = watcher.next().await;
        watcher.ended = item.is_err();
        Some((item, watcher))
    })
    .boxed())
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        loop {
            self.changed.borrow_and_update();
            if let Some(batch) = self.read()? {
                self.position = batch.revision;
                return Ok(batch);
            }
            if self.changed.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    fn read(&self) -> Result<Option<WatchBatch>, Error> {
        let state = self.shared.state.read();
        if self.position < state.history.floor() {
            return Err(compacted(&state, self.position));
        }
        if self.position == state.revision {
            state.open()?;
            return Ok(None);
        }
        let mut batch = WatchBatch {
            events: Vec::new(),
            revision: state.revision,
        };
        for event in state.history.after(self.position) {
            let full = batch.events.len() >= BATCH;
            if full && batch.events.last().map(Event::revision) != Some(event.revision()) {
                batch.revision = event.revision() - 1;
                break;
            }
            if key(event).starts_with(&self.prefix) {
                batch.events.push(event.clone());
            }
        }
        Ok(Some(batch))
    }
}

fn key(event: &Event) -> &str {
    match event {
        Event::Put { current, .. } => &current.key,
        Event::Delete { previous, .. } => &previous.key,
    }
}

fn compacted(state: &State, requested: Revision) -> Error {
    Error::Compacted {
        requested,
        oldest: state.history.floor(),
    }
}
