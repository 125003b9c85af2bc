//! Role-based access control.
//!
//! Enter at [`Rbac`]. Roles and bindings are held in an index by user and group, made anew when
//! one of them has changed; a request only looks up its user's bindings.

pub mod covers;
pub mod escalation;
mod index;
mod rule;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use coracle_api::Identity;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};

use super::{Attributes, Authorizer, Decision};
use crate::{Lister, Registry};
use index::{Index, Objects};

pub use rule::allows;

/// Allows what roles allow.
pub struct Rbac {
    roles: Lister<Role>,
    role_bindings: Lister<RoleBinding>,
    cluster_roles: Lister<ClusterRole>,
    cluster_role_bindings: Lister<ClusterRoleBinding>,
    index: ArcSwap<Index>,
}

/// What a user's roles allow, and what could not be found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub rules: Vec<PolicyRule>,
    pub errors: Vec<String>,
}

impl Rbac {
    pub fn new(registry: &Registry) -> Self {
        Rbac {
            roles: registry.lister(),
            role_bindings: registry.lister(),
            cluster_roles: registry.lister(),
            cluster_role_bindings: registry.lister(),
            index: ArcSwap::from_pointee(Index::default()),
        }
    }

    /// The index of the roles and bindings as they are now.
    fn index(&self) -> Arc<Index> {
        let generations = [
            self.roles.generation(),
            self.role_bindings.generation(),
            self.cluster_roles.generation(),
            self.cluster_role_bindings.generation(),
        ];
        let index = self.index.load_full();
        if index.generations() == generations {
            return index;
        }
        // What changes while it is read will be seen as a change the next time.
        let index = Arc::new(Index::new(
            generations,
            &Objects {
                roles: self.roles.list(""),
                role_bindings: self.role_bindings.list(""),
                cluster_roles: self.cluster_roles.list(""),
                cluster_role_bindings: self.cluster_role_bindings.list(""),
            },
        ));
        self.index.store(index.clone());
        index
    }

    /// Everything that the user may do in a namespace, or cluster-wide if it is empty.
    pub fn rules_for(&self, user: &Identity, namespace: &str) -> Rules {
        let index = self.index();
        let mut found = Rules::default();
        for grant in index.grants(user, namespace) {
            match &grant.rules {
                Ok(rules) => found.rules.extend(rules.iter().cloned()),
                Err(error) => found.errors.push(error.clone()),
            }
        }
        found
    }

    /// The rules of a role that a binding in the namespace refers to.
    ///
    /// # Errors
    /// There is no such role; the text is upstream's.
    pub fn rules_of(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
    ) -> Result<Arc<[PolicyRule]>, String> {
        self.index().rules_of(kind, name, namespace)
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.index();
        let mut errors: Vec<&str> = Vec::new();
        for grant in index.grants(attributes.user, attributes.namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule::allows(rule, attributes)) => {
                    return Decision::Allow(format!("RBAC: allowed by {}", grant.source));
                }
                Ok(_) => {}
                Err(error) if errors.contains(&error.as_str()) => {}
                Err(error) => errors.push(error),
            }
        }
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [error] => format!("RBAC: {error}"),
            errors => format!("RBAC: [{}]", errors.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests;
