//! Deployment.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{
        Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::workload::{self, Selected};
use crate::{
    check,
    core::pod::defaults,
    field::{BadValue, ErrorList, Path, value_of},
    selector, shape,
    strategy::{Behaviour, Column, Shape, StatusMeta, Subresource},
    table::{AGE, NAME, age, column, container_cells, wide},
    zero::{default_text, text},
};

impl Behaviour for Deployment {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::KeepLabels);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        defaults::pod_template(&mut spec.template);
        spec.replicas.get_or_insert(1);
        default_strategy(spec.strategy.get_or_insert_default());
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
    }

    /// Controllers also read annotations, so a change of those counts.
    fn generation_changed(&self, old: &Self) -> Option<bool> {
        let annotations_changed = self.metadata.annotations != old.metadata.annotations;
        Some(self.spec != old.spec || annotations_changed)
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(spec) = &self.spec {
            validate_spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        if let (Some(new), Some(old)) = (&self.spec, &old.spec) {
            let path = Path::new("spec.selector");
            check::immutable(&new.selector, &old.selector, &path, &mut errors);
        }
        errors
    }

    fn validate_subresource(&self, old: &Self, subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        if subresource == Subresource::Status {
            let no_status = DeploymentStatus::default();
            validate_status(
                self.status.as_ref().unwrap_or(&no_status),
                old.status.as_ref().unwrap_or(&no_status),
                &Path::new("status"),
                &mut errors,
            );
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let Some(spec) = &self.spec else {
            return Vec::new();
        };
        match old {
            None => workload::warnings_on_create(&self.metadata, &spec.template),
            Some(old) => {
                workload::warnings_on_update(&self.metadata, &old.metadata, &spec.template)
            }
        }
    }

    fn columns() -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (DeploymentSpec::default(), DeploymentStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let [containers, images] = container_cells(spec.template.spec.as_ref());
        let selector = selector::LabelSelector::from_object(Some(&spec.selector));
        vec![
            Value::from(text(&self.metadata.name)),
            Value::from(format!(
                "{}/{}",
                status.ready_replicas.unwrap_or(0),
                spec.replicas.unwrap_or(0)
            )),
            Value::from(status.updated_replicas.unwrap_or(0)),
            Value::from(status.available_replicas.unwrap_or(0)),
            age(&self.metadata, now),
            containers,
            images,
            Value::from(selector.map_or_else(|_| "<invalid>".to_owned(), |s| s.to_string())),
        ]
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Number of the pod with ready state"),
    column(
        "Up-to-date",
        "string",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    column(
        "Available",
        "string",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
    ),
];

fn default_strategy(strategy: &mut DeploymentStrategy) {
    default_text(&mut strategy.type_, "RollingUpdate");
    if text(&strategy.type_) == "RollingUpdate" {
        let quarter = || IntOrString::String("25%".to_owned());
        let update = strategy.rolling_update.get_or_insert_default();
        update.max_unavailable.get_or_insert_with(quarter);
        update.max_surge.get_or_insert_with(quarter);
    }
}

fn validate_spec(spec: &DeploymentSpec, path: &Path, errors: &mut ErrorList) {
    let selected = Selected {
        selector: &spec.selector,
        template: &spec.template,
    };
    workload::counts(&[("replicas", spec.replicas.map(i64::from))], path, errors);
    selected.check_selector(path, errors);
    selected.check_template("ReplicaSet", path, errors);
    if let Some(strategy) = &spec.strategy {
        validate_strategy(strategy, &path.child("strategy"), errors);
    }
    workload::counts(
        &[
            ("minReadySeconds", spec.min_ready_seconds.map(i64::from)),
            (
                "revisionHistoryLimit",
                spec.revision_history_limit.map(i64::from),
            ),
            (
                "progressDeadlineSeconds",
                spec.progress_deadline_seconds.map(i64::from),
            ),
        ],
        path,
        errors,
    );
    if let Some(deadline) = spec.progress_deadline_seconds
        && deadline <= spec.min_ready_seconds.unwrap_or(0)
    {
        errors.push(
            path.child("progressDeadlineSeconds")
                .invalid(deadline, "must be greater than minReadySeconds"),
        );
    }
}

fn validate_strategy(strategy: &DeploymentStrategy, path: &Path, errors: &mut ErrorList) {
    let update_path = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => errors
            .push(update_path.forbidden("may not be specified when strategy `type` is 'Recreate'")),
        ("Recreate", None) => {}
        ("RollingUpdate", Some(update)) => validate_rolling(update, &update_path, errors),
        ("RollingUpdate", None) => {
            errors.push(update_path.required("this should be defaulted and never be nil"));
        }
        (kind, rolling) => {
            let rolling = rolling.as_ref().map_or(Value::Null.into(), |rolling| {
                workload::shown(&rolling.max_unavailable, &rolling.max_surge)
            });
            let strategy =
                BadValue::Struct(vec![("Type", kind.into()), ("RollingUpdate", rolling)]);
            errors.push(path.not_supported(strategy, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn validate_rolling(update: &RollingUpdateDeployment, path: &Path, errors: &mut ErrorList) {
    let (unavailable, surge) = (update.max_unavailable.as_ref(), update.max_surge.as_ref());
    let unavailable_path = path.child("maxUnavailable");
    if let Some(value) = unavailable {
        check::count_or_percent(value, &unavailable_path, errors);
    }
    if let Some(value) = surge {
        check::count_or_percent(value, &path.child("maxSurge"), errors);
    }
    if workload::number(unavailable) == 0 && workload::number(surge) == 0 {
        errors.push(
            unavailable_path.invalid(value_of(&unavailable), "may not be 0 when `maxSurge` is 0"),
        );
    }
    if let Some(value) = unavailable {
        check::at_most_hundred_percent(value, &unavailable_path, errors);
    }
}

fn validate_status(
    new: &DeploymentStatus,
    old: &DeploymentStatus,
    path: &Path,
    errors: &mut ErrorList,
) {
    workload::counts(
        &[
            ("observedGeneration", new.observed_generation),
            ("replicas", new.replicas.map(i64::from)),
            ("updatedReplicas", new.updated_replicas.map(i64::from)),
            ("readyReplicas", new.ready_replicas.map(i64::from)),
            ("availableReplicas", new.available_replicas.map(i64::from)),
            (
                "unavailableReplicas",
                new.unavailable_replicas.map(i64::from),
            ),
            (
                "terminatingReplicas",
                new.terminating_replicas.map(i64::from),
            ),
            ("collisionCount", new.collision_count.map(i64::from)),
        ],
        path,
        errors,
    );
    workload::at_most_replicas(
        new.replicas.unwrap_or(0),
        &[
            ("updatedReplicas", new.updated_replicas),
            ("readyReplicas", new.ready_replicas),
            ("availableReplicas", new.available_replicas),
        ],
        path,
        errors,
    );
    let available = new.available_replicas.unwrap_or(0);
    if available > new.ready_replicas.unwrap_or(0) {
        errors.push(
            path.child("availableReplicas")
                .invalid(available, "cannot be greater than readyReplicas"),
        );
    }
    workload::collision_count(new.collision_count, old.collision_count, path, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments() {
        crate::testing::run::<Deployment>(include_str!("../../testdata/deployment.yaml"));
    }
}
