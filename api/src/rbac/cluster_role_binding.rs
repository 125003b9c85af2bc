//! ClusterRoleBinding.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name, wide},
    zero::list,
};

impl Behaviour for ClusterRoleBinding {
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
