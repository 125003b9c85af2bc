//! Paths that name no resource: discovery, OpenAPI, version, health, metrics.
//!
//! Enter at [`answer`].

mod discovery;
mod health;
mod openapi;
mod version;

use axum::body::Body;
use http::{Method, Response, StatusCode};

use crate::{
    error::ApiError,
    handler::PathCall,
    metrics,
    query::Query,
    respond::{self, Output},
    server::{ApiServer, Context},
};

/// What our own paths start with. They are not told of at the root.
const OWN: &str = "/v1-coracle/";

pub use discovery::Discovery;
pub use health::{Health, Probe};

/// Answers a request for such a path.
pub async fn answer(
    server: &ApiServer,
    context: &Context,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let path = context.info.path.as_str();
    if let Some(handler) = server.handlers().path(path) {
        let call = PathCall {
            server,
            context,
            body,
        };
        return handler.handle(call).await;
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if !matches!(context.parts.method, Method::GET | Method::HEAD) {
        return Ok(not_found());
    }
    match parts.as_slice() {
        [""] => roots(server, context),
        ["api" | "apis", ..] => discovery::answer(server, context, &parts),
        ["openapi", parts @ ..] => openapi::answer(server, context, parts).await,
        ["version"] => version::answer(context),
        ["livez" | "readyz" | "healthz", check @ ..] => {
            Ok(health::answer(server, context, parts[0], check).await)
        }
        ["metrics"] => Ok(metrics::answer(server).await),
        ["metrics", "resources"] => Ok(metrics::answer_resources(server)),
        ["metrics", "slis"] => Ok(metrics::answer_slis()),
        _ => Ok(not_found()),
    }
}

/// `/`: the paths that there are.
fn roots(server: &ApiServer, context: &Context) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate_plain(context.headers(), &query)?;
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/resources",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    let documents = server.discovery().of(&server.registry().table());
    for (group, version) in documents.catalogue.group_versions() {
        if !group.is_empty() {
            paths.push(format!("/apis/{group}"));
            paths.push(format!("/apis/{group}/{version}"));
        }
    }
    let public = server
        .handlers()
        .paths()
        .filter(|path| !path.starts_with(OWN));
    paths.extend(public.map(str::to_owned));
    paths.sort();
    paths.dedup();
    respond::value(
        &output,
        StatusCode::OK,
        &serde_json::json!({"paths": paths}),
    )
}

fn not_found() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}
