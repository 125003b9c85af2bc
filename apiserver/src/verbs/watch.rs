//! `watch`: the changes of a resource as they happen.

mod encode;
mod stream;
mod websocket;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Response, header};

use crate::{
    cache::{EventType, WatchEvent, Watcher},
    error::ApiError,
    metrics::watches::Events,
    options::{ListOptions, parse_version},
    query::Query,
    registry::{Registry, Resource},
    respond::Output,
    server::{ApiServer, Context},
    verbs::{get::cache_of, list::filter},
    websocket::is_websocket,
};

use encode::Encoder;
use stream::{Initial, WatchStream};

/// Answers with a stream of events that ends after `timeoutSeconds`, or after half an hour to
/// an hour when the client does not say.
pub async fn watch(
    server: &ApiServer,
    context: &Context,
    resource: &Arc<Resource>,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(context.headers(), &query)?;
    let options = ListOptions::parse(&query, true)?;
    let filter = Arc::new(filter(context, resource, &query)?);
    parse_version(&options.resource_version)?;
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => server.config().watch_timeout(),
    };
    let events = Events::of(&resource.kind);
    let encoder = Encoder::new(output, resource.clone(), events);
    let info = &context.info;
    let scope = match (info.name.as_str(), info.namespace.as_str()) {
        ("", "") => "cluster",
        ("", _) => "namespace",
        _ => "resource",
    };
    let of = (resource.kind.clone(), scope);
    let content_type = encoder.content_type();
    let initial = begin(server.registry(), resource, &options, filter).await;
    let stream = WatchStream::new(server, encoder, of, initial, &options, timeout);
    if is_websocket(context.headers()) {
        return websocket::serve(&context.parts, stream);
    }
    Response::builder()
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CACHE_CONTROL, "no-cache, private")
        .body(Body::from_stream(stream.frames()))
        .map_err(ApiError::internal)
}

/// Finds where the watch starts. An error becomes the first and only event.
async fn begin(
    registry: &Registry,
    resource: &Resource,
    options: &ListOptions,
    filter: Arc<crate::selector::Filter>,
) -> Result<Initial, ApiError> {
    let cache = cache_of(resource)?;
    let version = parse_version(&options.resource_version)?;
    let initial = options.send_initial_events == Some(true);
    match (options.resource_version.as_str(), initial) {
        ("", _) => registry.fresh().await?,
        (_, true) => registry.reached(version).await?,
        // A watch may begin in the future.
        (_, false) => registry.reached(0).await?,
    };
    if initial {
        let (objects, watcher) = cache.watch_from_now(filter.clone());
        let events = objects
            .values()
            .filter(|entry| filter.matches(entry))
            .map(|entry| WatchEvent {
                event_type: EventType::Added,
                entry: entry.clone(),
                revision: entry.revision,
            })
            .collect();
        return Ok(Initial {
            watcher,
            events,
            revision: registry.progress().unwrap_or_default(),
        });
    }
    let from_now = version == 0;
    let watcher: Watcher = if from_now {
        cache.watch_from_now(filter).1
    } else {
        cache.watch_after(version, filter).map_err(|too_old| {
            ApiError::expired(format!(
                "too old resource version: {version} ({})",
                too_old.oldest
            ))
        })?
    };
    Ok(Initial {
        watcher,
        events: Vec::new(),
        revision: version,
    })
}
