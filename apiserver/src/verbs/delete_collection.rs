//! `deletecollection`: every object that matches ends.

use std::sync::Arc;

use axum::body::Body;
use futures::TryStreamExt as _;
use http::Response;

use super::delete::{delete_object, warn_of_orphans};
use crate::{
    body,
    cache::Entry,
    error::ApiError,
    options::{self, ListOptions},
    query::Query,
    registry::Resource,
    respond::{self, ListMeta, Output},
    server::{ApiServer, Context},
    verbs::{
        get::cache_of,
        list::{all_readable, filter},
    },
};

/// Deletions under way at once: enough for the store to commit them in groups.
const CONCURRENCY: usize = 64;

/// Deletes the objects that match and answers with them as they stood.
pub async fn delete_collection(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(context.headers(), &query)?;
    let body = body::read_json(context.headers(), body).await?;
    context.audit_json(&body);
    let options = options::delete_options(&body, &query)?;
    let list_options = ListOptions::parse(&query, false)?;
    warn_of_orphans(context, resource, &options);
    let cache = cache_of(resource)?;
    let filter = filter(context, resource, &query)?;
    let revision = server.registry().fresh().await?;
    all_readable(
        server.registry(),
        &cache.key_prefix(&context.info.namespace),
    )?;
    let objects = cache.objects();
    let matching = objects.values().filter(|entry| filter.matches(entry));
    let limit = match list_options.limit {
        0 => usize::MAX,
        limit => limit,
    };
    let entries: Vec<Arc<Entry>> = matching.take(limit).cloned().collect();
    futures::stream::iter(entries.iter().map(Ok))
        .try_for_each_concurrent(CONCURRENCY, |entry| {
            let options = &options;
            async move {
                let (namespace, name) = cache.name_of(entry.key());
                match delete_object(server, context, resource, namespace, name, options).await {
                    Err(error) if !error.is_not_found() => Err(error),
                    _ => Ok(()),
                }
            }
        })
        .await?;
    let meta = ListMeta {
        resource_version: revision.to_string(),
        ..ListMeta::default()
    };
    respond::list(&output, resource, &entries, &meta)
}
