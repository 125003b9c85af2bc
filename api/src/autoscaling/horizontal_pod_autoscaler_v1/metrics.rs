//! Metrics and behavior in the form that the annotations of `autoscaling/v1` have.

use k8s_openapi::{
    api::autoscaling::v2,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};
use serde::{Deserialize, Serialize};

/// A metric, of a spec or of a status.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metric {
    #[serde(rename = "type")]
    type_: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<Source>,
}

/// The fields of all sources; each has some of them. They stand as upstream writes them.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_utilization: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_utilization: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

/// The object that a metric is of.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Target {
    kind: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<String>,
}

impl From<v2::CrossVersionObjectReference> for Target {
    fn from(reference: v2::CrossVersionObjectReference) -> Self {
        Target {
            kind: reference.kind,
            name: reference.name,
            api_version: reference.api_version,
        }
    }
}

impl From<Target> for v2::CrossVersionObjectReference {
    fn from(target: Target) -> Self {
        v2::CrossVersionObjectReference {
            kind: target.kind,
            name: target.name,
            api_version: target.api_version,
        }
    }
}

/// What a field without `omitempty` says when there is nothing to say.
fn or_zero(quantity: Option<Quantity>) -> Option<Quantity> {
    Some(quantity.unwrap_or_else(|| Quantity("0".to_owned())))
}

fn unless_zero(quantity: Option<Quantity>) -> Option<Quantity> {
    quantity.filter(|quantity| quantity.0 != "0")
}

impl From<v2::MetricSpec> for Metric {
    fn from(metric: v2::MetricSpec) -> Self {
        Metric {
            type_: metric.type_,
            object: metric.object.map(|source| Source {
                target: Some(source.described_object.into()),
                metric_name: Some(source.metric.name),
                selector: source.metric.selector,
                target_value: or_zero(source.target.value),
                average_value: source.target.average_value,
                ..Source::default()
            }),
            pods: metric.pods.map(|source| Source {
                metric_name: Some(source.metric.name),
                selector: source.metric.selector,
                target_average_value: or_zero(source.target.average_value),
                ..Source::default()
            }),
            resource: metric
                .resource
                .map(|source| resource_target(source.name, None, source.target)),
            container_resource: metric
                .container_resource
                .map(|source| resource_target(source.name, Some(source.container), source.target)),
            external: metric.external.map(|source| Source {
                metric_name: Some(source.metric.name),
                metric_selector: source.metric.selector,
                target_value: source.target.value,
                target_average_value: source.target.average_value,
                ..Source::default()
            }),
        }
    }
}

fn resource_target(name: String, container: Option<String>, target: v2::MetricTarget) -> Source {
    Source {
        name: Some(name),
        container,
        target_average_utilization: target.average_utilization,
        target_average_value: target.average_value,
        ..Source::default()
    }
}

impl From<v2::MetricStatus> for Metric {
    fn from(metric: v2::MetricStatus) -> Self {
        Metric {
            type_: metric.type_,
            object: metric.object.map(|source| Source {
                target: Some(source.described_object.into()),
                metric_name: Some(source.metric.name),
                selector: source.metric.selector,
                current_value: or_zero(source.current.value),
                average_value: source.current.average_value,
                ..Source::default()
            }),
            pods: metric.pods.map(|source| Source {
                metric_name: Some(source.metric.name),
                selector: source.metric.selector,
                current_average_value: or_zero(source.current.average_value),
                ..Source::default()
            }),
            resource: metric
                .resource
                .map(|source| resource_current(source.name, None, source.current)),
            container_resource: metric.container_resource.map(|source| {
                resource_current(source.name, Some(source.container), source.current)
            }),
            external: metric.external.map(|source| Source {
                metric_name: Some(source.metric.name),
                metric_selector: source.metric.selector,
                current_value: or_zero(source.current.value),
                current_average_value: source.current.average_value,
                ..Source::default()
            }),
        }
    }
}

fn resource_current(
    name: String,
    container: Option<String>,
    current: v2::MetricValueStatus,
) -> Source {
    Source {
        name: Some(name),
        container,
        current_average_utilization: current.average_utilization,
        current_average_value: or_zero(current.average_value),
        ..Source::default()
    }
}

impl Metric {
    pub fn into_spec(self) -> v2::MetricSpec {
        v2::MetricSpec {
            type_: self.type_,
            object: self.object.map(|source| {
                let is_average = source.average_value.is_some();
                v2::ObjectMetricSource {
                    target: v2::MetricTarget {
                        type_: value_type(is_average),
                        value: if is_average {
                            unless_zero(source.target_value)
                        } else {
                            or_zero(source.target_value)
                        },
                        average_value: source.average_value,
                        average_utilization: None,
                    },
                    described_object: source.target.unwrap_or_default().into(),
                    metric: identifier(source.metric_name, source.selector),
                }
            }),
            pods: self.pods.map(|source| v2::PodsMetricSource {
                target: v2::MetricTarget {
                    type_: value_type(true),
                    average_value: or_zero(source.target_average_value),
                    ..Default::default()
                },
                metric: identifier(source.metric_name, source.selector),
            }),
            resource: self.resource.map(|source| v2::ResourceMetricSource {
                name: source.name.clone().unwrap_or_default(),
                target: source.into_target(),
            }),
            container_resource: self.container_resource.map(|source| {
                v2::ContainerResourceMetricSource {
                    name: source.name.clone().unwrap_or_default(),
                    container: source.container.clone().unwrap_or_default(),
                    target: source.into_target(),
                }
            }),
            external: self.external.map(|source| v2::ExternalMetricSource {
                target: v2::MetricTarget {
                    type_: value_type(source.target_value.is_none()),
                    value: source.target_value,
                    average_value: source.target_average_value,
                    average_utilization: None,
                },
                metric: identifier(source.metric_name, source.metric_selector),
            }),
        }
    }

    pub fn into_status(self) -> v2::MetricStatus {
        let value =
            |value: Option<Quantity>, average_value: Option<Quantity>| v2::MetricValueStatus {
                value,
                average_value,
                average_utilization: None,
            };
        v2::MetricStatus {
            type_: self.type_,
            object: self.object.map(|source| v2::ObjectMetricStatus {
                current: value(or_zero(source.current_value), source.average_value),
                described_object: source.target.unwrap_or_default().into(),
                metric: identifier(source.metric_name, source.selector),
            }),
            pods: self.pods.map(|source| v2::PodsMetricStatus {
                current: value(None, or_zero(source.current_average_value)),
                metric: identifier(source.metric_name, source.selector),
            }),
            resource: self.resource.map(|source| v2::ResourceMetricStatus {
                name: source.name.clone().unwrap_or_default(),
                current: source.into_current(),
            }),
            container_resource: self.container_resource.map(|source| {
                v2::ContainerResourceMetricStatus {
                    name: source.name.clone().unwrap_or_default(),
                    container: source.container.clone().unwrap_or_default(),
                    current: source.into_current(),
                }
            }),
            external: self.external.map(|source| v2::ExternalMetricStatus {
                current: value(or_zero(source.current_value), source.current_average_value),
                metric: identifier(source.metric_name, source.metric_selector),
            }),
        }
    }
}

impl Source {
    fn into_target(self) -> v2::MetricTarget {
        v2::MetricTarget {
            type_: match self.target_average_utilization {
                Some(_) => "Utilization".to_owned(),
                None => value_type(true),
            },
            average_utilization: self.target_average_utilization,
            average_value: self.target_average_value,
            value: None,
        }
    }

    fn into_current(self) -> v2::MetricValueStatus {
        v2::MetricValueStatus {
            average_utilization: self.current_average_utilization,
            average_value: or_zero(self.current_average_value),
            value: None,
        }
    }
}

fn value_type(is_average: bool) -> String {
    if is_average { "AverageValue" } else { "Value" }.to_owned()
}

fn identifier(name: Option<String>, selector: Option<LabelSelector>) -> v2::MetricIdentifier {
    v2::MetricIdentifier {
        name: name.unwrap_or_default(),
        selector,
    }
}

/// Upstream writes its internal type into the annotation, with the names that Go has.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Behavior {
    #[serde(alias = "scaleUp")]
    scale_up: Option<Rules>,
    #[serde(alias = "scaleDown")]
    scale_down: Option<Rules>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Rules {
    #[serde(alias = "stabilizationWindowSeconds")]
    stabilization_window_seconds: Option<i32>,
    #[serde(alias = "selectPolicy")]
    select_policy: Option<String>,
    #[serde(alias = "policies")]
    policies: Option<Vec<Policy>>,
    #[serde(alias = "tolerance")]
    tolerance: Option<Quantity>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Policy {
    #[serde(rename = "Type", alias = "type")]
    type_: String,
    #[serde(alias = "value")]
    value: i32,
    #[serde(alias = "periodSeconds")]
    period_seconds: i32,
}

impl From<v2::HorizontalPodAutoscalerBehavior> for Behavior {
    fn from(behavior: v2::HorizontalPodAutoscalerBehavior) -> Self {
        let rules = |rules: v2::HPAScalingRules| Rules {
            stabilization_window_seconds: rules.stabilization_window_seconds,
            select_policy: rules.select_policy,
            policies: rules.policies.map(|policies| {
                let policies = policies.into_iter().map(|policy| Policy {
                    type_: policy.type_,
                    value: policy.value,
                    period_seconds: policy.period_seconds,
                });
                policies.collect()
            }),
            tolerance: rules.tolerance,
        };
        Behavior {
            scale_up: behavior.scale_up.map(rules),
            scale_down: behavior.scale_down.map(rules),
        }
    }
}

impl Behavior {
    pub fn into_v2(self) -> Option<v2::HorizontalPodAutoscalerBehavior> {
        let rules = |rules: Rules| v2::HPAScalingRules {
            stabilization_window_seconds: rules.stabilization_window_seconds,
            select_policy: rules.select_policy,
            policies: rules.policies.map(|policies| {
                let policies = policies.into_iter().map(|policy| v2::HPAScalingPolicy {
                    type_: policy.type_,
                    value: policy.value,
                    period_seconds: policy.period_seconds,
                });
                policies.collect()
            }),
            tolerance: rules.tolerance,
        };
        let behavior = v2::HorizontalPodAutoscalerBehavior {
            scale_up: self.scale_up.map(rules),
            scale_down: self.scale_down.map(rules),
        };
        (behavior != v2::HorizontalPodAutoscalerBehavior::default()).then_some(behavior)
    }
}
