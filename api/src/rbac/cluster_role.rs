//! ClusterRole.

use k8s_openapi::api::rbac::v1::ClusterRole;

use serde_json::Value;

use super::validation;
use crate::{
    check,
    field::{ErrorList, Path},
    selector::LabelSelector,
    strategy::Behaviour,
    zero::list,
};

impl Behaviour for ClusterRole {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        validation::rules(list(&self.rules), false, &mut errors);
        let Some(aggregation) = &self.aggregation_rule else {
            return errors;
        };
        let path = Path::new("aggregationRule.clusterRoleSelectors");
        let selectors = list(&aggregation.cluster_role_selectors);
        if selectors.is_empty() {
            errors.push(path.required(
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for (index, selector) in selectors.iter().enumerate() {
            let path = path.index(index);
            check::label_selector(Some(selector), &path, &mut errors);
            if LabelSelector::from_object(Some(selector)).is_err() {
                errors.push(path.invalid(Value::Null, "invalid label selector."));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_roles() {
        crate::testing::run::<ClusterRole>(include_str!("../../testdata/cluster_role.yaml"));
    }
}
