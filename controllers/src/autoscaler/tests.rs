//! A look at an autoscaler, against an API that is made up: what it asks, writes and tells.

use serde_json::{Value, json};

use super::*;
use crate::{Config, fakes::FakeApi, fakes::status};

const SCALE: &str = "/apis/apps/v1/namespaces/ns/deployments/web/scale";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/ns/pods";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/ns";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/ns";

struct World {
    api: Arc<FakeApi>,
    controller: Controller,
}

fn scale(replicas: i32, selector: &str) -> Value {
    json!({ "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": { "name": "web", "namespace": "ns", "resourceVersion": "7" },
        "spec": { "replicas": replicas },
        "status": { "replicas": replicas, "selector": selector } })
}

fn resources(group_version: &str, plural: &str, kind: &str) -> Value {
    json!({ "kind": "APIResourceList", "groupVersion": group_version, "resources": [
        { "name": plural, "singularName": "", "namespaced": true, "kind": kind,
            "verbs": ["get"] }] })
}

impl World {
    /// Ready pods that each request a core, of a Deployment of that many replicas.
    async fn new(pods: i32, replicas: i32) -> Self {
        let api = FakeApi::new();
        let pod = |number: i32| {
            json!({ "metadata": { "name": format!("p{number}"), "namespace": "ns", "uid": number.to_string(),
                    "resourceVersion": "1", "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "resources": {
                    "requests": { "cpu": "1", "memory": "1Gi" } } }] },
                "status": { "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                    "conditions": [{ "type": "Ready", "status": "True",
                        "lastTransitionTime": "2026-01-01T00:00:00Z" }] } })
        };
        let pods: Vec<Value> = (0..pods).map(pod).collect();
        let list = json!({ "kind": "PodList", "apiVersion": "v1",
            "metadata": { "resourceVersion": "5" }, "items": pods });
        api.answer("GET /api/v1/pods", 200, list);
        let none = json!({ "metadata": { "resourceVersion": "5" }, "items": [] });
        let path = "GET /apis/autoscaling/v2/horizontalpodautoscalers";
        api.answer(path, 200, none);
        let deployments = resources("apps/v1", "deployments", "Deployment");
        api.answer("GET /apis/apps/v1", 200, deployments);
        let ingresses = resources("networking.k8s.io/v1", "ingresses", "Ingress");
        api.answer("GET /apis/networking.k8s.io/v1", 200, ingresses);
        if replicas >= 0 {
            let scale = scale(replicas, "app=web");
            api.answer(&format!("GET {SCALE}"), 200, scale.clone());
            api.answer(&format!("PUT {SCALE}"), 200, scale);
        }
        let version = |version: &str| {
            let group_version = format!("custom.metrics.k8s.io/{version}");
            json!({ "groupVersion": group_version, "version": version })
        };
        let group = json!({ "kind": "APIGroup", "name": "custom.metrics.k8s.io",
            "versions": [version("v1beta2"), version("v1beta1")],
            "preferredVersion": version("v1beta2") });
        api.answer("GET /apis/custom.metrics.k8s.io", 200, group);
        let client = api.client();
        let informers = coracle_client::Informers::new(client.clone());
        let context = Context::new(client, informers, Config::default());
        let controller = Controller::new(&context);
        controller.pods.synced().await;
        World { api, controller }
    }

    /// What the pods use: thousandths of a core, and Mi of memory.
    fn usage(&self, used: &[(i64, i64)]) {
        let item = |(number, (cpu, memory)): (usize, &(i64, i64))| {
            json!({ "metadata": { "name": format!("p{number}") },
                "timestamp": Timestamp::now().to_string(), "window": "15s",
                "containers": [{ "name": "c", "usage": {
                    "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi") } }] })
        };
        let items: Vec<Value> = used.iter().enumerate().map(item).collect();
        self.api
            .answer(&format!("GET {PODS}"), 200, json!({ "items": items }));
    }

    async fn look(&self, spec: Value) -> (HorizontalPodAutoscalerStatus, Result<(), String>) {
        self.look_as("web", spec).await
    }

    async fn look_as(
        &self,
        name: &str,
        spec: Value,
    ) -> (HorizontalPodAutoscalerStatus, Result<(), String>) {
        let mut object = json!({ "metadata": { "name": name, "namespace": "ns", "uid": "u" },
            "spec": { "maxReplicas": 10, "scaleTargetRef":
                { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" } } });
        for (key, value) in spec.as_object().expect("a map") {
            object["spec"][key] = value.clone();
        }
        let object: HorizontalPodAutoscaler = serde_json::from_value(object).expect("a spec");
        let status = serde_json::from_value(json!({ "currentMetrics": [{ "type": "Stale" }],
            "desiredReplicas": 0 }));
        let mut look = Look {
            object: &object,
            status: status.expect("a status"),
            now: Timestamp::now(),
        };
        let key = Key::of(&object.metadata);
        let outcome = self.controller.look(&key, &mut look).await;
        (look.status, outcome)
    }

    async fn event(&self, reason: &str) -> String {
        let request = "POST /api/v1/namespaces/ns/events";
        let event = self
            .api
            .asked(request, |asked| asked.body["reason"] == reason);
        let event = event.await;
        event.body["message"].as_str().expect("text").to_owned()
    }

    /// The size that was written.
    async fn written(&self) -> Value {
        let put = self.api.asked(&format!("PUT {SCALE}"), |_| true).await;
        put.body["spec"]["replicas"].clone()
    }
}

/// `status reason` of a condition, and its message.
fn told(status: &HorizontalPodAutoscalerStatus, type_: &str) -> (String, String) {
    let found = conditions::find(status.conditions.as_ref(), type_).expect(type_);
    let reason = found.reason.clone().unwrap_or_default();
    let message = found.message.clone().unwrap_or_default();
    (format!("{} {reason}", found.status), message)
}

fn cpu(percent: i32) -> Value {
    json!({ "type": "Resource", "resource": { "name": "cpu",
        "target": { "type": "Utilization", "averageUtilization": percent } } })
}

fn external(target: &Value) -> Value {
    json!({ "type": "External", "external": { "target": target,
        "metric": { "name": "queue", "selector": { "matchLabels": { "for": "web" } } } } })
}

fn of_ingress(target: &Value) -> Value {
    json!({ "type": "Object", "object": { "target": target, "metric": { "name": "hits" },
        "describedObject": { "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "name": "front" } } })
}

fn values(items: &[&str]) -> Value {
    let items = items.iter().map(|value| {
        json!({ "describedObject": { "kind": "Ingress", "name": "front" }, "value": value,
            "timestamp": "2026-01-01T00:00:00Z" })
    });
    json!({ "items": items.collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_busy_target_grows_and_says_why() {
    let world = World::new(3, 3).await;
    world.usage(&[(300, 100), (500, 100), (700, 100)]);
    let (status, outcome) = world.look(json!({ "metrics": [cpu(30)] })).await;
    assert_eq!((outcome, world.written().await), (Ok(()), json!(5)));
    assert_eq!(
        (status.current_replicas, status.desired_replicas),
        (Some(3), 5)
    );
    let metrics = serde_json::to_value(&status.current_metrics).expect("json");
    let current = json!({ "averageUtilization": 50, "averageValue": "500m" });
    let expected = json!([{ "type": "Resource",
        "resource": { "name": "cpu", "current": current } }]);
    assert_eq!(metrics, expected);
    for (type_, reason, message) in [
        (
            ABLE,
            "True SucceededRescale",
            "the HPA controller was able to update the target scale to 5",
        ),
        (
            ACTIVE,
            "True ValidMetricFound",
            "the HPA was able to successfully calculate a replica \
            count from cpu resource utilization (percentage of request)",
        ),
        (
            LIMITED,
            "False DesiredWithinRange",
            "the desired count is within the acceptable range",
        ),
    ] {
        assert_eq!(
            told(&status, type_),
            (reason.to_owned(), message.to_owned())
        );
    }
    let why = "New size: 5; reason: cpu resource utilization (percentage of request) above target";
    assert_eq!(world.event("SuccessfulRescale").await, why);
}

#[tokio::test]
async fn a_size_outside_of_the_bounds_is_set_without_asking_metrics() {
    for (replicas, written, why) in [
        (12, 10, "Current number of replicas above Spec.MaxReplicas"),
        (1, 2, "Current number of replicas below Spec.MinReplicas"),
    ] {
        let world = World::new(0, replicas).await;
        let spec = json!({ "minReplicas": 2, "metrics": [cpu(30)] });
        let (status, outcome) = world.look(spec).await;
        assert_eq!((outcome, world.written().await), (Ok(()), json!(written)));
        assert_eq!(status.current_metrics, None);
        let why = format!("New size: {written}; reason: {why}");
        assert_eq!(world.event("SuccessfulRescale").await, why);
    }
    let world = World::new(0, 0).await;
    let (status, outcome) = world.look(json!({ "metrics": [cpu(30)] })).await;
    let message = "scaling is disabled since the replica count of the target is zero";
    let disabled = ("False ScalingDisabled".to_owned(), message.to_owned());
    assert_eq!((outcome, told(&status, ACTIVE)), (Ok(()), disabled));
}

#[tokio::test]
async fn what_is_known_is_enough_to_grow_but_not_to_shrink() {
    let broken = json!({ "type": "Pods", "pods": { "metric": { "name": "qps" },
        "target": { "type": "AverageValue", "averageValue": "1" } } });
    let spec = json!({ "metrics": [broken, cpu(50)] });
    let world = World::new(2, 2).await;
    world.usage(&[(1000, 1), (1000, 1)]);
    let (status, outcome) = world.look(spec.clone()).await;
    assert_eq!((outcome, world.written().await), (Ok(()), json!(4)));
    // Each status stands where its metric does.
    let types = status.current_metrics.into_iter().flatten();
    assert_eq!(
        types.map(|one| one.type_).collect::<Vec<_>>(),
        ["", "Resource"]
    );
    let why = "unable to get metric qps: unable to fetch metrics from custom metrics API: the \
        server could not find the requested resource (get pods.custom.metrics.k8s.io)";
    assert_eq!(world.event("FailedGetPodsMetric").await, why);

    let world = World::new(2, 2).await;
    world.usage(&[(10, 1), (10, 1)]);
    let (status, outcome) = world.look(spec).await;
    let error = format!(
        "invalid metrics (1 invalid out of 2), first error is: failed to get pods metric value: {why}"
    );
    assert_eq!(outcome, Err(error.clone()));
    let message = format!("the HPA was unable to compute the replica count: {why}");
    assert_eq!(
        told(&status, ACTIVE),
        ("False FailedGetPodsMetric".to_owned(), message)
    );
    assert_eq!(world.event("FailedComputeMetricsReplicas").await, error);
}

#[tokio::test]
async fn metrics_of_every_source_are_asked_for_and_compared() {
    let value = |value: &str| json!({ "type": "Value", "value": value });
    let average = |value: &str| json!({ "type": "AverageValue", "averageValue": value });
    let memory = json!({ "type": "Resource",
        "resource": { "name": "memory", "target": average("100Mi") } });
    let container = json!({ "type": "ContainerResource", "containerResource": {
        "name": "cpu", "container": "c",
        "target": { "type": "Utilization", "averageUtilization": 30 } } });
    let pods = json!({ "type": "Pods", "pods": { "target": average("15"),
        "metric": { "name": "qps", "selector": { "matchLabels": { "verb": "GET" } } } } });
    let spelled = "&LabelSelector{MatchLabels:map[string]string{for: web,},\
        MatchExpressions:[]LabelSelectorRequirement{},}";
    // The metric, the size it asks for, its name in words, and what its status says.
    for (metric, size, name, current) in [
        (
            memory,
            6,
            "memory resource".to_owned(),
            json!({ "averageValue": "200Mi" }),
        ),
        (
            container,
            5,
            "cpu container resource utilization (percentage of request)".to_owned(),
            json!({ "averageUtilization": 50, "averageValue": "500m" }),
        ),
        (
            pods,
            4,
            "pods metric qps".to_owned(),
            json!({ "averageValue": "20" }),
        ),
        (
            of_ingress(&value("15")),
            4,
            "Ingress metric hits".to_owned(),
            json!({ "value": "20" }),
        ),
        (
            of_ingress(&average("5")),
            4,
            "external metric hits(nil)".to_owned(),
            json!({ "averageValue": "6667m" }),
        ),
        (
            external(&value("6")),
            5,
            format!("external metric queue({spelled})"),
            json!({ "value": "9" }),
        ),
        (
            external(&average("2250m")),
            4,
            format!("external metric queue({spelled})"),
            json!({ "averageValue": "3" }),
        ),
    ] {
        let world = World::new(3, 3).await;
        world.usage(&[(300, 200), (500, 200), (700, 200)]);
        let item = |(number, value): (usize, &str)| {
            json!({ "value": value,
            "describedObject": { "name": format!("p{number}") } })
        };
        let items = ["20", "10", "30"].into_iter().enumerate().map(item);
        let list = json!({ "items": items.collect::<Vec<_>>() });
        world
            .api
            .answer(&format!("GET {CUSTOM}/pods/*/qps"), 200, list);
        let path = format!("GET {CUSTOM}/ingresses.networking.k8s.io/front/hits");
        world.api.answer(&path, 200, values(&["20"]));
        let path = format!("GET {EXTERNAL}/queue");
        world.api.answer(&path, 200, values(&["8500m", "500m"]));
        let (status, outcome) = world.look(json!({ "metrics": [metric] })).await;
        assert_eq!(
            (outcome, world.written().await),
            (Ok(()), json!(size)),
            "{name}"
        );
        let why = format!("New size: {size}; reason: {name} above target");
        assert_eq!(world.event("SuccessfulRescale").await, why);
        let status = serde_json::to_value(&status.current_metrics).expect("json");
        let status = status[0].as_object().expect("one").values();
        let found = status.filter_map(|part| part.get("current")).next();
        assert_eq!(found, Some(&current), "{name}");
        for asked in world.api.all() {
            let query = match asked.path.rsplit('/').next() {
                Some("qps") => "labelSelector=app%3Dweb&metricLabelSelector=verb%3DGET",
                Some("hits") => "metricLabelSelector=",
                Some("queue") => "labelSelector=for%3Dweb",
                _ => continue,
            };
            assert_eq!(asked.query, query);
        }
    }
}

#[tokio::test]
async fn metrics_that_cannot_be_had_are_told_of() {
    let value = json!({ "type": "Value", "value": "1" });
    let average = json!({ "type": "AverageValue", "averageValue": "1" });
    let custom = "unable to fetch metrics from custom metrics API";
    let outside = "unable to fetch metrics from external metrics API";
    let spelled = "&LabelSelector{MatchLabels:map[string]string{for: web,},\
        MatchExpressions:[]LabelSelectorRequirement{},}";
    for (metric, reason, why) in [
        (
            cpu(50),
            "FailedGetResourceMetric",
            "failed to get cpu utilization: unable to get metrics \
            for resource cpu: unable to fetch metrics from resource metrics API: the server could \
            not find the requested resource (get pods.metrics.k8s.io)"
                .to_owned(),
        ),
        (
            of_ingress(&value),
            "FailedGetObjectMetric",
            format!(
                "unable to get metric hits: {custom}: \
            the custom metrics API server returned 2 results when we asked for exactly one on \
            Ingress ns/front"
            ),
        ),
        (
            of_ingress(&average),
            "FailedGetObjectMetric",
            format!(
                "failed to get hits object metric: \
            unable to get metric hits: {custom}: the custom metrics API server returned 2 results \
            when we asked for exactly one on Ingress ns/front"
            ),
        ),
        (
            external(&value),
            "FailedGetExternalMetric",
            format!(
                "failed to get external metric \
            queue: unable to get external metric ns/queue/{spelled}: {outside}: overloaded"
            ),
        ),
        (
            external(&average),
            "FailedGetExternalMetric",
            format!(
                "failed to get queue external \
            metric: unable to get external metric ns/queue/{spelled}: {outside}: overloaded"
            ),
        ),
        (
            external(&json!({ "type": "Value" })),
            "FailedGetExternalMetric",
            format!(
                "failed to get \
            external metric queue: unable to get external metric ns/queue/{spelled}: {outside}: \
            overloaded"
            ),
        ),
    ] {
        let world = World::new(1, 1).await;
        let path = format!("GET {CUSTOM}/ingresses.networking.k8s.io/front/hits");
        world.api.answer(&path, 200, values(&["1", "2"]));
        let (code, body) = status(503, "ServiceUnavailable", "overloaded");
        world
            .api
            .answer(&format!("GET {EXTERNAL}/queue"), code, body);
        let (status, outcome) = world.look(json!({ "metrics": [metric] })).await;
        assert!(outcome.is_err());
        let message = format!("the HPA was unable to compute the replica count: {why}");
        assert_eq!(told(&status, ACTIVE), (format!("False {reason}"), message));
        assert_eq!(world.event(reason).await, why);
    }
}

#[tokio::test]
async fn selectors_must_be_there_readable_and_nobody_elses() {
    let missing = "the HPA target's scale is missing a selector";
    let unreadable = "couldn't convert selector into a corresponding internal selector object: ";
    for (selector, event, message) in [
        ("", "SelectorRequired", missing),
        ("cheddar cheese", "InvalidSelector", unreadable),
    ] {
        let world = World::new(1, -1).await;
        let path = format!("GET {SCALE}");
        world.api.answer(&path, 200, scale(1, selector));
        let (status, outcome) = world.look(json!({ "metrics": [cpu(50)] })).await;
        let (reason, told) = told(&status, ACTIVE);
        assert_eq!(reason, "False InvalidSelector");
        assert!(told.starts_with(message), "{told}");
        assert_eq!(
            world.event("FailedComputeMetricsReplicas").await,
            outcome.expect_err("none")
        );
        world.event(event).await;
        assert_eq!(
            (status.current_replicas, status.current_metrics),
            (Some(1), None)
        );
    }
    let world = World::new(1, 1).await;
    world.usage(&[(500, 1)]);
    let spec = json!({ "metrics": [cpu(50)] });
    let (_, alone) = world.look_as("one", spec.clone()).await;
    assert_eq!(alone, Ok(()));
    let (status, outcome) = world.look_as("two", spec).await;
    let why = "pods by selector app=web are controlled by multiple HPAs: [ns/one ns/two]";
    assert_eq!(outcome, Err(why.to_owned()));
    assert_eq!(
        told(&status, ACTIVE),
        ("False AmbiguousSelector".to_owned(), why.to_owned())
    );
    assert_eq!(world.event("AmbiguousSelector").await, why);
}

#[tokio::test]
async fn a_target_is_found_in_any_version_of_its_group() {
    let world = World::new(1, 1).await;
    world.usage(&[(500, 1)]);
    let version = json!({ "groupVersion": "apps/v1", "version": "v1" });
    let group = json!({ "kind": "APIGroup", "name": "apps", "versions": [version.clone()],
        "preferredVersion": version });
    let groups = json!({ "kind": "APIGroupList", "groups": [group] });
    world.api.answer("GET /apis", 200, groups);
    let of = |version: &str, kind: &str| {
        json!({ "metrics": [cpu(50)], "scaleTargetRef":
        { "apiVersion": version, "kind": kind, "name": "web" } })
    };
    let (_, outcome) = world.look(of("apps/v1beta2", "Deployment")).await;
    assert_eq!(outcome, Ok(()));
    let (status, outcome) = world.look(of("apps/v1", "Boat")).await;
    let why = "no matches for kind \"Boat\" in group \"apps\"";
    assert_eq!(outcome, Err(why.to_owned()));
    let message = format!("the HPA controller was unable to get the target's current scale: {why}");
    assert_eq!(
        told(&status, ABLE),
        ("False FailedGetScale".to_owned(), message)
    );
    assert_eq!(world.event("FailedGetScale").await, why);
}

#[tokio::test]
async fn a_conflict_with_another_writer_is_tried_again_and_other_failures_are_told() {
    let conflict = || status(409, "Conflict", "the object has been modified");
    for (conflicts, succeeds) in [(2, true), (5, false)] {
        let world = World::new(1, -1).await;
        world.usage(&[(500, 1)]);
        let (get, put) = (format!("GET {SCALE}"), format!("PUT {SCALE}"));
        world.api.answer(&get, 200, scale(12, "app=web"));
        for _ in 0..conflicts {
            let (code, body) = conflict();
            world.api.answer(&put, code, body);
        }
        world.api.answer(&put, 200, scale(10, "app=web"));
        let (status, outcome) = world.look(json!({ "metrics": [cpu(50)] })).await;
        assert_eq!(outcome.is_ok(), succeeds);
        if succeeds {
            assert_eq!(status.desired_replicas, 10);
            continue;
        }
        let message = "the HPA controller was unable to update the target scale: the object has been modified";
        assert_eq!(
            told(&status, ABLE),
            ("False FailedUpdateScale".to_owned(), message.to_owned())
        );
        assert_eq!(
            world.event("FailedRescale").await,
            "New size: 10; reason: Current number of replicas above Spec.MaxReplicas; error: the \
             object has been modified"
        );
    }
}
