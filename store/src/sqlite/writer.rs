//! The one thread that writes: takes what is waiting, commits it as a group, makes it visible,
//! acknowledges.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::file::{File, WriteError};
use crate::{
    Error, Revision, Transaction,
    stage::{Change, Stage},
    state::Shared,
    written::Counters,
};

/// Transactions in one group.
const GROUP: usize = 512;
/// Revisions set aside at a time. Volatile writes use them up without touching the disk: an idle
/// node's heartbeats take a week for this many.
const BLOCK: Revision = 1 << 16;

/// A transaction and where its outcome goes.
pub(super) struct Request {
    pub transaction: Transaction,
    pub reply: oneshot::Sender<Result<Revision, Error>>,
}

pub(super) struct Writer {
    file: File,
    shared: Arc<Shared>,
    written: Arc<Counters>,
    volatile: Vec<String>,
    /// The latest revision given out, also to groups that failed.
    revision: Revision,
    /// Revisions up to here may be given out without writing to the disk.
    reserved: Revision,
    next_row: i64,
    /// The last write failed, which was told in the log.
    failing: bool,
}

impl Writer {
    pub fn new(
        file: File,
        shared: Arc<Shared>,
        written: Arc<Counters>,
        volatile: Vec<String>,
    ) -> Self {
        let (revision, next_row) = {
            let state = shared.state.read();
            let last = state.objects.values().map(|object| object.row).max();
            (state.revision, last.unwrap_or(0) + 1)
        };
        Writer {
            file,
            shared,
            written,
            volatile,
            revision,
            reserved: revision,
            next_row,
            failing: false,
        }
    }

    /// Runs until every sender is gone.
    pub fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP {
                match waiting.try_recv() {
                    Ok(request) => group.push(request),
                    Err(_) => break,
                }
            }
            self.commit(group);
            while waiting.is_empty() && self.file.give_back_space() {}
        }
        if let Err(error) = self.file.close(self.revision) {
            tracing::warn!(%error, "cannot close the store cleanly, the next start recovers it");
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        let mut stage = Stage::default();
        let mut outcomes = Vec::with_capacity(group.len());
        self.stage(&group, &mut stage, &mut outcomes);
        if let Err(error) = self.write(&stage.changes) {
            // One oversized write must not fail the small ones that happened to wait with it.
            if group.len() > 1 {
                for request in group {
                    self.commit(vec![request]);
                }
                return;
            }
            self.tell(&error);
            for request in group {
                let _ = request.reply.send(Err(error.refusal()));
            }
            return;
        }
        if !stage.changes.is_empty() {
            self.shared.apply(stage.changes);
        }
        for (request, outcome) in group.into_iter().zip(outcomes) {
            let _ = request.reply.send(outcome);
        }
    }

    fn stage(
        &mut self,
        group: &[Request],
        stage: &mut Stage,
        outcomes: &mut Vec<Result<Revision, Error>>,
    ) {
        let state = self.shared.state.read();
        // What a transaction that changes nothing is told.
        let mut visible = state.revision;
        for request in group {
            let (volatile, next_row) = (&self.volatile, &mut self.next_row);
            let row = |key: &str| {
                if is_volatile(volatile, key) {
                    return 0;
                }
                let row = *next_row;
                *next_row += 1;
                row
            };
            let outcome = stage.add(&state, &request.transaction, self.revision + 1, row);
            outcomes.push(outcome.map(|changed| {
                if changed {
                    self.revision += 1;
                    visible = self.revision;
                }
                visible
            }));
        }
    }

    /// Writers try again, so only the first failure in a row is worth a warning.
    fn tell(&mut self, error: &WriteError) {
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(%error, "a write failed");
        } else {
            tracing::warn!(%error, "a write failed; further failures are not told until one succeeds");
        }
    }

    /// Makes the changes durable, as far as they are meant to be.
    fn write(&mut self, changes: &[Change]) -> Result<(), WriteError> {
        let durable = |change: &&Change| {
            change.previous_row != 0 || change.object.as_ref().is_some_and(|new| new.row != 0)
        };
        let any = changes.iter().any(|change| durable(&change));
        let reserve =
            self.revision > self.reserved || any && self.revision + BLOCK / 2 > self.reserved;
        if !any && !reserve {
            return Ok(());
        }
        let reserved = self.revision + BLOCK;
        self.file
            .write(changes.iter().filter(durable), reserve.then_some(reserved))?;
        if reserve {
            self.reserved = reserved;
        }
        // On a full device deletes succeed while other writes fail.
        let stored = |change: &&Change| change.object.as_ref().is_some_and(|new| new.row != 0);
        if self.failing && changes.iter().filter(stored).any(Change::adds) {
            self.failing = false;
            tracing::info!("writes succeed again");
        }
        for change in changes.iter().filter(durable) {
            let value = change
                .object
                .as_ref()
                .map_or(0, |new| new.stored.value.len());
            self.written.add(&change.key, change.key.len() + value);
        }
        Ok(())
    }
}

fn is_volatile(prefixes: &[String], key: &str) -> bool {
    prefixes.iter().any(|prefix| key.starts_with(prefix))
}
