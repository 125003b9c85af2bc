//! How `kubectl get` shows a HorizontalPodAutoscaler.

use jiff::Timestamp;
use k8s_openapi::{
    api::autoscaling::v2::{
        HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::Value;

use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::list,
};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Reference",
        "string",
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
    ),
    column(
        "Targets",
        "string",
        "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
    ),
    column(
        "MinPods",
        "string",
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
    ),
    column(
        "MaxPods",
        "string",
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
    ),
    column(
        "Replicas",
        "string",
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
    ),
    AGE,
];

/// The cells.
pub(super) fn cells(autoscaler: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&autoscaler.spec, autoscaler.status.as_ref());
    let reference = &spec.scale_target_ref;
    let current = status
        .and_then(|status| status.current_metrics.as_deref())
        .unwrap_or_default();
    let minimum = spec
        .min_replicas
        .map_or_else(|| "<unset>".to_owned(), |minimum| minimum.to_string());
    let replicas = status
        .and_then(|status| status.current_replicas)
        .unwrap_or_default();
    vec![
        name(&autoscaler.metadata),
        Value::from(format!("{}/{}", reference.kind, reference.name)),
        Value::from(metrics(list(&spec.metrics), current)),
        Value::from(minimum),
        Value::from(spec.max_replicas),
        Value::from(replicas),
        age(&autoscaler.metadata, now),
    ]
}

/// The first two metrics, each as `current/target`, and how many more there are.
fn metrics(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    const MAX: usize = 2;
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> = specs
        .iter()
        .enumerate()
        .take(MAX)
        .map(|(index, spec)| metric(spec, statuses.get(index)))
        .collect();
    let shown = shown.join(", ");
    match specs.len() {
        count if count > MAX => format!("{shown} + {} more...", count - MAX),
        _ => shown,
    }
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match spec.type_.as_str() {
        "External" => spec.external.as_ref().map(|source| {
            let current = status.and_then(|status| status.external.as_ref());
            of_object(&source.target, current.map(|status| &status.current))
        }),
        "Object" => spec.object.as_ref().map(|source| {
            let current = status.and_then(|status| status.object.as_ref());
            of_object(&source.target, current.map(|status| &status.current))
        }),
        "Pods" => spec.pods.as_ref().map(|source| {
            let current = status.and_then(|status| status.pods.as_ref());
            let current = current.map(|status| amount(status.current.average_value.as_ref()));
            format!(
                "{}/{}",
                or_unknown(current),
                amount(source.target.average_value.as_ref())
            )
        }),
        "Resource" => spec.resource.as_ref().map(|source| {
            let current = status.and_then(|status| status.resource.as_ref());
            of_resource(
                &source.name,
                &source.target,
                current.map(|status| &status.current),
            )
        }),
        "ContainerResource" => spec.container_resource.as_ref().map(|source| {
            let current = status.and_then(|status| status.container_resource.as_ref());
            of_resource(
                &source.name,
                &source.target,
                current.map(|status| &status.current),
            )
        }),
        _ => None,
    }
    .unwrap_or_else(|| "<unknown type>".to_owned())
}

fn of_object(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(average) => {
            let current = current.and_then(|current| current.average_value.as_ref());
            format!(
                "{}/{} (avg)",
                or_unknown(current.map(|value| value.0.clone())),
                average.0
            )
        }
        None => {
            let current = current.map(|current| amount(current.value.as_ref()));
            format!("{}/{}", or_unknown(current), amount(target.value.as_ref()))
        }
    }
}

fn of_resource(name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    let percent = |percent: i32| format!("{percent}%");
    let (current, target) = match &target.average_value {
        Some(average) => (
            current.map(|current| amount(current.average_value.as_ref())),
            average.0.clone(),
        ),
        None => (
            current
                .and_then(|current| current.average_utilization)
                .map(percent),
            target
                .average_utilization
                .map_or_else(|| "<auto>".to_owned(), percent),
        ),
    };
    format!("{name}: {}/{target}", or_unknown(current))
}

fn amount(quantity: Option<&Quantity>) -> String {
    quantity.map_or_else(|| "<nil>".to_owned(), |quantity| quantity.0.clone())
}

fn or_unknown(current: Option<String>) -> String {
    current.unwrap_or_else(|| "<unknown>".to_owned())
}
