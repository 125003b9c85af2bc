//! HorizontalPodAutoscaler of `autoscaling/v1`, and how it is stored: as one of `autoscaling/v2`.
//!
//! What v1 has no field for stands in annotations, as JSON.
//! Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

mod metrics;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::{v1, v2};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    field::ErrorList,
    kinds::Conversion,
    object::{Object, expect},
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// In percent, when there is no metric at all.
const DEFAULT_CPU_UTILIZATION: i32 = 80;

impl Behaviour for v1::HorizontalPodAutoscaler {
    const SHAPE: Shape<Self> = shape!(status);

    fn default_fields(&mut self) {
        self.spec.min_replicas.get_or_insert(1);
        if stored(self)
            .spec
            .metrics
            .is_none_or(|metrics| metrics.is_empty())
        {
            self.spec.target_cpu_utilization_percentage = Some(80);
        }
    }

    fn validate(&self) -> ErrorList {
        stored(self).validate()
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        stored(self).validate_update(&stored(old))
    }

    fn validate_subresource(&self, old: &Self, subresource: Subresource) -> ErrorList {
        stored(self).validate_subresource(&stored(old), subresource)
    }

    fn columns() -> &'static [Column] {
        v2::HorizontalPodAutoscaler::columns()
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        stored(self).cells(now)
    }
}

/// What is stored of it, which is what is checked.
fn stored(autoscaler: &v1::HorizontalPodAutoscaler) -> v2::HorizontalPodAutoscaler {
    let stored = HorizontalPodAutoscalerConversion.to_stored(autoscaler);
    expect::<v2::HorizontalPodAutoscaler>(&*stored).clone()
}

type Annotations = BTreeMap<String, String>;

pub(super) struct HorizontalPodAutoscalerConversion;

impl Conversion for HorizontalPodAutoscalerConversion {
    fn to_stored(&self, served: &dyn Object) -> Box<dyn Object> {
        let mut autoscaler = expect::<v1::HorizontalPodAutoscaler>(served).clone();
        let annotations = take_annotations(&mut autoscaler.metadata.annotations);
        let stored = v2::HorizontalPodAutoscaler {
            spec: spec_to_v2(autoscaler.spec, &annotations),
            status: autoscaler
                .status
                .map(|status| status_to_v2(status, &annotations)),
            metadata: autoscaler.metadata,
        };
        Box::new(stored)
    }

    fn to_served(&self, stored: &dyn Object) -> Box<dyn Object> {
        let mut autoscaler = expect::<v2::HorizontalPodAutoscaler>(stored).clone();
        take_annotations(&mut autoscaler.metadata.annotations);
        let mut annotations = Annotations::new();
        let spec = spec_to_v1(autoscaler.spec, &mut annotations);
        let status = autoscaler
            .status
            .map(|status| status_to_v1(status, &mut annotations));
        if !annotations.is_empty() {
            autoscaler
                .metadata
                .annotations
                .get_or_insert_default()
                .append(&mut annotations);
        }
        Box::new(v1::HorizontalPodAutoscaler {
            metadata: autoscaler.metadata,
            spec,
            status,
        })
    }
}

/// Takes out the annotations that stand for fields.
fn take_annotations(annotations: &mut Option<Annotations>) -> Annotations {
    let mut taken = Annotations::new();
    if let Some(annotations) = annotations {
        for name in ANNOTATIONS {
            taken.extend(annotations.remove_entry(name));
        }
    }
    if annotations.as_ref().is_some_and(BTreeMap::is_empty) {
        *annotations = None;
    }
    taken
}

/// What an annotation holds; nothing when it is not understood.
fn read<T: DeserializeOwned>(annotations: &Annotations, name: &str) -> Option<T> {
    serde_json::from_str(annotations.get(name)?).ok()
}

fn write<T: Serialize>(annotations: &mut Annotations, name: &str, value: &T) {
    let json = serde_json::to_string(value).expect("a typed value always serialises");
    annotations.insert(name.to_owned(), json);
}

fn spec_to_v2(
    spec: v1::HorizontalPodAutoscalerSpec,
    annotations: &Annotations,
) -> v2::HorizontalPodAutoscalerSpec {
    let mut metrics: Vec<v2::MetricSpec> = read::<Vec<metrics::Metric>>(annotations, METRICS)
        .into_iter()
        .flatten()
        .map(metrics::Metric::into_spec)
        .collect();
    metrics.extend(spec.target_cpu_utilization_percentage.map(cpu_utilization));
    if metrics.is_empty() {
        metrics.push(cpu_utilization(DEFAULT_CPU_UTILIZATION));
    }
    v2::HorizontalPodAutoscalerSpec {
        behavior: read::<metrics::Behavior>(annotations, BEHAVIOR)
            .and_then(metrics::Behavior::into_v2),
        max_replicas: spec.max_replicas,
        metrics: Some(metrics),
        min_replicas: spec.min_replicas,
        scale_target_ref: v2::CrossVersionObjectReference {
            api_version: spec.scale_target_ref.api_version,
            kind: spec.scale_target_ref.kind,
            name: spec.scale_target_ref.name,
        },
    }
}

fn cpu_utilization(percent: i32) -> v2::MetricSpec {
    v2::MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricSource {
            name: "cpu".to_owned(),
            target: v2::MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..Default::default()
            },
        }),
        ..Default::default()
    }
}

/// The target in percent, if the metric is one that v1 has a field for.
fn target_cpu_utilization(metric: &v2::MetricSpec) -> Option<i32> {
    metric
        .resource
        .as_ref()
        .filter(|resource| metric.type_ == "Resource" && resource.name == "cpu")?
        .target
        .average_utilization
}

fn spec_to_v1(
    spec: v2::HorizontalPodAutoscalerSpec,
    annotations: &mut Annotations,
) -> v1::HorizontalPodAutoscalerSpec {
    let all = spec.metrics.unwrap_or_default();
    let target_cpu_utilization_percentage = all.iter().find_map(target_cpu_utilization);
    let others: Vec<metrics::Metric> = all
        .into_iter()
        .filter(|metric| target_cpu_utilization(metric).is_none())
        .map(metrics::Metric::from)
        .collect();
    if !others.is_empty() {
        write(annotations, METRICS, &others);
    }
    if let Some(behavior) = spec.behavior {
        write(annotations, BEHAVIOR, &metrics::Behavior::from(behavior));
    }
    v1::HorizontalPodAutoscalerSpec {
        max_replicas: spec.max_replicas,
        min_replicas: spec.min_replicas,
        scale_target_ref: v1::CrossVersionObjectReference {
            api_version: spec.scale_target_ref.api_version,
            kind: spec.scale_target_ref.kind,
            name: spec.scale_target_ref.name,
        },
        target_cpu_utilization_percentage,
    }
}

fn status_to_v2(
    status: v1::HorizontalPodAutoscalerStatus,
    annotations: &Annotations,
) -> v2::HorizontalPodAutoscalerStatus {
    let current_cpu = |percent| v2::MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(v2::ResourceMetricStatus {
            name: "cpu".to_owned(),
            current: v2::MetricValueStatus {
                average_utilization: Some(percent),
                ..Default::default()
            },
        }),
        ..Default::default()
    };
    // The annotation has more than the field.
    let current_metrics = read::<Vec<metrics::Metric>>(annotations, CURRENT_METRICS)
        .map(|all| all.into_iter().map(metrics::Metric::into_status).collect())
        .or_else(|| {
            let percent = status.current_cpu_utilization_percentage?;
            Some(vec![current_cpu(percent)])
        });
    v2::HorizontalPodAutoscalerStatus {
        conditions: read(annotations, CONDITIONS),
        current_metrics,
        current_replicas: Some(status.current_replicas).filter(|count| *count != 0),
        desired_replicas: status.desired_replicas,
        last_scale_time: status.last_scale_time,
        observed_generation: status.observed_generation,
    }
}

fn status_to_v1(
    status: v2::HorizontalPodAutoscalerStatus,
    annotations: &mut Annotations,
) -> v1::HorizontalPodAutoscalerStatus {
    let all = status.current_metrics.unwrap_or_default();
    let current_cpu_utilization_percentage = all
        .iter()
        .filter(|metric| metric.type_ == "Resource")
        .filter_map(|metric| metric.resource.as_ref())
        .filter(|resource| resource.name == "cpu")
        .filter_map(|resource| resource.current.average_utilization)
        .next_back();
    if !all.is_empty() {
        let all: Vec<metrics::Metric> = all.into_iter().map(metrics::Metric::from).collect();
        write(annotations, CURRENT_METRICS, &all);
    }
    if let Some(conditions) = status
        .conditions
        .filter(|conditions| !conditions.is_empty())
    {
        write(annotations, CONDITIONS, &conditions);
    }
    v1::HorizontalPodAutoscalerStatus {
        current_cpu_utilization_percentage,
        current_replicas: status.current_replicas.unwrap_or_default(),
        desired_replicas: status.desired_replicas,
        last_scale_time: status.last_scale_time,
        observed_generation: status.observed_generation,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(spec: &Value) -> v2::HorizontalPodAutoscaler {
        let json = json!({"metadata": {"name": "web"}, "spec": spec, "status": {
            "currentReplicas": 1, "desiredReplicas": 2,
            "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_v1_has_no_field_for_survives_in_annotations() {
        let metric = |kind: &str, source: Value| {
            let mut metric = json!({"type": kind});
            let mut name = kind.to_owned();
            name[..1].make_ascii_lowercase();
            metric[name] = source;
            metric
        };
        let object = json!({"kind": "Ingress", "name": "main", "apiVersion": "v1"});
        let stored = stored(&json!({
            "maxReplicas": 5, "minReplicas": 2,
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3, "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 2}]}},
            "metrics": [
                metric("Object", json!({"describedObject": object, "metric": {"name": "hits"},
                    "target": {"type": "Value", "value": "10"}})),
                metric("Pods", json!({"metric": {"name": "q"},
                    "target": {"type": "AverageValue", "averageValue": "1"}})),
                metric("External", json!({"metric": {"name": "x", "selector":
                    {"matchLabels": {"a": "b"}}}, "target": {"type": "Value", "value": "3"}})),
                metric("ContainerResource", json!({"name": "cpu", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 7}})),
                metric("Resource", json!({"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 60}})),
            ],
        }));
        let served = HorizontalPodAutoscalerConversion.to_served(&stored);
        let v1 = expect::<v1::HorizontalPodAutoscaler>(&*served);
        assert_eq!(v1.spec.target_cpu_utilization_percentage, Some(60));
        // The fields stand in upstream's order.
        let annotations = v1.metadata.annotations.as_ref().unwrap();
        let expected = concat!(
            r#"[{"type":"Object","object":{"target":{"kind":"Ingress","name":"main","apiVersion":"v1"},"#,
            r#""metricName":"hits","targetValue":"10"}},"#,
            r#"{"type":"Pods","pods":{"metricName":"q","targetAverageValue":"1"}},"#,
            r#"{"type":"External","external":{"metricName":"x","#,
            r#""metricSelector":{"matchLabels":{"a":"b"}},"targetValue":"3"}},"#,
            r#"{"type":"ContainerResource","containerResource":{"name":"cpu","#,
            r#""targetAverageUtilization":7,"container":"c"}}]"#,
        );
        assert_eq!(
            annotations["autoscaling.alpha.kubernetes.io/metrics"],
            expected
        );
        let back = HorizontalPodAutoscalerConversion.to_stored(&*served);
        assert_eq!(back.to_value(), serde_json::to_value(&stored).unwrap());
    }

    #[test]
    fn without_any_metric_there_is_a_cpu_target() {
        let json = json!({"metadata": {}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}}});
        let autoscaler: v1::HorizontalPodAutoscaler = serde_json::from_value(json).unwrap();
        let stored = HorizontalPodAutoscalerConversion.to_stored(&autoscaler);
        let metrics = &expect::<v2::HorizontalPodAutoscaler>(&*stored).spec.metrics;
        assert_eq!(
            target_cpu_utilization(&metrics.as_ref().unwrap()[0]),
            Some(80)
        );
    }

    #[test]
    fn autoscalers() {
        let yaml = include_str!("../../testdata/horizontal_pod_autoscaler_v1.yaml");
        crate::testing::run::<v1::HorizontalPodAutoscaler>(yaml);
    }
}
