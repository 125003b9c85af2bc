//! Discovery: `/api`, `/apis` and what is below them but no resource.
//!
//! The documents are made once for each state of the table of resources.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use coracle_api::published::Catalogue;
use http::{HeaderMap, Response, StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::not_found;
use crate::{
    error::ApiError,
    query::Query,
    registry::Table,
    respond::{self, Output},
    server::{ApiServer, Context},
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The documents for the table that was served last.
#[derive(Default)]
pub struct Discovery(Mutex<Option<(Arc<Table>, Arc<Documents>)>>);

/// What clients learn of one table.
pub struct Documents {
    pub catalogue: Catalogue,
    core: Tagged,
    groups: Tagged,
}

/// A document with its entity tag.
struct Tagged {
    json: Bytes,
    tag: String,
}

impl Tagged {
    fn new(document: &impl Serialize) -> Self {
        // The documents are plain data.
        let json = serde_json::to_vec(document).unwrap_or_default();
        let digest = Sha256::digest(&json);
        let tag: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Tagged {
            json: json.into(),
            tag: format!("\"{tag}\""),
        }
    }
}

impl Discovery {
    /// The documents of a table.
    pub fn of(&self, table: &Arc<Table>) -> Arc<Documents> {
        let mut cached = self.0.lock();
        if let Some((of, documents)) = &*cached
            && Arc::ptr_eq(of, table)
        {
            return documents.clone();
        }
        let catalogue = Catalogue::new(table.kinds());
        let documents = Arc::new(Documents {
            core: Tagged::new(&catalogue.aggregated(true)),
            groups: Tagged::new(&catalogue.aggregated(false)),
            catalogue,
        });
        *cached = Some((table.clone(), documents.clone()));
        documents
    }
}

/// Answers `/api`, `/apis`, `/api/v1`, `/apis/{group}` and `/apis/{group}/{version}`.
pub fn answer(
    server: &ApiServer,
    context: &Context,
    parts: &[&str],
) -> Result<Response<Body>, ApiError> {
    let documents = server.discovery().of(&server.registry().table());
    let catalogue = &documents.catalogue;
    if let ["api" | "apis"] = parts {
        let core = parts == ["api"];
        if wants_aggregated(context.headers()) {
            let document = if core {
                &documents.core
            } else {
                &documents.groups
            };
            return tagged(context.headers(), document);
        }
        return if core {
            plain(
                context,
                &catalogue.api_versions(&server.config().public_address),
            )
        } else {
            plain(context, &catalogue.group_list())
        };
    }
    let found = match parts {
        ["api", version] => catalogue
            .resource_list("", version)
            .map(|list| plain(context, &list)),
        ["apis", group] => catalogue.group(group).map(|group| plain(context, &group)),
        ["apis", group, version] => catalogue
            .resource_list(group, version)
            .map(|list| plain(context, &list)),
        _ => None,
    };
    found.unwrap_or_else(|| Ok(not_found()))
}

fn plain(context: &Context, document: &impl Serialize) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    // Aggregated forms that are not served are skipped over, as upstream does.
    let output = Output::negotiate_plain(context.headers(), &query)?;
    respond::value(&output, StatusCode::OK, document)
}

/// Whether the client prefers the aggregated form to the plain one.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters: Vec<&str> = parts.collect();
        let has = |parameter| parameters.contains(&parameter);
        let json = matches!(media_type, "application/json" | "*/*" | "application/*");
        if !json {
            continue;
        }
        if has("as=APIGroupDiscoveryList") {
            if has("g=apidiscovery.k8s.io") && has("v=v2") {
                return true;
            }
            continue;
        }
        return false;
    }
    false
}

fn tagged(headers: &HeaderMap, document: &Tagged) -> Result<Response<Body>, ApiError> {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == document.tag));
    let response = Response::builder()
        .header(header::ETAG, &document.tag)
        .header(header::VARY, "Accept")
        .header(header::CACHE_CONTROL, "public");
    let response = if known {
        response
            .status(StatusCode::NOT_MODIFIED)
            .body(Body::empty())
    } else {
        response
            .header(header::CONTENT_TYPE, AGGREGATED)
            .body(Body::from(document.json.clone()))
    };
    response.map_err(ApiError::internal)
}
