//! `componentstatuses`: how the scheduler, the controllers and the store fare, computed when
//! somebody asks.
//!
//! Enter at [`ComponentStatuses`]. Upstream asks the components over the network; here they are
//! parts of this process, and say how they are to its health checks.

use async_trait::async_trait;
use axum::body::Body;
use coracle_api::{
    Object,
    selector::{FieldSelector, LabelSelector, SelectorError},
};
use http::Response;
use k8s_openapi::{
    api::core::v1::{ComponentCondition, ComponentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    Probe,
    error::{ApiError, GroupResource},
    handler::{Call, Handler},
    query::Query,
    respond::{self, Output},
    server::ApiServer,
};

const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";
const CONTROLLERS: &str = "controller-manager";
const SCHEDULER: &str = "scheduler";
const STORE: &str = "etcd-0";

/// Answers the requests.
pub struct ComponentStatuses;

#[async_trait]
impl Handler for ComponentStatuses {
    async fn handle(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let (context, server) = (call.context, call.server);
        context.warnings.add(DEPRECATED);
        let query = Query::parse(context.query());
        let output = Output::negotiate(context.headers(), &query)?;
        let mut statuses = statuses(server).await;
        if context.info.verb == "get" {
            let name = &context.info.name;
            let subject = GroupResource {
                group: "",
                resource: "componentstatus",
            };
            let found = statuses
                .iter()
                .find(|status| status.metadata.name.as_ref() == Some(name));
            let found = found.ok_or_else(|| ApiError::not_found(subject, name))?;
            return respond::computed(&output, call.resource, found);
        }
        let bad = |error: SelectorError| ApiError::bad_request(error.to_string());
        let get = |name| query.get(name).unwrap_or_default();
        let labels: LabelSelector = get("labelSelector").parse().map_err(bad)?;
        let fields: FieldSelector = get("fieldSelector").parse().map_err(bad)?;
        statuses.retain(|status| {
            let field = |field: &str| match field {
                "metadata.name" => status.metadata.name.as_deref(),
                "metadata.namespace" => Some(""),
                _ => None,
            };
            labels.matches(|_| None) && fields.matches(field)
        });
        let statuses: Vec<Box<dyn Object>> = statuses
            .into_iter()
            .map(|status| Box::new(status) as Box<dyn Object>)
            .collect();
        respond::computed_list(&output, call.resource, &statuses)
    }
}

async fn statuses(server: &ApiServer) -> Vec<ComponentStatus> {
    let probes = server.health().probes();
    let store = server.registry().fresh().await;
    vec![
        status(SCHEDULER, of(&probes, |name| name == SCHEDULER)),
        status(
            CONTROLLERS,
            of(&probes, |name| name.ends_with("-controller")),
        ),
        status(STORE, store.err().map(|error| error.to_string())),
    ]
}

/// Why those components do not fare well.
fn of(probes: &[Probe], is_one: impl Fn(&str) -> bool) -> Option<String> {
    let mut ours = probes.iter().filter(|probe| is_one(&probe.name)).peekable();
    if ours.peek().is_none() {
        return Some("not running in this server".to_owned());
    }
    let failures: Vec<String> = ours
        .filter_map(|probe| Some(format!("{}: {}", probe.name, probe.failure.as_ref()?)))
        .collect();
    (!failures.is_empty()).then(|| failures.join(", "))
}

fn status(name: &str, failure: Option<String>) -> ComponentStatus {
    let healthy = if failure.is_none() { "True" } else { "False" };
    ComponentStatus {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        conditions: Some(vec![ComponentCondition {
            type_: "Healthy".to_owned(),
            status: healthy.to_owned(),
            message: Some(failure.unwrap_or_else(|| "ok".to_owned())),
            error: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Config, Plugins,
        handler::{Handlers, Place},
        testing::TestServer,
    };

    #[tokio::test]
    async fn components_say_how_they_are() {
        let place = Place {
            group: "",
            resource: "componentstatuses",
            subresource: "",
        };
        let handler: std::sync::Arc<dyn Handler> = std::sync::Arc::new(ComponentStatuses);
        let server = TestServer::with(Config::default(), |_| Plugins {
            handlers: Handlers::new([(place, handler)]),
            ..Plugins::default()
        })
        .await;
        server.server.health().add(|| {
            let probe = |name: &str, failure: Option<&str>| Probe {
                name: name.to_owned(),
                failure: failure.map(str::to_owned),
            };
            vec![
                probe("scheduler", None),
                probe("job-controller", None),
                probe("deployment-controller", Some("it fell")),
            ]
        });
        let path = "/api/v1/componentstatuses";
        let answer = server.get(path).await;
        assert_eq!(answer.warnings(), [format!("299 - \"{DEPRECATED}\"")]);
        let told: Vec<_> = answer.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| {
                json!([
                    item["metadata"]["name"],
                    item["conditions"][0]["status"],
                    item["conditions"][0]["message"]
                ])
            })
            .collect();
        assert_eq!(
            told,
            [
                json!(["scheduler", "True", "ok"]),
                json!([
                    "controller-manager",
                    "False",
                    "deployment-controller: it fell"
                ]),
                json!(["etcd-0", "True", "ok"]),
            ]
        );
        let selected = server
            .get(&format!("{path}?fieldSelector=metadata.name%3Detcd-0"))
            .await;
        assert_eq!(selected.json()["items"].as_array().unwrap().len(), 1);
        let labelled = server.get(&format!("{path}?labelSelector=a%3Db")).await;
        assert_eq!(labelled.json()["items"], json!([]));
        assert_eq!(
            server.get(&format!("{path}/etcd-0")).await.json()["conditions"][0]["type"],
            "Healthy"
        );
        let missing = server.get(&format!("{path}/none")).await;
        assert_eq!(
            (missing.code.as_u16(), missing.message()),
            (404, "componentstatus \"none\" not found".to_owned())
        );
        let watch = server.get(&format!("{path}?watch=1")).await;
        assert_eq!(watch.code, 405);
    }
}
