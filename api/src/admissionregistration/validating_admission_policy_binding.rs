//! ValidatingAdmissionPolicyBinding.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use serde_json::Value;

use super::{columns, defaults, policy_validation};
use crate::{
    check,
    field::{ErrorList, Path, value_of},
    shape,
    strategy::{Behaviour, Column, Shape},
};

impl Behaviour for ValidatingAdmissionPolicyBinding {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn default_fields(&mut self) {
        if let Some(resources) = &mut self.spec.match_resources {
            defaults::match_resources(resources);
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = &self.spec;
        policy_validation::binding(
            &spec.policy_name,
            spec.param_ref.as_ref(),
            spec.match_resources.as_ref(),
            &mut errors,
        );
        validate_actions(&spec.validation_actions, &mut errors);
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        super::reserved_name_warnings(&self.metadata)
    }

    fn columns() -> &'static [Column] {
        columns::BINDING
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        columns::binding(
            &self.metadata,
            &spec.policy_name,
            spec.param_ref.as_ref(),
            now,
        )
    }
}

fn validate_actions(actions: &[String], errors: &mut ErrorList) {
    let path = Path::new("spec.validationActions");
    for (index, action) in actions.iter().enumerate() {
        let path = path.index(index);
        check::one_of(action, &["Audit", "Deny", "Warn"], &path, errors);
        if actions[..index].contains(action) {
            errors.push(path.duplicate(action.as_str()));
        }
    }
    let has = |name: &str| actions.iter().any(|action| action == name);
    if has("Deny") && has("Warn") {
        errors.push(path.invalid(
            value_of(&actions),
            "must not contain both Deny and Warn (repeating the same validation failure \
             information in the API response and headers serves no purpose)",
        ));
    }
    if actions.is_empty() {
        errors.push(path.required("at least one validation action is required"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings() {
        let yaml = include_str!("../../testdata/validating_admission_policy_binding.yaml");
        crate::testing::run::<ValidatingAdmissionPolicyBinding>(yaml);
    }
}
