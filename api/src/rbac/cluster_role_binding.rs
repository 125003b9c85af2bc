//! ClusterRoleBinding.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::Value;

use super::validation;
use crate::{
    field::ErrorList,
    strategy::{Behaviour, Column},
    table::{AGE, NAME, age, column, name, wide},
    zero::{list, list_mut},
};

impl Behaviour for ClusterRoleBinding {
    fn default_fields(&mut self) {
        validation::default_binding(&mut self.role_ref, list_mut(&mut self.subjects));
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        validation::role_ref(&self.role_ref, &["ClusterRole"], &mut errors);
        validation::subjects(list(&self.subjects), false, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = self.validate();
        validation::same_role(&self.role_ref, &old.role_ref, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Role",
                "string",
                "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
            ),
            AGE,
            wide("Users", "Users in the clusterRoleBinding"),
            wide("Groups", "Groups in the clusterRoleBinding"),
            wide(
                "ServiceAccounts",
                "ServiceAccounts in the clusterRoleBinding",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let role = format!("{}/{}", self.role_ref.kind, self.role_ref.name);
        let mut cells = vec![
            name(&self.metadata),
            Value::from(role),
            age(&self.metadata, now),
        ];
        cells.extend(super::subject_cells(list(&self.subjects)));
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_role_bindings() {
        crate::testing::run::<ClusterRoleBinding>(include_str!(
            "../../testdata/cluster_role_binding.yaml"
        ));
    }
}
