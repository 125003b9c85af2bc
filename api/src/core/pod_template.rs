//! PodTemplate.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{NAME, column, container_cells, labels, name, template_pod},
};

impl Behaviour for PodTemplate {
    const SHAPE: Shape<Self> = shape!(generation: template);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Containers",
                "string",
                "Names of each container in the template.",
            ),
            column(
                "Images",
                "string",
                "Images referenced by each container in the template.",
            ),
            column("Pod Labels", "string", "The labels for the pod template."),
        ];
        COLUMNS
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let [containers, images] = container_cells(template_pod(self.template.as_ref()));
        let template = self
            .template
            .as_ref()
            .and_then(|template| template.metadata.as_ref());
        vec![
            name(&self.metadata),
            containers,
            images,
            labels(template.and_then(|meta| meta.labels.as_ref())),
        ]
    }
}
