//! Transactions on their way into the store: checked against the state as it will be once those
//! before them have been committed, but not yet visible to anyone.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Compare, Error, KeyValue, Revision, Transaction, Write,
    state::{Object, State},
};

/// One change of one key, decided but not applied.
#[derive(Debug)]
pub(crate) struct Change {
    pub key: Arc<str>,
    pub revision: Revision,
    /// The object from now on; `None` for a deletion.
    pub object: Option<Object>,
    pub previous: Option<Arc<KeyValue>>,
    /// The row that held the previous object; 0 when there was none.
    pub previous_row: i64,
    /// As in [`Transaction`].
    pub frees: bool,
}

/// By how much an object may grow on its way to being deleted: a time stamp, some conditions.
const GROWTH: usize = 4 << 10;

impl Change {
    /// Whether it takes space that is there for good: the one that a delete needs is no such.
    pub fn adds(&self) -> bool {
        let Some(new) = &self.object else {
            return false;
        };
        let before = self.previous.as_ref().filter(|_| self.frees);
        before.is_none_or(|before| new.stored.value.len() > before.value.len() + GROWTH)
    }
}

/// The changes of some transactions, in order.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub changes: Vec<Change>,
    /// The index in `changes` of the latest change of a key.
    latest: HashMap<Arc<str>, usize>,
}

impl Stage {
    /// Adds a transaction, which takes `revision` if it changes anything; whether it does is the
    /// result. `row` gives the row for a key that is new.
    pub fn add(
        &mut self,
        state: &State,
        transaction: &Transaction,
        revision: Revision,
        mut row: impl FnMut(&str) -> i64,
    ) -> Result<bool, Error> {
        for compare in &transaction.compares {
            self.check(state, compare)?;
        }
        reject_duplicates(&transaction.writes)?;
        let before = self.changes.len();
        for write in &transaction.writes {
            self.write(state, write, revision, transaction.frees, &mut row);
        }
        Ok(self.changes.len() > before)
    }

    fn current<'a>(&'a self, state: &'a State, key: &str) -> Option<&'a Object> {
        match self.latest.get(key) {
            Some(&index) => self.changes[index].object.as_ref(),
            None => state.objects.get(key),
        }
    }

    fn check(&self, state: &State, compare: &Compare) -> Result<(), Error> {
        let (key, holds, current) = match compare {
            Compare::Absent(key) => {
                let current = self.current(state, key);
                (key, current.is_none(), current)
            }
            Compare::ModRevision(key, revision) => {
                let current = self.current(state, key);
                let holds = current.is_some_and(|object| object.stored.mod_revision == *revision);
                (key, holds, current)
            }
        };
        if holds {
            return Ok(());
        }
        Err(Error::Conflict {
            key: key.clone(),
            current: current.map(|object| object.stored.clone()),
        })
    }

    fn write(
        &mut self,
        state: &State,
        write: &Write,
        revision: Revision,
        frees: bool,
        row: &mut impl FnMut(&str) -> i64,
    ) {
        let (Write::Put { key, .. } | Write::Delete { key }) = write;
        let current = self.current(state, key);
        let previous = current.map(|object| object.stored.clone());
        let previous_row = current.map_or(0, |object| object.row);
        // A key that exists keeps its one allocation, whoever writes it.
        let key = previous.as_ref().map_or(key, |previous| &previous.key);
        let key = key.clone();
        let object = match write {
            Write::Delete { .. } if previous.is_none() => return,
            Write::Delete { .. } => None,
            Write::Put { value, .. } => Some(Object {
                stored: Arc::new(KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: previous
                        .as_ref()
                        .map_or(revision, |previous| previous.create_revision),
                    mod_revision: revision,
                }),
                row: match previous {
                    Some(_) => previous_row,
                    None => row(&key),
                },
            }),
        };
        self.latest.insert(key.clone(), self.changes.len());
        self.changes.push(Change {
            key,
            revision,
            object,
            previous,
            previous_row,
            frees,
        });
    }
}

/// A transaction may write a key once only, as in etcd.
pub(crate) fn reject_duplicates(writes: &[Write]) -> Result<(), Error> {
    let key = |write: &Write| match write {
        Write::Put { key, .. } | Write::Delete { key } => key.clone(),
    };
    for (index, write) in writes.iter().enumerate().skip(1) {
        let written = key(write);
        if writes[..index].iter().any(|other| key(other) == written) {
            return Err(Error::Backend(format!(
                "the transaction writes {written} twice"
            )));
        }
    }
    Ok(())
}
