//! `/metrics`: what the server counts, under upstream's names.
//!
//! One file for each part of the server; each lists its families in `ALL`. A family is a static:
//! what is counted is of the process, however many servers it has. Enter at [`page`].

pub(crate) mod access;
pub(crate) mod admission;
pub(crate) mod audit;
pub(crate) mod flow;
pub(crate) mod health;
pub(crate) mod in_flight;
mod pods;
pub(crate) mod requests;
pub(crate) mod storage;
pub(crate) mod watches;

use std::sync::Arc;

use axum::body::Body;
use coracle_metrics::Page;
use http::{Response, header};
use parking_lot::RwLock;

use crate::server::ApiServer;

type Source = Arc<dyn Fn(&mut Page) + Send + Sync>;

/// What else of the process is shown on the server's page.
#[derive(Default)]
pub struct Metrics {
    sources: RwLock<Vec<Source>>,
}

impl Metrics {
    /// `source` is called each time that the page is asked for, and must not block.
    pub fn add(&self, source: impl Fn(&mut Page) + Send + Sync + 'static) {
        self.sources.write().push(Arc::new(source));
    }
}

/// Answers `/metrics`.
pub(crate) async fn answer(server: &ApiServer) -> Response<Body> {
    respond(&page(server).await)
}

/// Answers `/metrics/slis`.
pub(crate) fn answer_slis() -> Response<Body> {
    let mut page = Page::default();
    page.add(health::ALL);
    respond(&page)
}

/// Answers `/metrics/resources`.
pub(crate) fn answer_resources(server: &ApiServer) -> Response<Body> {
    let mut page = Page::default();
    pods::show(server, &mut page);
    respond(&page)
}

fn respond(page: &Page) -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, Page::CONTENT_TYPE)
        .body(Body::from(page.render()))
        .unwrap_or_default()
}

async fn page(server: &ApiServer) -> Page {
    if let Some(flow) = server.flow() {
        flow.measure();
    }
    let mut page = Page::default();
    for part in [
        access::ALL,
        admission::ALL,
        audit::ALL,
        flow::ALL,
        requests::ALL,
        in_flight::ALL,
        storage::ALL,
        watches::ALL,
    ] {
        page.add(part);
    }
    in_flight::show(&mut page);
    storage::show(server, &mut page).await;
    coracle_metrics::process(&mut page);
    coracle_metrics::version(&mut page, coracle_api::VERSION);
    let sources = server.metrics().sources.read().clone();
    for source in sources {
        source(&mut page);
    }
    page.show_registered();
    page
}
