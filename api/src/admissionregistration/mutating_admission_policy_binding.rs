//! MutatingAdmissionPolicyBinding.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;
use serde_json::Value;

use super::{columns, defaults, policy_validation};
use crate::{
    check,
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape},
    zero::{list, text},
};

impl Behaviour for MutatingAdmissionPolicyBinding {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn default_fields(&mut self) {
        if let Some(spec) = &mut self.spec
            && let Some(resources) = &mut spec.match_resources
        {
            defaults::match_resources(resources);
        }
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = self.spec.as_ref();
        policy_validation::binding(
            spec.map_or("", |spec| text(&spec.policy_name)),
            spec.and_then(|spec| spec.param_ref.as_ref()),
            spec.and_then(|spec| spec.match_resources.as_ref()),
            &mut errors,
        );
        let matched = spec.and_then(|spec| spec.match_resources.as_ref());
        for rule in matched.map_or(&[][..], |matched| list(&matched.resource_rules)) {
            for operation in list(&rule.operations) {
                let path = Path::new("spec.matchResources.resourceRules.operations");
                let supported = &["*", "CONNECT", "CREATE", "UPDATE"];
                check::one_of(operation, supported, &path, &mut errors);
            }
        }
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        super::reserved_name_warnings(&self.metadata)
    }

    fn columns() -> &'static [Column] {
        columns::BINDING
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        columns::binding(
            &self.metadata,
            spec.map_or("", |spec| text(&spec.policy_name)),
            spec.and_then(|spec| spec.param_ref.as_ref()),
            now,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings() {
        let yaml = include_str!("../../testdata/mutating_admission_policy_binding.yaml");
        crate::testing::run::<MutatingAdmissionPolicyBinding>(yaml);
    }
}
