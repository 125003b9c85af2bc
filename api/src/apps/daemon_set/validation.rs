//! What is wrong with a DaemonSet.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};

use serde_json::Value;

use crate::{
    apps::workload::{self, labels},
    check,
    core::pod::validation,
    field::{BadValue, ErrorList, Path, value_of},
    selector,
    zero::text,
};

pub fn create(set: &DaemonSet) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(spec) = &set.spec {
        validate_spec(spec, &Path::new("spec"), &mut errors);
    }
    errors
}

pub fn update(new: &DaemonSet, old: &DaemonSet) -> ErrorList {
    let mut errors = ErrorList::new();
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        let path = Path::new("spec.selector");
        check::immutable(&new.selector, &old.selector, &path, &mut errors);
    }
    errors.extend(create(new));
    errors
}

fn validate_spec(spec: &DaemonSetSpec, path: &Path, errors: &mut ErrorList) {
    let selector_path = path.child("selector");
    let template_path = path.child("template");
    check::label_selector(Some(&spec.selector), &selector_path, errors);
    // An absent selector reads as an empty one, and finds nothing.
    let selector = selector::LabelSelector::from_object(Some(&spec.selector));
    let finds = |selector: selector::LabelSelector| {
        !selector.is_empty() && selector.matches_labels(labels(&spec.template))
    };
    if selector.is_ok_and(|selector| !finds(selector)) {
        errors.push(template_path.child("metadata.labels").invalid(
            value_of(&labels(&spec.template)),
            "`selector` does not match template `labels`",
        ));
    }
    validation::pod_template(&spec.template, &template_path, errors);
    workload::runs_for_ever(&spec.template, "DaemonSet", &template_path, errors);
    workload::counts(
        &[("minReadySeconds", spec.min_ready_seconds.map(i64::from))],
        path,
        errors,
    );
    if let Some(strategy) = &spec.update_strategy {
        update_strategy(strategy, &path.child("updateStrategy"), errors);
    }
    workload::counts(
        &[(
            "revisionHistoryLimit",
            spec.revision_history_limit.map(i64::from),
        )],
        path,
        errors,
    );
}

fn update_strategy(strategy: &DaemonSetUpdateStrategy, path: &Path, errors: &mut ErrorList) {
    let rolling_path = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(rolling_path.required("")),
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &rolling_path, errors),
        (kind, rolling) => {
            let supported = &["RollingUpdate", "OnDelete"];
            let rolling = rolling.as_ref().map_or(Value::Null.into(), |rolling| {
                workload::shown(&rolling.max_unavailable, &rolling.max_surge)
            });
            let strategy =
                BadValue::Struct(vec![("Type", kind.into()), ("RollingUpdate", rolling)]);
            errors.push(path.not_supported(strategy, supported));
        }
    }
}

fn rolling_update(rolling: &RollingUpdateDaemonSet, path: &Path, errors: &mut ErrorList) {
    let (unavailable, surge) = (&rolling.max_unavailable, &rolling.max_surge);
    let (unavailable_path, surge_path) = (path.child("maxUnavailable"), path.child("maxSurge"));
    for (value, path) in [(unavailable, &unavailable_path), (surge, &surge_path)] {
        if let Some(value) = value {
            check::count_or_percent(value, path, errors);
        }
    }
    for (value, path) in [(unavailable, &unavailable_path), (surge, &surge_path)] {
        if let Some(value) = value {
            check::at_most_hundred_percent(value, path, errors);
        }
    }
    let is_set = |value| workload::number(value) != 0;
    match (is_set(unavailable.as_ref()), is_set(surge.as_ref())) {
        (true, true) => errors.push(surge_path.invalid(
            value_of(surge),
            "may not be set when maxUnavailable is non-zero",
        )),
        (false, false) => {
            errors.push(unavailable_path.required("cannot be 0 when maxSurge is 0"));
        }
        _ => {}
    }
}

pub fn status(new: &DaemonSetStatus, old: &DaemonSetStatus) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status");
    workload::counts(
        &[
            (
                "currentNumberScheduled",
                Some(new.current_number_scheduled.into()),
            ),
            ("numberMisscheduled", Some(new.number_misscheduled.into())),
            (
                "desiredNumberScheduled",
                Some(new.desired_number_scheduled.into()),
            ),
            ("numberReady", Some(new.number_ready.into())),
            ("observedGeneration", new.observed_generation),
            (
                "updatedNumberScheduled",
                new.updated_number_scheduled.map(i64::from),
            ),
            ("numberAvailable", new.number_available.map(i64::from)),
            ("numberUnavailable", new.number_unavailable.map(i64::from)),
            ("collisionCount", new.collision_count.map(i64::from)),
        ],
        &path,
        &mut errors,
    );
    workload::collision_count(new.collision_count, old.collision_count, &path, &mut errors);
    errors
}
