//! ReplicationController.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use serde_json::Value;

use crate::{
    apps::workload,
    core::pod::{defaults, validation},
    field::{ErrorList, Path, value_of},
    selector::LabelSelector,
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, container_cells, labels, name, template_pod, wide},
};

impl Behaviour for ReplicationController {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else {
            return;
        };
        defaults::pod_template(template);
        if let Some(labels) = workload::labels(template) {
            if spec
                .selector
                .as_ref()
                .is_none_or(|selector| selector.is_empty())
            {
                spec.selector = Some(labels.clone());
            }
            let own = &mut self.metadata.labels;
            if own.as_ref().is_none_or(|labels| labels.is_empty()) {
                *own = Some(labels.clone());
            }
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(spec) = &self.spec {
            validate_spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn validate_subresource(&self, _old: &Self, subresource: Subresource) -> ErrorList {
        let mut errors = ErrorList::new();
        if let (Subresource::Status, Some(status)) = (subresource, &self.status) {
            validate_status(status, &Path::new("status"), &mut errors);
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let spec = self.spec.as_ref();
        let Some(template) = spec.and_then(|spec| spec.template.as_ref()) else {
            return Vec::new();
        };
        match old {
            None => workload::warnings_on_create(&self.metadata, template),
            Some(old) => workload::warnings_on_update(&self.metadata, &old.metadata, template),
        }
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &["status.replicas"];

    fn selectable_fields(&self) -> Vec<String> {
        let status = self.status.as_ref();
        vec![status.map_or(0, |status| status.replicas).to_string()]
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Desired",
                "integer",
                "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
            ),
            column(
                "Current",
                "integer",
                "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
            ),
            column(
                "Ready",
                "integer",
                "The number of ready replicas for this replication controller.",
            ),
            AGE,
            wide("Containers", "Names of each container in the template."),
            wide(
                "Images",
                "Images referenced by each container in the template.",
            ),
            wide(
                "Selector",
                "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is defaulted to the labels present on the Pod template. Label keys and values that must match in order to be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let template = spec.and_then(|spec| spec.template.as_ref());
        let [containers, images] = container_cells(template_pod(template));
        vec![
            name(&self.metadata),
            Value::from(spec.and_then(|spec| spec.replicas).unwrap_or_default()),
            Value::from(status.map_or(0, |status| status.replicas)),
            Value::from(
                status
                    .and_then(|status| status.ready_replicas)
                    .unwrap_or_default(),
            ),
            age(&self.metadata, now),
            containers,
            images,
            labels(spec.and_then(|spec| spec.selector.as_ref())),
        ]
    }
}

fn validate_spec(spec: &ReplicationControllerSpec, path: &Path, errors: &mut ErrorList) {
    workload::counts(
        &[("minReadySeconds", spec.min_ready_seconds.map(i64::from))],
        path,
        errors,
    );
    let selector = spec
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty());
    if selector.is_none() {
        errors.push(path.child("selector").required(""));
    }
    workload::counts(&[("replicas", spec.replicas.map(i64::from))], path, errors);
    let path = path.child("template");
    let Some(template) = &spec.template else {
        errors.push(path.required(""));
        return;
    };
    let labels = workload::labels(template);
    let matches = |selector| LabelSelector::from_labels(selector).matches_labels(labels);
    if selector.is_some_and(|selector| !matches(selector)) {
        errors.push(path.child("metadata.labels").invalid(
            value_of(&labels),
            "`selector` does not match template `labels`",
        ));
    }
    validation::pod_template(template, &path, errors);
    workload::runs_for_ever(template, "ReplicationController", &path, errors);
}

fn validate_status(status: &ReplicationControllerStatus, path: &Path, errors: &mut ErrorList) {
    workload::counts(
        &[
            ("replicas", Some(status.replicas.into())),
            (
                "fullyLabeledReplicas",
                status.fully_labeled_replicas.map(i64::from),
            ),
            ("readyReplicas", status.ready_replicas.map(i64::from)),
            (
                "availableReplicas",
                status.available_replicas.map(i64::from),
            ),
            ("observedGeneration", status.observed_generation),
        ],
        path,
        errors,
    );
    workload::at_most_replicas(
        status.replicas,
        &[
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ],
        path,
        errors,
    );
    let available = status.available_replicas.unwrap_or(0);
    if available > status.ready_replicas.unwrap_or(0) {
        errors.push(
            path.child("availableReplicas")
                .invalid(available, "cannot be greater than readyReplicas"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_controllers() {
        crate::testing::run::<ReplicationController>(include_str!(
            "../../testdata/replication_controller.yaml"
        ));
    }
}
