//! Defaults of a HorizontalPodAutoscaler.

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    ResourceMetricSource,
};

use crate::zero::list;

/// In percent of what the containers request.
const CPU_UTILIZATION: i32 = 80;
/// Seconds.
const PERIOD: i32 = 15;

pub fn spec(spec: &mut HorizontalPodAutoscalerSpec) {
    spec.min_replicas.get_or_insert(1);
    if list(&spec.metrics).is_empty() {
        spec.metrics = Some(vec![cpu_utilization(CPU_UTILIZATION)]);
    }
    if let Some(behavior) = &mut spec.behavior {
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        rules(up, &[("Pods", 4), ("Percent", 100)]);
        // How long to wait before scaling down is the controller's to say.
        let down = behavior.scale_down.get_or_insert_default();
        rules(down, &[("Percent", 100)]);
    }
}

fn cpu_utilization(percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn rules(rules: &mut HPAScalingRules, policies: &[(&str, i32)]) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(|| {
        let policies = policies.iter().map(|(kind, value)| HPAScalingPolicy {
            type_: (*kind).to_owned(),
            value: *value,
            period_seconds: PERIOD,
        });
        policies.collect()
    });
}
