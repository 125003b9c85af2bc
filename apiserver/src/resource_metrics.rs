//! `metrics.k8s.io`: what nodes and pods use, answered from what their kubelets count.
//!
//! Enter at [`ResourceMetrics::handlers`]. [`collector`] asks the kubelets when somebody asks
//! here, [`page`] reads what they answer, [`figures`] makes rates of it. Upstream leaves this to
//! an add-on; one that is installed takes the group over by its `APIService`.

mod collector;
mod figures;
mod page;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use coracle_api::{
    Object,
    metrics::{self, NodeMetrics, PodMetrics},
    selector::{FieldSelector, LabelSelector, SelectorError},
};
use http::Response;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use crate::{
    Registry,
    cache::Entry,
    error::{ApiError, GroupResource},
    handler::{Call, Handler, Place},
    query::Query,
    respond::{self, Output},
    server::Context,
};

use collector::Collector;
use figures::{Figures, PodFigure};

/// Where the figures of a node come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// What the node's kubelet shows at `/metrics/resource`.
    ///
    /// # Errors
    /// Why it cannot be had, in words.
    async fn page(&self, node: &str) -> Result<String, String>;
}

/// Answers for both kinds of the group. Cheap to clone.
#[derive(Clone)]
pub struct ResourceMetrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    collector: Collector,
}

impl ResourceMetrics {
    pub fn new(registry: Registry, source: Arc<dyn Source>) -> Self {
        ResourceMetrics(Arc::new(Inner {
            collector: Collector::new(source),
            registry,
        }))
    }

    pub fn handlers(&self) -> Vec<(Place, Arc<dyn Handler>)> {
        let place = |resource| Place {
            group: metrics::GROUP,
            resource,
            subresource: "",
        };
        vec![
            (place("nodes"), Arc::new(Nodes(self.clone()))),
            (place("pods"), Arc::new(Pods(self.clone()))),
        ]
    }

    async fn figures(&self) -> Arc<Figures> {
        let nodes = self.0.registry.lister::<Node>().list("");
        let reachable = nodes.iter().filter(|node| is_reachable(node));
        let names = reachable.filter_map(|node| node.metadata.name.clone());
        self.0.collector.figures(names.collect()).await
    }
}

/// Whether a kubelet is likely to answer: one that is silent makes everybody wait.
fn is_reachable(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    ready.is_none_or(|ready| ready.status != "Unknown")
}

struct Nodes(ResourceMetrics);

struct Pods(ResourceMetrics);

#[async_trait]
impl Handler for Nodes {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let asked = Asked::of(call.context)?;
        let cache = self.0.0.registry.cache::<Node>();
        self.0.0.registry.fresh().await?;
        let figures = self.0.figures().await;
        let metrics = |name: &str| -> Option<Box<dyn Object>> {
            let (interval, usage) = figures.nodes.get(name)?;
            let entry = cache.get(&cache.key("", name))?;
            let meta = asked.metadata("", name, &entry)?;
            Some(Box::new(NodeMetrics::new(meta, *interval, *usage)))
        };
        if let Some(name) = &asked.name {
            return asked.one(&call, metrics(name), "nodemetrics", name);
        }
        let names = figures.nodes.keys();
        let found: Vec<_> = names.filter_map(|name| metrics(name)).collect();
        asked.list(&call, &found)
    }
}

#[async_trait]
impl Handler for Pods {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let asked = Asked::of(call.context)?;
        let cache = self.0.0.registry.cache::<Pod>();
        self.0.0.registry.fresh().await?;
        let figures = self.0.figures().await;
        let metrics = |namespace: &str, name: &str, pod: &PodFigure| -> Option<Box<dyn Object>> {
            let entry = cache.get(&cache.key(namespace, name))?;
            let meta = asked.metadata(namespace, name, &entry)?;
            let containers: Vec<_> = pod
                .containers
                .iter()
                .map(|(name, usage)| (name.as_str(), *usage))
                .collect();
            Some(Box::new(PodMetrics::new(meta, pod.interval, &containers)))
        };
        let namespace = call.context.info.namespace.as_str();
        if let Some(name) = &asked.name {
            let found = figures.pods.get(&(namespace.to_owned(), name.clone()));
            let pod = found.and_then(|pod| metrics(namespace, name, pod));
            let name = format!("{namespace}/{name}");
            return asked.one(&call, pod, "podmetrics", &name);
        }
        let pods = figures
            .pods
            .iter()
            .filter(|((of, _), _)| namespace.is_empty() || of == namespace)
            .filter_map(|((namespace, name), pod)| metrics(namespace, name, pod));
        asked.list(&call, &pods.collect::<Vec<_>>())
    }
}

/// What a request asks for.
struct Asked {
    output: Output,
    /// Of a single object.
    name: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    now: Timestamp,
}

impl Asked {
    fn of(context: &Context) -> Result<Self, ApiError> {
        let query = Query::parse(context.query());
        let bad = |error: SelectorError| ApiError::bad_request(format!("{error}"));
        let get = |name| query.get(name).unwrap_or_default();
        let info = &context.info;
        Ok(Asked {
            output: Output::negotiate(context.headers(), &query)?,
            name: (info.verb == "get").then(|| info.name.clone()),
            labels: get("labelSelector").parse().map_err(bad)?,
            fields: get("fieldSelector").parse().map_err(bad)?,
            now: Timestamp::now(),
        })
    }

    /// The metadata of figures about an object; `None` when it is not selected.
    fn metadata(&self, namespace: &str, name: &str, entry: &Entry) -> Option<ObjectMeta> {
        let field = |field: &str| match field {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            _ => None,
        };
        let selected = self.labels.matches(|key| entry.label(key)) && self.fields.matches(field);
        selected.then(|| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            creation_timestamp: Some(Time(self.now)),
            labels: Some(
                entry
                    .labels()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            ),
            ..ObjectMeta::default()
        })
    }

    fn one(
        &self,
        call: &Call<'_>,
        found: Option<Box<dyn Object>>,
        resource: &str,
        name: &str,
    ) -> Result<Response<Body>, ApiError> {
        let subject = GroupResource {
            group: metrics::GROUP,
            resource,
        };
        let object = found.ok_or_else(|| ApiError::not_found(subject, name))?;
        respond::computed(&self.output, call.resource, &*object)
    }

    fn list(
        &self,
        call: &Call<'_>,
        objects: &[Box<dyn Object>],
    ) -> Result<Response<Body>, ApiError> {
        respond::computed_list(&self.output, call.resource, objects)
    }
}
