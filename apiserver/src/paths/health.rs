//! `/livez`, `/readyz` and `/healthz`, and the registry of what they look at.
//!
//! The answers are upstream's: `ok`, or with `?verbose` and on failure a line for each check.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use parking_lot::RwLock;

use crate::{
    metrics::health,
    query::Query,
    respond,
    server::{ApiServer, Context},
};

/// How one part of the process fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub name: String,
    /// Why it does not fare well. Logged, not shown.
    pub failure: Option<String>,
}

type Source = Arc<dyn Fn() -> Vec<Probe> + Send + Sync>;

/// What is looked at beside the server itself.
#[derive(Default)]
pub struct Health {
    sources: RwLock<Vec<Source>>,
}

impl Health {
    /// Adds parts of the process to /readyz and /healthz. `source` is called at each request
    /// and must not block.
    pub fn add(&self, source: impl Fn() -> Vec<Probe> + Send + Sync + 'static) {
        self.sources.write().push(Arc::new(source));
    }

    /// How the parts fare now.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        let sources = self.sources.read().clone();
        sources.iter().flat_map(|source| source()).collect()
    }
}

/// Answers `/{endpoint}` or `/{endpoint}/{check}`.
pub async fn answer(
    server: &ApiServer,
    context: &Context,
    endpoint: &str,
    check: &[&str],
) -> Response<Body> {
    let mut probes = own_probes(server, endpoint).await;
    if endpoint != "livez" {
        probes.extend(server.health().probes());
    }
    for probe in &probes {
        health::checked(&probe.name, endpoint, probe.failure.is_none());
    }
    if !check.is_empty() {
        let name = check.join("/");
        let Some(probe) = probes.iter().find(|probe| probe.name == name) else {
            return respond::text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        return match &probe.failure {
            None => respond::text(StatusCode::OK, "ok"),
            Some(failure) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {failure}\n"),
            ),
        };
    }
    let query = Query::parse(context.query());
    let excluded: Vec<&str> = query.all("exclude").collect();
    let verbose = query.get("verbose").is_some();
    report(endpoint, &probes, &excluded, verbose)
}

fn report(endpoint: &str, probes: &[Probe], excluded: &[&str], verbose: bool) -> Response<Body> {
    let mut lines = String::new();
    let mut failed = false;
    for probe in probes {
        let name = &probe.name;
        if excluded.contains(&name.as_str()) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if let Some(failure) = &probe.failure {
            tracing::warn!(check = %name, failure, "a health check failed");
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
            failed = true;
        } else {
            lines.push_str(&format!("[+]{name} ok\n"));
        }
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !probes.iter().any(|probe| probe.name == **name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            unknown.join(",")
        ));
    }
    if failed {
        lines.push_str(&format!("{endpoint} check failed\n"));
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, lines);
    }
    if verbose {
        lines.push_str(&format!("{endpoint} check passed\n"));
        return respond::text(StatusCode::OK, lines);
    }
    respond::text(StatusCode::OK, "ok")
}

/// The server's own checks, under upstream's names.
async fn own_probes(server: &ApiServer, endpoint: &str) -> Vec<Probe> {
    let store = server.registry().store().revision().await;
    let mut probes = vec![
        probe("ping", None),
        probe("log", None),
        probe("etcd", store.err().map(|error| error.to_string())),
    ];
    if endpoint != "livez" {
        let filled = server.registry().progress().is_some();
        let unfilled = (!filled).then(|| "the watch caches are not filled".to_owned());
        probes.push(probe("informer-sync", unfilled));
    }
    if endpoint == "readyz" {
        let ends = server.shutdown().is_cancelled();
        let ending = ends.then(|| "process is shutting down".to_owned());
        probes.push(probe("shutdown", ending));
    }
    probes
}

fn probe(name: &str, failure: Option<String>) -> Probe {
    Probe {
        name: name.to_owned(),
        failure,
    }
}
