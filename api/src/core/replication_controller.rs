//! ReplicationController.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, container_cells, labels, name, template_pod, wide},
};

impl Behaviour for ReplicationController {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

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
