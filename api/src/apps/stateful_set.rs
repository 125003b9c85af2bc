//! StatefulSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, container_cells, name, template_pod, wide},
};

impl Behaviour for StatefulSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Ready", "string", "Number of the pod with ready state"),
            AGE,
            wide("Containers", "Names of each container in the template."),
            wide(
                "Images",
                "Images referenced by each container in the template.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let ready = status
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default();
        let desired = spec.and_then(|spec| spec.replicas).unwrap_or_default();
        let [containers, images] = container_cells(template_pod(spec.map(|spec| &spec.template)));
        vec![
            name(&self.metadata),
            Value::from(format!("{ready}/{desired}")),
            age(&self.metadata, now),
            containers,
            images,
        ]
    }
}
