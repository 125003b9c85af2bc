//! ResourceClaimTemplate.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;

use super::validation;
use crate::{
    check,
    expression::Expression,
    field::{ErrorList, Path},
    internal,
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, name},
};

impl Behaviour for ResourceClaimTemplate {
    fn default_fields(&mut self) {
        validation::default_claim(self.spec.spec.devices.as_mut());
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec.metadata");
        if let Some(metadata) = &self.spec.metadata {
            let labels = metadata.labels.as_ref();
            check::annotations(
                metadata.annotations.as_ref(),
                &path.child("annotations"),
                &mut errors,
            );
            check::labels(labels, &path.child("labels"), &mut errors);
        }
        let devices = self.spec.spec.devices.as_ref();
        validation::claim(devices, &Path::new("spec.spec.devices"), &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        let (new, old, path) = (&self.spec, &old.spec, Path::new("spec"));
        internal::immutable("ResourceClaimTemplateSpec", new, old, &path, &mut errors);
        errors
    }

    fn expressions(&self) -> Vec<Expression<'_>> {
        let devices = self.spec.spec.devices.as_ref();
        validation::claim_expressions(devices, &Path::new("spec.spec.devices"))
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, AGE];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name(&self.metadata), age(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<ResourceClaimTemplate>(include_str!(
            "../../testdata/resource_claim_template.yaml"
        ));
    }
}
