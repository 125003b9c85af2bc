//! PodTemplate.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use crate::{
    core::pod::{defaults, validation, warnings},
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape},
    table::{NAME, column, container_cells, labels, name, template_pod},
};

impl Behaviour for PodTemplate {
    const SHAPE: Shape<Self> = shape!(generation: template);

    fn default_fields(&mut self) {
        defaults::pod_template(self.template.get_or_insert_default());
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        if let Some(template) = &self.template {
            validation::pod_template(template, &Path::new("template"), &mut errors);
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        match &self.template {
            Some(template) if old.is_none_or(|old| old.template != self.template) => {
                warnings::pod_template(template, &Path::new("template"))
            }
            _ => Vec::new(),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_templates() {
        crate::testing::run::<PodTemplate>(include_str!("../../testdata/pod_template.yaml"));
    }
}
