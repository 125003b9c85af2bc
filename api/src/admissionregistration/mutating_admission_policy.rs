//! MutatingAdmissionPolicy.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicySpec,
};
use serde_json::Value;

use super::{columns, defaults, expressions, policy_validation};
use crate::{
    expression::Expression,
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape},
    table::{AGE, NAME, column},
    zero::list,
};

impl Behaviour for MutatingAdmissionPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn default_fields(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        defaults::failure_policy(&mut spec.failure_policy);
        if let Some(resources) = &mut spec.match_constraints {
            defaults::match_resources(resources);
        }
    }

    fn validate(&self) -> ErrorList {
        let none = MutatingAdmissionPolicySpec::default();
        policy_validation::mutating(self.spec.as_ref().unwrap_or(&none))
    }

    fn expressions(&self) -> Vec<Expression<'_>> {
        self.spec
            .as_ref()
            .map_or_else(Vec::new, expressions::mutating)
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        super::reserved_name_warnings(&self.metadata)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Mutations",
                "integer",
                "Mutation indicates the number of mutations rules defined in this configuration",
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
            spec.map_or(0, |spec| list(&spec.mutations).len()),
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
        let yaml = include_str!("../../testdata/mutating_admission_policy.yaml");
        crate::testing::run::<MutatingAdmissionPolicy>(yaml);
    }
}
