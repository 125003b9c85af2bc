//! The roles and bindings that a new cluster has, and how they are put back in place.
//!
//! Enter at [`manifests`], what there should be, and [`reconciled_cluster_role`] and its like,
//! which say what an existing object has to become. Rules and subjects that an administrator
//! added stay; those that were taken away come back, unless the object's annotation
//! `rbac.authorization.kubernetes.io/autoupdate` is `false`.

use std::{collections::BTreeMap, sync::LazyLock};

use k8s_openapi::{
    api::rbac::v1::{
        AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
        Subject,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;

use super::rbac::covers;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
const NODE_ROLE: &str = "system:node";

/// All roles and bindings of a new cluster.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub cluster_roles: Vec<ClusterRole>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub roles: Vec<Role>,
    pub role_bindings: Vec<RoleBinding>,
}

/// What is in `manifests/rbac/`, with the label and annotation that all of it has.
pub fn manifests() -> &'static Manifests {
    static MANIFESTS: LazyLock<Manifests> = LazyLock::new(|| Manifests {
        cluster_roles: [
            parse::<ClusterRole>(include_str!("../../../manifests/rbac/cluster-roles.yaml")),
            parse(include_str!(
                "../../../manifests/rbac/controller-roles.yaml"
            )),
        ]
        .concat(),
        cluster_role_bindings: [
            parse::<ClusterRoleBinding>(include_str!(
                "../../../manifests/rbac/cluster-role-bindings.yaml"
            )),
            parse(include_str!(
                "../../../manifests/rbac/controller-role-bindings.yaml"
            )),
        ]
        .concat(),
        roles: parse(include_str!("../../../manifests/rbac/namespace-roles.yaml")),
        role_bindings: parse(include_str!(
            "../../../manifests/rbac/namespace-role-bindings.yaml"
        )),
    });
    &MANIFESTS
}

/// The rules of the role `system:node`, which nobody is bound to: the Node authorizer has them.
pub fn node_rules() -> Vec<PolicyRule> {
    let mut roles = manifests().cluster_roles.iter();
    let role = roles.find(|role| role.metadata.name.as_deref() == Some(NODE_ROLE));
    role.and_then(|role| role.rules.clone()).unwrap_or_default()
}

fn parse<T>(yaml: &str) -> Vec<T>
where
    T: DeserializeOwned + k8s_openapi::Metadata<Ty = ObjectMeta>,
{
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| {
            let mut object = T::deserialize(document).expect("the built-in manifests are valid");
            let metadata = object.metadata_mut();
            let labels = metadata.labels.get_or_insert_default();
            labels.insert(BOOTSTRAPPING.0.to_owned(), BOOTSTRAPPING.1.to_owned());
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(AUTOUPDATE.to_owned(), "true".to_owned());
            object
        })
        .collect()
}

/// What has to be done about an object that exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled<T> {
    /// It is as it should be, or is not to be touched.
    Keep,
    Update(T),
    /// A binding cannot be made to refer to another role.
    Recreate(T),
}

pub fn reconciled_cluster_role(
    wanted: &ClusterRole,
    found: &ClusterRole,
) -> Reconciled<ClusterRole> {
    let mut new = found.clone();
    reconcile_metadata(&mut new.metadata, &wanted.metadata);
    new.aggregation_rule = union_of_selectors(&found.aggregation_rule, &wanted.aggregation_rule);
    if wanted.aggregation_rule.is_none() {
        new.rules = union_of_rules(&found.rules, &wanted.rules);
    }
    finish(&found.metadata, found, new)
}

pub fn reconciled_role(wanted: &Role, found: &Role) -> Reconciled<Role> {
    let mut new = found.clone();
    reconcile_metadata(&mut new.metadata, &wanted.metadata);
    new.rules = union_of_rules(&found.rules, &wanted.rules);
    finish(&found.metadata, found, new)
}

pub fn reconciled_cluster_role_binding(
    wanted: &ClusterRoleBinding,
    found: &ClusterRoleBinding,
) -> Reconciled<ClusterRoleBinding> {
    let mut new = found.clone();
    reconcile_metadata(&mut new.metadata, &wanted.metadata);
    new.subjects = union_of_subjects(&found.subjects, &wanted.subjects);
    if other_role(&found.role_ref, &wanted.role_ref) && is_ours(&found.metadata) {
        return Reconciled::Recreate(wanted.clone());
    }
    finish(&found.metadata, found, new)
}

pub fn reconciled_role_binding(
    wanted: &RoleBinding,
    found: &RoleBinding,
) -> Reconciled<RoleBinding> {
    let mut new = found.clone();
    reconcile_metadata(&mut new.metadata, &wanted.metadata);
    new.subjects = union_of_subjects(&found.subjects, &wanted.subjects);
    if other_role(&found.role_ref, &wanted.role_ref) && is_ours(&found.metadata) {
        return Reconciled::Recreate(wanted.clone());
    }
    finish(&found.metadata, found, new)
}

fn finish<T: PartialEq>(metadata: &ObjectMeta, found: &T, new: T) -> Reconciled<T> {
    if is_ours(metadata) && *found != new {
        Reconciled::Update(new)
    } else {
        Reconciled::Keep
    }
}

fn is_ours(metadata: &ObjectMeta) -> bool {
    let annotations = metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(AUTOUPDATE))
        .map(String::as_str)
        != Some("false")
}

fn other_role(found: &RoleRef, wanted: &RoleRef) -> bool {
    found.kind != wanted.kind || found.name != wanted.name
}

fn reconcile_metadata(found: &mut ObjectMeta, wanted: &ObjectMeta) {
    fill(&mut found.labels, &wanted.labels);
    fill(&mut found.annotations, &wanted.annotations);
}

type Strings = Option<BTreeMap<String, String>>;

/// Adds what is missing; what is there stays.
fn fill(found: &mut Strings, wanted: &Strings) {
    for (key, value) in wanted.iter().flatten() {
        let found = found.get_or_insert_default();
        found.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn union_of_rules(
    found: &Option<Vec<PolicyRule>>,
    wanted: &Option<Vec<PolicyRule>>,
) -> Option<Vec<PolicyRule>> {
    let mut rules = found.clone().unwrap_or_default();
    for rule in wanted.iter().flatten() {
        if !covers::missing(&rules, std::slice::from_ref(rule)).is_empty() {
            rules.push(rule.clone());
        }
    }
    (found.is_some() || !rules.is_empty()).then_some(rules)
}

fn union_of_subjects(
    found: &Option<Vec<Subject>>,
    wanted: &Option<Vec<Subject>>,
) -> Option<Vec<Subject>> {
    let mut subjects = found.clone().unwrap_or_default();
    let same = |one: &Subject, other: &Subject| {
        one.kind == other.kind && one.name == other.name && one.namespace == other.namespace
    };
    for subject in wanted.iter().flatten() {
        if !subjects.iter().any(|known| same(known, subject)) {
            subjects.push(subject.clone());
        }
    }
    (found.is_some() || !subjects.is_empty()).then_some(subjects)
}

fn union_of_selectors(
    found: &Option<AggregationRule>,
    wanted: &Option<AggregationRule>,
) -> Option<AggregationRule> {
    let Some(wanted) = wanted else {
        return found.clone();
    };
    let mut rule = found.clone().unwrap_or_default();
    let selectors = rule.cluster_role_selectors.get_or_insert_default();
    for selector in wanted.cluster_role_selectors.iter().flatten() {
        if !selectors.contains(selector) {
            selectors.push(selector.clone());
        }
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_there() {
        let manifests = manifests();
        assert!(manifests.cluster_roles.len() > 60);
        assert!(manifests.cluster_role_bindings.len() > 45);
        assert!(!manifests.roles.is_empty() && !manifests.role_bindings.is_empty());
        assert!(!node_rules().is_empty());
        for binding in &manifests.cluster_role_bindings {
            let role = Some(binding.role_ref.name.as_str());
            let known = manifests
                .cluster_roles
                .iter()
                .any(|known| known.metadata.name.as_deref() == role);
            assert!(known, "{role:?}");
        }
        assert_eq!(
            manifests.roles[0].metadata.labels.as_ref().unwrap()["kubernetes.io/bootstrapping"],
            "rbac-defaults"
        );
    }

    #[test]
    fn what_was_taken_away_comes_back_and_what_was_added_stays() {
        let wanted = &manifests().cluster_roles[1];
        assert_eq!(wanted.metadata.name.as_deref(), Some("cluster-admin"));
        assert_eq!(reconciled_cluster_role(wanted, wanted), Reconciled::Keep);
        let mut found = wanted.clone();
        found.rules.as_mut().unwrap().pop();
        let extra = PolicyRule {
            verbs: vec!["use".to_owned()],
            non_resource_urls: Some(vec!["/x".to_owned()]),
            ..PolicyRule::default()
        };
        found.rules.as_mut().unwrap().push(extra.clone());
        found.metadata.labels = None;
        let Reconciled::Update(new) = reconciled_cluster_role(wanted, &found) else {
            panic!("it is updated");
        };
        assert_eq!(new.rules.as_ref().unwrap().len(), 3);
        assert!(new.rules.unwrap().contains(&extra));
        assert_eq!(new.metadata.labels, wanted.metadata.labels);
        let annotations = found.metadata.annotations.as_mut().unwrap();
        annotations.insert(AUTOUPDATE.to_owned(), "false".to_owned());
        assert_eq!(reconciled_cluster_role(wanted, &found), Reconciled::Keep);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew() {
        let wanted = &manifests().cluster_role_bindings[0];
        let mut found = wanted.clone();
        found.subjects = None;
        assert_eq!(
            reconciled_cluster_role_binding(wanted, &found),
            Reconciled::Update(wanted.clone())
        );
        found.role_ref.name = "other".to_owned();
        assert_eq!(
            reconciled_cluster_role_binding(wanted, &found),
            Reconciled::Recreate(wanted.clone())
        );
    }
}
