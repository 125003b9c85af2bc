//! What a write left behind, and how the store is written.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use coracle_api::Object;
use coracle_store::{Compare, Error, Transaction, Write};
use http::{Response, StatusCode};

use crate::{
    cache::Entry,
    error::ApiError,
    registry::{Registry, Resource},
    respond::{self, Output},
    services::Companions,
};

/// The object as a write left it.
pub enum Written {
    Stored(Arc<Entry>),
    /// A dry run: this is what would have been stored.
    Imagined(Box<dyn Object>),
}

impl Written {
    /// Answers with the object.
    pub fn respond(
        &self,
        output: &Output,
        code: StatusCode,
        resource: &Resource,
    ) -> Result<Response<Body>, ApiError> {
        match self {
            Written::Stored(entry) => respond::object(output, code, resource, entry),
            Written::Imagined(object) => respond::imagined(output, code, resource, &**object),
        }
    }

    /// The object as clients see it.
    pub fn object(&self, resource: &Resource) -> Result<Box<dyn Object>, ApiError> {
        match self {
            Written::Stored(entry) => resource.decode(entry),
            Written::Imagined(object) => Ok(object.clone_object()),
        }
    }
}

/// Writes a key that does not exist.
pub async fn insert(
    registry: &Registry,
    key: Arc<str>,
    value: Bytes,
    companions: Companions,
) -> Result<Entry, Error> {
    let write = Write::Put {
        key: key.clone(),
        value: value.clone(),
    };
    let transaction = transaction(Compare::Absent(key.clone()), write, companions);
    commit(registry, "create", transaction, key, value).await
}

/// Writes a key that stands as in `entry`. `frees` says that the object is to go, so that it does
/// on a full disk too.
pub async fn replace(
    registry: &Registry,
    entry: &Entry,
    value: Bytes,
    companions: Companions,
    frees: bool,
) -> Result<Entry, Error> {
    let compare = Compare::ModRevision(entry.key().clone(), entry.revision);
    let write = Write::Put {
        key: entry.key().clone(),
        value: value.clone(),
    };
    let transaction = Transaction {
        frees,
        ..transaction(compare, write, companions)
    };
    commit(registry, "update", transaction, entry.key().clone(), value).await
}

/// Deletes a key that stands as in `entry`, and gives what watchers are told of it.
pub async fn remove(
    registry: &Registry,
    entry: &Entry,
    companions: Companions,
) -> Result<Entry, Error> {
    let key = entry.key().clone();
    let compare = Compare::ModRevision(key.clone(), entry.revision);
    let transaction = transaction(compare, Write::Delete { key }, companions);
    let revision = registry.commit("delete", entry.key(), transaction).await?;
    Ok(entry.at_revision(revision))
}

async fn commit(
    registry: &Registry,
    operation: &'static str,
    transaction: Transaction,
    key: Arc<str>,
    value: Bytes,
) -> Result<Entry, Error> {
    let revision = registry.commit(operation, &key, transaction).await?;
    Entry::unindexed_at(key, value, revision).map_err(|error| Error::Backend(error.to_string()))
}

/// The object's own comparison comes first, so that it is the one that is reported.
fn transaction(compare: Compare, write: Write, companions: Companions) -> Transaction {
    let mut transaction = Transaction {
        compares: vec![compare],
        writes: vec![write],
        ..Transaction::default()
    };
    transaction.compares.extend(companions.compares);
    transaction.writes.extend(companions.writes);
    transaction
}
