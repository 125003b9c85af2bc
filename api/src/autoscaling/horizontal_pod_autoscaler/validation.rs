//! What is wrong with a HorizontalPodAutoscaler.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource,
    HPAScalingRules, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
    ObjectMetricSource, PodsMetricSource, ResourceMetricSource,
};

use crate::{
    check,
    core::pod::validation::resources,
    field::{ErrorList, Path},
    names,
    zero::{list, text},
};

const MAX_PERIOD: i32 = 1800;
const MAX_STABILIZATION_WINDOW: i32 = 3600;

const METRIC_TYPES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
const EITHER_TARGET: &str = "must set either a target raw value or a target utilization";

pub fn spec(
    spec: &HorizontalPodAutoscalerSpec,
    old: Option<&HorizontalPodAutoscalerSpec>,
    errors: &mut ErrorList,
) {
    let path = Path::new("spec");
    let max = spec.max_replicas;
    let max_path = path.child("maxReplicas");
    if let Some(min) = spec.min_replicas.filter(|min| *min < 1) {
        let path = path.child("minReplicas");
        errors.push(path.invalid(min, "must be greater than or equal to 1"));
    }
    if max == 0 {
        errors.push(max_path.required("must be set and greater than 0"));
    } else if max < 0 {
        errors.push(max_path.invalid(max, "must be greater than or equal to 1"));
    }
    if spec.min_replicas.is_some_and(|min| max < min) {
        errors.push(max_path.invalid(max, "must be greater than or equal to `minReplicas`"));
    }
    let target = &spec.scale_target_ref;
    let unchanged = old.is_some_and(|old| {
        let old = &old.scale_target_ref;
        old.kind == target.kind && old.api_version == target.api_version
    });
    let version = match target.kind.as_str() {
        _ if unchanged => Version::Any,
        // The only one of the core group that can be scaled.
        "ReplicationController" => Version::Wellformed,
        _ => Version::WithGroup,
    };
    reference(target, version, &path.child("scaleTargetRef"), errors);
    metrics(spec, &path.child("metrics"), errors);
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (field, rules) in [
            ("scaleUp", &behavior.scale_up),
            ("scaleDown", &behavior.scale_down),
        ] {
            if let Some(rules) = rules {
                scaling_rules(rules, &path.child(field), errors);
            }
        }
    }
}

/// What a reference's `apiVersion` has to be.
#[derive(Clone, Copy)]
enum Version {
    Any,
    Wellformed,
    WithGroup,
}

fn reference(
    reference: &CrossVersionObjectReference,
    version: Version,
    path: &Path,
    errors: &mut ErrorList,
) {
    check::required_path_segment(&reference.kind, &path.child("kind"), errors);
    check::required_path_segment(&reference.name, &path.child("name"), errors);
    let api_version = text(&reference.api_version);
    let path = path.child("apiVersion");
    let slashes = api_version.matches('/').count();
    let has_group = api_version
        .split_once('/')
        .is_some_and(|(group, _)| !group.is_empty());
    match version {
        Version::Wellformed | Version::WithGroup if slashes > 1 => {
            let detail = format!("unexpected GroupVersion string: {api_version}");
            errors.push(path.invalid(api_version, detail));
        }
        Version::WithGroup if !has_group => {
            errors.push(path.invalid(api_version, "apiVersion must specify API group"));
        }
        _ => {}
    }
}

fn metrics(spec: &HorizontalPodAutoscalerSpec, path: &Path, errors: &mut ErrorList) {
    for (index, spec) in list(&spec.metrics).iter().enumerate() {
        metric(spec, &path.index(index), errors);
    }
    let of_the_load = |metric: &MetricSpec| matches!(metric.type_.as_str(), "Object" | "External");
    if spec.min_replicas == Some(0) && !list(&spec.metrics).iter().any(of_the_load) {
        errors.push(path.forbidden(
            "must specify at least one Object or External metric to support scaling to zero \
             replicas",
        ));
    }
}

fn metric(spec: &MetricSpec, path: &Path, errors: &mut ErrorList) {
    let type_path = path.child("type");
    if spec.type_.is_empty() {
        errors.push(type_path.required("must specify a metric source type"));
    }
    check::one_of(&spec.type_, METRIC_TYPES, &type_path, errors);
    let sources = [
        ("object", "Object", spec.object.is_some()),
        ("external", "External", spec.external.is_some()),
        ("pods", "Pods", spec.pods.is_some()),
        ("resource", "Resource", spec.resource.is_some()),
        (
            "containerResource",
            "ContainerResource",
            spec.container_resource.is_some(),
        ),
    ];
    let first = sources.iter().find(|(.., present)| *present);
    if let Some((field, ..)) = first {
        source(spec, field, path, errors);
    }
    for (field, kind, present) in sources {
        if kind == spec.type_ && !present {
            let path = path.child(field);
            errors.push(path.required("must populate information for the given metric source"));
        }
    }
    // Upstream says it twice: the kind of metric is also none of those that have a source.
    check::one_of(&spec.type_, METRIC_TYPES, &type_path, errors);
    if sources.iter().filter(|(.., present)| *present).count() == 1 {
        return;
    }
    for (field, kind, present) in sources {
        if present && kind != spec.type_ {
            let path = path.child(field);
            errors.push(path.forbidden("must populate the given metric source only"));
        }
    }
}

fn source(spec: &MetricSpec, field: &str, path: &Path, errors: &mut ErrorList) {
    let path = path.child(field);
    if let ("object", Some(source)) = (field, &spec.object) {
        object(source, &path, errors);
    } else if let ("external", Some(source)) = (field, &spec.external) {
        external(source, &path, errors);
    } else if let ("pods", Some(source)) = (field, &spec.pods) {
        pods(source, &path, errors);
    } else if let ("resource", Some(source)) = (field, &spec.resource) {
        resource(source, &path, errors);
    } else if let ("containerResource", Some(source)) = (field, &spec.container_resource) {
        container_resource(source, &path, errors);
    }
}

fn object(source: &ObjectMetricSource, path: &Path, errors: &mut ErrorList) {
    let object_path = path.child("describedObject");
    reference(
        &source.described_object,
        Version::Wellformed,
        &object_path,
        errors,
    );
    identifier(&source.metric, &path.child("metric"), errors);
    target(&source.target, &path.child("target"), errors);
    if source.target.value.is_none() && source.target.average_value.is_none() {
        errors.push(
            path.child("target.averageValue")
                .required("must set either a target value or averageValue"),
        );
    }
}

fn external(source: &ExternalMetricSource, path: &Path, errors: &mut ErrorList) {
    identifier(&source.metric, &path.child("metric"), errors);
    target(&source.target, &path.child("target"), errors);
    match (&source.target.value, &source.target.average_value) {
        (None, None) => errors.push(
            path.child("target.averageValue")
                .required("must set either a target value for metric or a per-pod target"),
        ),
        (Some(_), Some(_)) => errors.push(
            path.child("target.value")
                .forbidden("may not set both a target value for metric and a per-pod target"),
        ),
        _ => {}
    }
}

fn pods(source: &PodsMetricSource, path: &Path, errors: &mut ErrorList) {
    identifier(&source.metric, &path.child("metric"), errors);
    target(&source.target, &path.child("target"), errors);
    if source.target.average_value.is_none() {
        errors.push(
            path.child("target.averageValue")
                .required("must specify a positive target averageValue"),
        );
    }
}

fn resource(source: &ResourceMetricSource, path: &Path, errors: &mut ErrorList) {
    if source.name.is_empty() {
        errors.push(path.child("name").required("must specify a resource name"));
    }
    utilization(&source.target, path, errors);
}

fn container_resource(source: &ContainerResourceMetricSource, path: &Path, errors: &mut ErrorList) {
    let name_path = path.child("name");
    if source.name.is_empty() {
        errors.push(name_path.required("must specify a resource name"));
    } else {
        resources::container_resource_name(&source.name, &name_path, errors);
    }
    let container_path = path.child("container");
    if source.container.is_empty() {
        errors.push(container_path.required("must specify a container"));
    } else {
        check::dns_label(&source.container, &container_path, errors);
    }
    utilization(&source.target, path, errors);
}

/// A target in percent or as an amount.
fn utilization(metric: &MetricTarget, path: &Path, errors: &mut ErrorList) {
    target(metric, &path.child("target"), errors);
    match (metric.average_utilization, &metric.average_value) {
        (None, None) => errors.push(
            path.child("target.averageUtilization")
                .required(EITHER_TARGET),
        ),
        (Some(_), Some(_)) => errors.push(
            path.child("target.averageValue")
                .forbidden("may not set both a target raw value and a target utilization"),
        ),
        _ => {}
    }
}

fn target(target: &MetricTarget, path: &Path, errors: &mut ErrorList) {
    let kind = target.type_.as_str();
    let type_path = path.child("type");
    if kind.is_empty() {
        errors.push(type_path.required("must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.push(type_path.invalid(kind, "must be either Utilization, Value, or AverageValue"));
    }
    for (field, quantity) in [
        ("value", &target.value),
        ("averageValue", &target.average_value),
    ] {
        let Some(quantity) = quantity else { continue };
        let path = path.child(field);
        let amount = check::amount(quantity, &path, errors);
        if !amount.is_positive() {
            errors.push(path.invalid(amount.to_string(), "must be positive"));
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        let path = path.child("averageUtilization");
        errors.push(path.invalid(percent, "must be greater than 0"));
    }
}

fn identifier(metric: &MetricIdentifier, path: &Path, errors: &mut ErrorList) {
    let name = metric.name.as_str();
    let path = path.child("name");
    if name.is_empty() {
        errors.push(path.required("must specify a metric name"));
    } else {
        check::each(&path, name, names::path_segment_name(name), errors);
    }
}

fn scaling_rules(rules: &HPAScalingRules, path: &Path, errors: &mut ErrorList) {
    if let Some(window) = rules.stabilization_window_seconds {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(path.invalid(window, "must be greater than or equal to zero"));
        } else if window > MAX_STABILIZATION_WINDOW {
            let detail = format!("must be less than or equal to {MAX_STABILIZATION_WINDOW}");
            errors.push(path.invalid(window, detail));
        }
    }
    if let Some(policy) = &rules.select_policy {
        let path = path.child("selectPolicy");
        check::one_of(policy, &["Disabled", "Max", "Min"], &path, errors);
    }
    let policies_path = path.child("policies");
    if list(&rules.policies).is_empty() {
        errors.push(policies_path.required("must specify at least one Policy"));
    }
    for (index, policy) in list(&rules.policies).iter().enumerate() {
        let path = policies_path.index(index);
        let type_path = path.child("type");
        check::one_of(&policy.type_, &["Percent", "Pods"], &type_path, errors);
        check::positive(policy.value.into(), &path.child("value"), errors);
        let path = path.child("periodSeconds");
        check::positive(policy.period_seconds.into(), &path, errors);
        if policy.period_seconds > MAX_PERIOD {
            let detail = format!("must be less than or equal to {MAX_PERIOD}");
            errors.push(path.invalid(policy.period_seconds, detail));
        }
    }
    if let Some(tolerance) = &rules.tolerance {
        check::not_negative_quantity(tolerance, &path.child("tolerance"), errors);
    }
}
