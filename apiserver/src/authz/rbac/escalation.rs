//! Nobody grants rights that they do not have: writes of roles need those rights or the verb
//! `escalate`, writes of bindings need them or the verb `bind`.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{Identity, Object};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
};

use super::{Rbac, covers::missing};
use crate::{
    admission::{Admission, Attributes, Operation, typed},
    authn::MASTERS,
    authz::{self, Authorizer},
    error::{ApiError, GroupResource},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks writes of roles and bindings. It stands among the admission plugins, though upstream
/// has the check in its storage and cannot switch it off.
pub struct EscalationCheck {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

impl EscalationCheck {
    /// `authorizer` is the one that requests are asked of.
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Self {
        EscalationCheck { rbac, authorizer }
    }

    async fn may(&self, user: &Identity, verb: &str, resource: &str, at: (&str, &str)) -> bool {
        let attributes = authz::Attributes {
            version: "*",
            namespace: at.0,
            name: at.1,
            ..authz::Attributes::of_resource(user, verb, GROUP, resource)
        };
        self.authorizer.authorize(&attributes).await.is_allowed()
    }

    /// Refuses rights that the user does not have.
    fn confirm(
        &self,
        attributes: &Attributes<'_>,
        name: &str,
        rules: &[PolicyRule],
    ) -> Result<(), ApiError> {
        let user = attributes.user;
        let owned = self.rbac.rules_for(user, attributes.namespace);
        let missing = missing(&owned.rules, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let groups = format!("{:?}", user.groups).replace(", ", " ");
        let mut why = format!(
            "user {:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.user,
            missing.join("\n")
        );
        if !owned.errors.is_empty() {
            why.push_str(&format!(
                "; resolution errors: [{}]",
                owned.errors.join(", ")
            ));
        }
        Err(ApiError::forbidden(attributes.kind, name, why))
    }

    async fn role(
        &self,
        attributes: &Attributes<'_>,
        name: &str,
        rules: &[PolicyRule],
        aggregates: bool,
    ) -> Result<(), ApiError> {
        let resource = &attributes.kind.resource;
        let at = (attributes.namespace, attributes.name);
        if self.may(attributes.user, "escalate", resource, at).await {
            return Ok(());
        }
        self.confirm(attributes, name, rules)?;
        // A role that gathers others can become anything.
        if aggregates && self.confirm(attributes, name, &everything()).is_err() {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(ApiError::forbidden(attributes.kind, name, why));
        }
        Ok(())
    }

    async fn binding(
        &self,
        attributes: &Attributes<'_>,
        name: &str,
        role: &RoleRef,
    ) -> Result<(), ApiError> {
        let namespace = attributes.namespace;
        let resource = match role.kind.as_str() {
            "Role" => "roles",
            "ClusterRole" => "clusterroles",
            // Validation refuses it.
            _ => return Ok(()),
        };
        let at = (namespace, role.name.as_str());
        if self.may(attributes.user, "bind", resource, at).await {
            return Ok(());
        }
        let rules = self.rbac.rules_of(&role.kind, &role.name, namespace);
        let rules = rules.map_err(|_| {
            let subject = GroupResource {
                group: GROUP,
                resource: resource.trim_end_matches('s'),
            };
            ApiError::not_found(subject, &role.name)
        })?;
        self.confirm(attributes, name, &rules)
    }
}

fn everything() -> Vec<PolicyRule> {
    let all = || vec!["*".to_owned()];
    vec![
        PolicyRule {
            verbs: all(),
            api_groups: Some(all()),
            resources: Some(all()),
            ..PolicyRule::default()
        },
        PolicyRule {
            verbs: all(),
            non_resource_urls: Some(all()),
            ..PolicyRule::default()
        },
    ]
}

fn aggregates(role: &ClusterRole) -> bool {
    let rule = role.aggregation_rule.as_ref();
    let selectors = rule.and_then(|rule| rule.cluster_role_selectors.as_ref());
    selectors.is_some_and(|selectors| !selectors.is_empty())
}

#[async_trait]
impl Admission for EscalationCheck {
    fn name(&self) -> &'static str {
        "RBACEscalationCheck"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.kind.group == GROUP
            && matches!(attributes.operation, Operation::Create | Operation::Update)
            && !attributes.user.groups.iter().any(|group| group == MASTERS)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(new) = object else {
            return Ok(());
        };
        let name = new.meta().name.clone().unwrap_or_default();
        if let Some(role) = typed::<ClusterRole>(object) {
            let old = typed::<ClusterRole>(old);
            if old.is_some_and(|old| {
                old.rules == role.rules && old.aggregation_rule == role.aggregation_rule
            }) {
                return Ok(());
            }
            let aggregates = aggregates(role) || old.is_some_and(aggregates);
            let rules = role.rules.as_deref().unwrap_or_default();
            return self.role(attributes, &name, rules, aggregates).await;
        }
        if let Some(role) = typed::<Role>(object) {
            if typed::<Role>(old).is_some_and(|old| old.rules == role.rules) {
                return Ok(());
            }
            let rules = role.rules.as_deref().unwrap_or_default();
            return self.role(attributes, &name, rules, false).await;
        }
        if let Some(binding) = typed::<ClusterRoleBinding>(object) {
            let same = typed::<ClusterRoleBinding>(old).is_some_and(|old| {
                old.subjects == binding.subjects && old.role_ref == binding.role_ref
            });
            return match same {
                true => Ok(()),
                false => self.binding(attributes, &name, &binding.role_ref).await,
            };
        }
        if let Some(binding) = typed::<RoleBinding>(object) {
            let same = typed::<RoleBinding>(old).is_some_and(|old| {
                old.subjects == binding.subjects && old.role_ref == binding.role_ref
            });
            return match same {
                true => Ok(()),
                false => self.binding(attributes, &name, &binding.role_ref).await,
            };
        }
        Ok(())
    }
}
