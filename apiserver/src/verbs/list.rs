//! `list`: the objects of a resource, of all namespaces or one, selected and in pages.

use std::{ops::Bound, sync::Arc, time::Instant};

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_api::{
    decode::go,
    selector::{FieldSelector, LabelSelector, SelectorError},
};
use coracle_store::Revision;
use http::Response;
use serde::{Deserialize, Serialize};

use crate::{
    cache::{Cache, Entry, Objects},
    error::ApiError,
    metrics::storage,
    options::{ListOptions, VersionMatch, parse_version},
    query::Query,
    registry::{Registry, Resource},
    respond::{self, ListMeta, Output},
    selector::Filter,
    server::{ApiServer, Context},
    verbs::get::cache_of,
};

const TOO_OLD: &str = "The resourceVersion for the provided list is too old.";
const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Answers with the objects that match.
pub async fn list(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(context.headers(), &query)?;
    let options = ListOptions::parse(&query, false)?;
    let cache = cache_of(resource)?;
    let filter = filter(context, resource, &query)?;
    let start = Start::of(&options, cache.key_prefix(&context.info.namespace))?;
    let (revision, objects) = snapshot(server.registry(), cache, &options, &start).await?;
    if options.resource_version != "0" {
        all_readable(server.registry(), &start.prefix)?;
    }
    // Upstream answers such a list from its cache, whole.
    let limit = match options.resource_version.as_str() {
        "0" => 0,
        _ => options.limit,
    };
    let page = page(&objects, &filter, &start, limit);
    storage::Of::cache(cache).listed(page.entries.len());
    let mut meta = ListMeta {
        resource_version: revision.to_string(),
        ..ListMeta::default()
    };
    if let Some(last) = &page.more_after {
        meta.continue_token = Some(token(&format!("{last}\0"), &start.prefix, signed(revision)));
        if filter.matches_all() {
            meta.remaining_item_count = i64::try_from(page.remaining).ok();
        }
        cache.keep_page(revision, objects);
    }
    respond::list(&output, resource, &page.entries, &meta)
}

/// Fails when the store has values below `prefix` that it cannot make out.
pub fn all_readable(registry: &Registry, prefix: &str) -> Result<(), ApiError> {
    match registry.store().unreadable(prefix).first() {
        Some(first) => Err(ApiError::internal(format!(
            "unable to transform key {:?}: {}",
            first.key, first.reason
        ))),
        None => Ok(()),
    }
}

/// What the query and the path restrict a list or watch to.
pub fn filter(
    context: &Context,
    resource: &Resource,
    query: &Query<'_>,
) -> Result<Filter, ApiError> {
    let cache = cache_of(resource)?;
    let bad = |error: SelectorError| ApiError::bad_request(format!("{error}"));
    let labels = query
        .get("labelSelector")
        .unwrap_or_default()
        .parse::<LabelSelector>();
    let fields = query
        .get("fieldSelector")
        .unwrap_or_default()
        .parse::<FieldSelector>();
    let (labels, fields) = (labels.map_err(bad)?, fields.map_err(bad)?);
    let info = &context.info;
    if !info.name.is_empty()
        && !fields.is_empty()
        && fields.exact_match("metadata.name") != Some(&info.name)
    {
        return Err(ApiError::bad_request(
            "fieldSelector metadata.name doesn't match requested name",
        ));
    }
    // A namespace watched by its own path is not in a namespace.
    let namespace = if cache.namespaced() {
        info.namespace.as_str()
    } else {
        ""
    };
    Filter::new(resource, cache, namespace, &info.name, labels, &fields).map_err(bad)
}

/// Where a page starts.
struct Start {
    /// What the keys of the whole list start with.
    prefix: String,
    /// The key to start at, and the revision to read, of a page that is not the first. `None`:
    /// the latest revision, because the list is known to be inconsistent.
    next: Option<(String, Option<Revision>)>,
}

impl Start {
    fn of(options: &ListOptions, prefix: String) -> Result<Self, ApiError> {
        if options.continue_token.is_empty() {
            return Ok(Start { prefix, next: None });
        }
        let (key, revision) = read_token(&options.continue_token, &prefix)?;
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Ok(Start {
            prefix,
            next: Some((key, Revision::try_from(revision).ok())),
        })
    }
}

/// The objects to list from, and the revision at which they stood.
async fn snapshot(
    registry: &Registry,
    cache: &Cache,
    options: &ListOptions,
    start: &Start,
) -> Result<(Revision, Objects), ApiError> {
    let requested = match options.resource_version.as_str() {
        "" => 0,
        text => text.parse().map_err(|_| {
            ApiError::bad_request(format!(
                "invalid resource version: {}",
                parse_version(text)
                    .err()
                    .map(|error| error.to_string())
                    .unwrap_or_default()
            ))
        })?,
    };
    let exact = match &start.next {
        Some((_, revision)) => *revision,
        None => match options.version_match {
            Some(VersionMatch::Exact) => Some(requested),
            Some(VersionMatch::NotOlderThan) => None,
            None => Some(requested).filter(|revision| *revision > 0 && options.limit > 0),
        },
    };
    let Some(exact) = exact else {
        if requested > 0 {
            registry.reached(requested).await?;
        } else if options.resource_version.is_empty() {
            let since = Instant::now();
            registry.fresh().await?;
            storage::Of::cache(cache).waited(since.elapsed());
        } else {
            registry.reached(0).await?;
        }
        // Progress first: the objects are at least as new.
        let revision = registry.progress().unwrap_or_default();
        let objects = cache.objects();
        return Ok((revision, objects));
    };
    let reached = registry.reached(exact).await;
    reached.map_err(ApiError::without_retry)?;
    if exact >= registry.horizon()
        && let Ok(objects) = cache.objects_at(exact)
    {
        return Ok((exact, objects));
    }
    Err(expired(start))
}

fn expired(start: &Start) -> ApiError {
    let Some((key, _)) = &start.next else {
        return ApiError::expired(TOO_OLD);
    };
    let mut error = ApiError::expired(INCONSISTENT);
    error.0.metadata.continue_ = Some(token(key, &start.prefix, -1));
    error
}

/// The part of a list that goes into one answer.
struct Page {
    entries: Vec<Arc<Entry>>,
    /// The key of the last object, when there are more after it.
    more_after: Option<Arc<str>>,
    /// How many keys follow; only exact when the filter matches everything.
    remaining: usize,
}

fn page(objects: &Objects, filter: &Filter, start: &Start, limit: usize) -> Page {
    let first = match &start.next {
        Some((key, _)) if key.as_str() > filter.prefix() => key.as_str(),
        _ => filter.prefix(),
    };
    let mut matching = objects
        .range::<_, str>((Bound::Included(first), Bound::Unbounded))
        .map(|(_, entry)| entry)
        .take_while(|entry| entry.key().starts_with(filter.prefix()))
        .filter(|entry| filter.matches(entry));
    if limit == 0 {
        return Page {
            entries: matching.cloned().collect(),
            more_after: None,
            remaining: 0,
        };
    }
    let entries: Vec<Arc<Entry>> = matching.by_ref().take(limit).cloned().collect();
    let remaining = if filter.matches_all() {
        matching.count()
    } else {
        matching.take(1).count()
    };
    Page {
        more_after: entries
            .last()
            .filter(|_| remaining > 0)
            .map(|entry| entry.key().clone()),
        entries,
        remaining,
    }
}

/// A continue token, in upstream's form.
#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v", default)]
    version: String,
    #[serde(rename = "rv", default)]
    revision: i64,
    #[serde(default)]
    start: String,
}

fn token(key: &str, prefix: &str, revision: i64) -> String {
    let token = Token {
        version: "meta.k8s.io/v1".to_owned(),
        revision,
        start: key.strip_prefix(prefix).unwrap_or(key).to_owned(),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// The key to go on at and the revision to read; -1: the latest.
fn read_token(text: &str, prefix: &str) -> Result<(String, i64), ApiError> {
    let bad = |why: &str| ApiError::bad_request(format!("invalid continue token: {why}"));
    let invalid = |why: &dyn std::fmt::Display| bad(&format!("continue key is not valid: {why}"));
    let json = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| invalid(&error))?;
    let token: Token = serde_json::from_slice(&json).map_err(|error| {
        let error = go::syntax_error(&json).unwrap_or_else(|| error.to_string());
        invalid(&error)
    })?;
    if token.version != "meta.k8s.io/v1" {
        return Err(invalid(&format!(
            "server does not recognize this encoded version {}",
            token.version
        )));
    }
    if token.revision == 0 {
        return Err(bad(
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ));
    }
    if token.start.is_empty() {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)"));
    }
    let climbs = token
        .start
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."));
    if climbs {
        return Err(invalid(&token.start));
    }
    Ok((format!("{prefix}{}", token.start), token.revision))
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
