//! `get`: one object.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};

use crate::{
    cache::{Cache, Entry},
    error::ApiError,
    options::parse_version,
    query::Query,
    registry::Resource,
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
    let entry = cached(cache, context, resource)?;
    respond::object(&output, StatusCode::OK, resource, &entry)
}

fn cached(cache: &Cache, context: &Context, resource: &Resource) -> Result<Arc<Entry>, ApiError> {
    let info = &context.info;
    cache
        .get(&cache.key(&info.namespace, &info.name))
        .ok_or_else(|| ApiError::not_found(&*resource.kind, &info.name))
}

/// The cache of a resource whose objects are stored.
pub fn cache_of(resource: &Resource) -> Result<&Arc<Cache>, ApiError> {
    resource
        .cache
        .as_ref()
        .ok_or_else(ApiError::method_not_allowed)
}
