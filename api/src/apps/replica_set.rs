//! ReplicaSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use serde_json::Value;

use super::workload::{self, Selected};
use crate::{
    check,
    core::pod::defaults,
    field::{ErrorList, Path},
    selector, shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, container_cells, wide},
    zero::text,
};

impl Behaviour for ReplicaSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        defaults::pod_template(spec.template.get_or_insert_default());
        spec.replicas.get_or_insert(1);
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
        let replicas = self.status.as_ref().map_or(0, |status| status.replicas);
        vec![replicas.to_string()]
    }

    fn columns() -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (ReplicaSetSpec::default(), ReplicaSetStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&no_spec);
        let status = self.status.as_ref().unwrap_or(&no_status);
        let pod = spec
            .template
            .as_ref()
            .and_then(|template| template.spec.as_ref());
        let [containers, images] = container_cells(pod);
        vec![
            Value::from(text(&self.metadata.name)),
            Value::from(spec.replicas.unwrap_or(0)),
            Value::from(status.replicas),
            Value::from(status.ready_replicas.unwrap_or(0)),
            age(&self.metadata, now),
            containers,
            images,
            Value::from(selector::format_object(Some(&spec.selector))),
        ]
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Desired",
        "integer",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    column(
        "Current",
        "integer",
        "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    column(
        "Ready",
        "integer",
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

fn validate_spec(spec: &ReplicaSetSpec, path: &Path, errors: &mut ErrorList) {
    workload::counts(
        &[
            ("replicas", spec.replicas.map(i64::from)),
            ("minReadySeconds", spec.min_ready_seconds.map(i64::from)),
        ],
        path,
        errors,
    );
    let Some(template) = &spec.template else {
        return;
    };
    let selected = Selected {
        selector: &spec.selector,
        template,
    };
    selected.check_selector(path, errors);
    selected.check_template("ReplicaSet", path, errors);
}

fn validate_status(status: &ReplicaSetStatus, path: &Path, errors: &mut ErrorList) {
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
            (
                "terminatingReplicas",
                status.terminating_replicas.map(i64::from),
            ),
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
    fn replica_sets() {
        crate::testing::run::<ReplicaSet>(include_str!("../../testdata/replica_set.yaml"));
    }
}
