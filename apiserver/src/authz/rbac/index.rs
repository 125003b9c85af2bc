//! Who is granted what: bindings by user and group.

use std::{collections::HashMap, sync::Arc};

use coracle_api::{Identity, selector::LabelSelector};
use k8s_openapi::{
    Metadata as _,
    api::rbac::v1::{
        ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::Shared;

/// All roles and bindings.
pub struct Objects {
    pub roles: Vec<Shared<Role>>,
    pub role_bindings: Vec<Shared<RoleBinding>>,
    pub cluster_roles: Vec<Shared<ClusterRole>>,
    pub cluster_role_bindings: Vec<Shared<ClusterRoleBinding>>,
}

/// What one subject of one binding is granted.
#[derive(Clone, Debug)]
pub struct Grant {
    /// For example `ClusterRoleBinding "x" of ClusterRole "y" to Group "z"`.
    pub source: String,
    /// Or why there are none.
    pub rules: Result<Arc<[PolicyRule]>, String>,
}

/// Grants by who has them; numbers are places in [`Index::grants`], in order of the bindings.
#[derive(Default)]
struct Bindings {
    users: HashMap<String, Vec<usize>>,
    groups: HashMap<String, Vec<usize>>,
}

impl Bindings {
    fn of<'a>(&'a self, user: &'a Identity) -> impl Iterator<Item = usize> {
        let of_groups = user
            .groups
            .iter()
            .filter_map(|group| self.groups.get(group));
        let of_user = self.users.get(&user.user).into_iter();
        of_user.chain(of_groups).flatten().copied()
    }
}

/// Roles and bindings as they were at some generation of each of the four kinds.
#[derive(Default)]
pub struct Index {
    generations: [u64; 4],
    grants: Vec<Grant>,
    cluster: Bindings,
    namespaces: HashMap<String, Bindings>,
    cluster_roles: HashMap<String, Arc<[PolicyRule]>>,
    /// By namespace and name.
    roles: HashMap<String, HashMap<String, Arc<[PolicyRule]>>>,
}

impl Index {
    pub fn new(generations: [u64; 4], objects: &Objects) -> Self {
        let mut index = Index {
            generations,
            cluster_roles: cluster_roles(&objects.cluster_roles),
            ..Index::default()
        };
        for role in &objects.roles {
            let metadata = role.metadata();
            let rules = role.rules.clone().unwrap_or_default();
            index
                .roles
                .entry(namespace_of(metadata).to_owned())
                .or_default()
                .insert(name_of(metadata).to_owned(), rules.into());
        }
        for binding in &objects.cluster_role_bindings {
            let metadata = binding.metadata();
            let source = format!("ClusterRoleBinding {:?}", name_of(metadata));
            let subjects = binding.subjects.as_deref().unwrap_or_default();
            index.bind("", &source, &binding.role_ref, subjects);
        }
        for binding in &objects.role_bindings {
            let metadata = binding.metadata();
            let namespace = namespace_of(metadata);
            let full_name = format!("{}/{namespace}", name_of(metadata));
            let source = format!("RoleBinding {full_name:?}");
            let subjects = binding.subjects.as_deref().unwrap_or_default();
            index.bind(namespace, &source, &binding.role_ref, subjects);
        }
        index
    }

    fn bind(&mut self, namespace: &str, source: &str, role: &RoleRef, subjects: &[Subject]) {
        let rules = self.rules_of(&role.kind, &role.name, namespace);
        for subject in subjects {
            let place = self.grants.len();
            let bindings = if namespace.is_empty() {
                &mut self.cluster
            } else {
                self.namespaces.entry(namespace.to_owned()).or_default()
            };
            let (who, described) = match subject.kind.as_str() {
                "User" => (
                    bindings.users.entry(subject.name.clone()),
                    subject.name.clone(),
                ),
                "Group" => (
                    bindings.groups.entry(subject.name.clone()),
                    subject.name.clone(),
                ),
                "ServiceAccount" => {
                    let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
                    let account_namespace = own.unwrap_or(namespace);
                    if account_namespace.is_empty() {
                        continue;
                    }
                    let name = &subject.name;
                    let user = format!("system:serviceaccount:{account_namespace}:{name}");
                    (
                        bindings.users.entry(user),
                        format!("{name}/{account_namespace}"),
                    )
                }
                _ => continue,
            };
            who.or_default().push(place);
            self.grants.push(Grant {
                source: format!(
                    "{source} of {} {:?} to {} {described:?}",
                    role.kind, role.name, subject.kind
                ),
                rules: rules.clone(),
            });
        }
    }

    pub fn generations(&self) -> [u64; 4] {
        self.generations
    }

    /// What the user is granted cluster-wide and, if it is not empty, in the namespace.
    pub fn grants(&self, user: &Identity, namespace: &str) -> impl Iterator<Item = &Grant> {
        let local = self.namespaces.get(namespace);
        let mut places: Vec<usize> = self.cluster.of(user).collect();
        places.extend(local.into_iter().flat_map(|bindings| bindings.of(user)));
        places.sort_unstable();
        places.into_iter().map(|place| &self.grants[place])
    }

    /// The rules of the role that a binding in the namespace refers to.
    pub fn rules_of(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
    ) -> Result<Arc<[PolicyRule]>, String> {
        let (resource, found) = match kind {
            "Role" => {
                let roles = self.roles.get(namespace);
                ("role", roles.and_then(|roles| roles.get(name)))
            }
            "ClusterRole" => ("clusterrole", self.cluster_roles.get(name)),
            _ => return Err(format!("unsupported role reference kind: {kind:?}")),
        };
        found
            .cloned()
            .ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io {name:?} not found"))
    }
}

/// The rules of each role, with those that it gathers from others.
fn cluster_roles(roles: &[Shared<ClusterRole>]) -> HashMap<String, Arc<[PolicyRule]>> {
    let rules_of = |role: &ClusterRole| role.rules.clone().unwrap_or_default();
    roles
        .iter()
        .map(|role| {
            let mut rules = rules_of(role);
            let aggregation = role.aggregation_rule.as_ref();
            let selectors = aggregation.and_then(|rule| rule.cluster_role_selectors.as_ref());
            for selector in selectors.into_iter().flatten() {
                let Ok(selector) = LabelSelector::from_object(Some(selector)) else {
                    continue;
                };
                for other in roles {
                    if selector.matches_labels(other.metadata.labels.as_ref()) {
                        for rule in rules_of(other) {
                            if !rules.contains(&rule) {
                                rules.push(rule);
                            }
                        }
                    }
                }
            }
            (name_of(&role.metadata).to_owned(), rules.into())
        })
        .collect()
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn namespace_of(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}
