//! `get`: one object.

use std::sync::Arc;

use axum::body::Body;
use coracle_store::Unreadable;
use http::{Response, StatusCode};

use crate::{
    cache::{Cache, Entry},
    error::ApiError,
    options::parse_version,
    query::Query,
    registry::{Registry, Resource},
    respond::{self, Output},
    server::{ApiServer, Context},
};

/// Answers with the object as it stands: without `resourceVersion` no older than the latest
/// write, with one no older than that.
pub async fn get(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(context.headers(), &query)?;
    let cache = cache_of(resource)?;
    match query.get("resourceVersion").unwrap_or_default() {
        "" => server.registry().fresh().await?,
        version => server.registry().reached(parse_version(version)?).await?,
    };
    let info = &context.info;
    let key = cache.key(&info.namespace, &info.name);
    let entry = current(server.registry(), cache, &key)?
        .ok_or_else(|| ApiError::not_found(&*resource.kind, &info.name))?;
    respond::object(&output, StatusCode::OK, resource, &entry)
}

/// The object as it stands, if there is one.
///
/// # Errors
/// There is one, but the store cannot make out its value.
pub fn current(
    registry: &Registry,
    cache: &Cache,
    key: &str,
) -> Result<Option<Arc<Entry>>, ApiError> {
    match cache.get(key) {
        Some(entry) => Ok(Some(entry)),
        None => match unreadable(registry, key) {
            Some(unreadable) => Err(ApiError::internal(unreadable.reason)),
            None => Ok(None),
        },
    }
}

/// The key, if it is there and its value cannot be made out.
pub fn unreadable(registry: &Registry, key: &str) -> Option<Unreadable> {
    let below = registry.store().unreadable(key);
    below.into_iter().find(|unreadable| *unreadable.key == *key)
}

/// The cache of a resource whose objects are stored.
pub fn cache_of(resource: &Resource) -> Result<&Arc<Cache>, ApiError> {
    resource
        .cache
        .as_ref()
        .ok_or_else(ApiError::method_not_allowed)
}
