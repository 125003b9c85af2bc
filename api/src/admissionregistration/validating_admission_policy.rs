//! ValidatingAdmissionPolicy.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
};
use serde_json::Value;

use super::{columns, defaults, expressions, policy_validation};
use crate::{
    expression::Expression,
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape, StatusMeta, Subresource},
    table::{AGE, NAME, column},
    zero::{list, text},
};

impl Behaviour for ValidatingAdmissionPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::Keep);

    fn default_fields(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        defaults::failure_policy(&mut spec.failure_policy);
        if let Some(resources) = &mut spec.match_constraints {
            defaults::match_resources(resources);
        }
    }

    fn validate(&self) -> ErrorList {
        let name = text(&self.metadata.name);
        let none = ValidatingAdmissionPolicySpec::default();
        policy_validation::validating(name, self.spec.as_ref().unwrap_or(&none))
    }

    fn validate_subresource(&self, _old: &Self, _subresource: Subresource) -> ErrorList {
        policy_validation::validating_status(self.status.as_ref())
    }

    fn expressions(&self) -> Vec<Expression<'_>> {
        self.spec
            .as_ref()
            .map_or_else(Vec::new, expressions::validating)
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        super::reserved_name_warnings(&self.metadata)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Validations",
                "integer",
                "Validations indicates the number of validation rules defined in this configuration",
            ),
            columns::PARAM_KIND,
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        columns::policy(
            &self.metadata,
            spec.map_or(0, |spec| list(&spec.validations).len()),
            spec.and_then(|spec| spec.param_kind.as_ref()),
            now,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let yaml = include_str!("../../testdata/validating_admission_policy.yaml");
        crate::testing::run::<ValidatingAdmissionPolicy>(yaml);
    }
}
