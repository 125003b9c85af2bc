//! ValidatingAdmissionPolicy.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
};
use serde_json::Value;

use super::{defaults, policy_validation};
use crate::{
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape, StatusMeta, Subresource},
    table::{AGE, NAME, age, column, name},
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
            column(
                "ParamKind",
                "string",
                "ParamKind specifies the kind of resources used to parameterize this policy",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let parameters = spec.and_then(|spec| spec.param_kind.as_ref()).map_or_else(
            || "<unset>".to_owned(),
            |kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)),
        );
        vec![
            name(&self.metadata),
            Value::from(spec.map_or(0, |spec| list(&spec.validations).len())),
            Value::from(parameters),
            age(&self.metadata, now),
        ]
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
