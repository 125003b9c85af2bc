//! Which FlowSchema a request belongs to.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use coracle_api::Identity;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, NonResourcePolicyRule, PolicyRulesWithSubjects, PriorityLevelConfiguration,
    ResourcePolicyRule, Subject,
};

use super::Class;
use crate::{lister::Shared, request_info::RequestInfo};

const DEFAULT_PRECEDENCE: i32 = 1000;
/// The level of requests that no schema matches.
pub const CATCH_ALL: &str = "catch-all";

/// FlowSchemas in the order in which they are asked.
pub struct Schemas {
    schemas: Vec<Schema>,
    last: Found,
    masters: Found,
}

struct Schema {
    object: Shared<FlowSchema>,
    found: Found,
}

/// Where a request belongs.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub schema: String,
    pub level: String,
    /// Never waits.
    pub exempt: bool,
    pub class: Class,
    by: By,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum By {
    #[default]
    Nothing,
    User,
    Namespace,
}

impl Found {
    pub fn distinguisher<'a>(&self, user: &'a Identity, info: &'a RequestInfo) -> &'a str {
        match self.by {
            By::Nothing => "",
            By::User => &user.user,
            By::Namespace => &info.namespace,
        }
    }
}

impl Schemas {
    pub fn new(
        schemas: &[Shared<FlowSchema>],
        levels: &[Shared<PriorityLevelConfiguration>],
    ) -> Self {
        let mut sorted: Vec<Schema> = schemas
            .iter()
            .filter_map(|object| {
                let spec = object.spec.as_ref()?;
                let level = &spec.priority_level_configuration.name;
                let config = levels
                    .iter()
                    .find(|l| l.metadata.name.as_ref() == Some(level))?;
                let by = match spec.distinguisher_method.as_ref().map(|m| m.type_.as_str()) {
                    Some("ByUser") => By::User,
                    Some("ByNamespace") => By::Namespace,
                    _ => By::Nothing,
                };
                let found = Found {
                    schema: object.metadata.name.clone().unwrap_or_default(),
                    level: level.clone(),
                    exempt: config.spec.as_ref().is_some_and(|s| s.type_ == "Exempt"),
                    class: Class {
                        schema_uid: object.metadata.uid.clone().unwrap_or_default(),
                        level_uid: config.metadata.uid.clone().unwrap_or_default(),
                    },
                    by,
                };
                Some(Schema {
                    object: object.clone(),
                    found,
                })
            })
            .collect();
        sorted.sort_by(|a, b| {
            let key = |schema: &Schema| {
                let spec = schema.object.spec.as_ref();
                let precedence = spec.and_then(|spec| spec.matching_precedence);
                precedence.unwrap_or(DEFAULT_PRECEDENCE)
            };
            (key(a), &a.found.schema).cmp(&(key(b), &b.found.schema))
        });
        Schemas {
            schemas: sorted,
            // What upstream never lets be missing.
            last: Found {
                schema: CATCH_ALL.to_owned(),
                level: CATCH_ALL.to_owned(),
                by: By::User,
                ..Found::default()
            },
            masters: Found {
                schema: "exempt".to_owned(),
                level: "exempt".to_owned(),
                exempt: true,
                ..Found::default()
            },
        }
    }

    /// Where the request belongs.
    pub fn classify(&self, user: &Identity, info: &RequestInfo) -> &Found {
        let matching = self.schemas.iter().find(|schema| {
            let rules = schema
                .object
                .spec
                .iter()
                .flat_map(|s| s.rules.iter().flatten());
            rules.into_iter().any(|rule| matches(rule, user, info))
        });
        if let Some(schema) = matching {
            return &schema.found;
        }
        let master = user.groups.iter().any(|group| group == "system:masters");
        if master { &self.masters } else { &self.last }
    }
}

/// A number for the flow that a request is part of.
pub fn hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, distinguisher).hash(&mut hasher);
    hasher.finish()
}

fn matches(rule: &PolicyRulesWithSubjects, user: &Identity, info: &RequestInfo) -> bool {
    rule.subjects
        .iter()
        .any(|subject| is_subject(subject, user))
        && if info.is_resource {
            let rules = rule.resource_rules.iter().flatten();
            rules.into_iter().any(|rule| matches_resource(rule, info))
        } else {
            let rules = rule.non_resource_rules.iter().flatten();
            rules.into_iter().any(|rule| matches_path(rule, info))
        }
}

fn is_subject(subject: &Subject, user: &Identity) -> bool {
    match subject.kind.as_str() {
        "User" => subject
            .user
            .as_ref()
            .is_some_and(|subject| subject.name == "*" || subject.name == user.user),
        "Group" => subject
            .group
            .as_ref()
            .is_some_and(|subject| subject.name == "*" || user.groups.contains(&subject.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|subject| {
            user.user
                .strip_prefix("system:serviceaccount:")
                .and_then(|account| account.split_once(':'))
                .is_some_and(|(namespace, name)| {
                    namespace == subject.namespace && (subject.name == "*" || subject.name == name)
                })
        }),
        _ => false,
    }
}

fn matches_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    let resource = |listed: &String| match info.subresource.as_str() {
        "" => *listed == info.resource,
        subresource => listed
            .strip_prefix(info.resource.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest == subresource),
    };
    let any = |list: &[String]| list.len() == 1 && list[0] == "*";
    lists(&rule.verbs, &info.verb)
        && (any(&rule.resources) || rule.resources.iter().any(resource))
        && lists(&rule.api_groups, &info.group)
        && if info.namespace.is_empty() {
            rule.cluster_scope.unwrap_or(false)
        } else {
            lists(
                rule.namespaces.as_deref().unwrap_or_default(),
                &info.namespace,
            )
        }
}

fn matches_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    lists(&rule.verbs, &info.verb)
        && rule.non_resource_urls.iter().any(|listed| {
            if listed == "*" || *listed == info.path {
                return true;
            }
            let prefix = listed.trim_end_matches('*').trim_end_matches('/');
            info.path
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('/'))
        })
}

/// Whether a list names a value, by itself or as the only `*`.
fn lists(list: &[String], value: &str) -> bool {
    (list.len() == 1 && list[0] == "*") || list.iter().any(|listed| listed == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_and_rules() {
        let user = Identity {
            user: "system:serviceaccount:ns:app".to_owned(),
            groups: vec!["g".to_owned()],
            ..Identity::default()
        };
        let rule = |subject: &str, resources: &str| -> PolicyRulesWithSubjects {
            serde_json::from_str(&format!(
                r#"{{"subjects":[{subject}],"resourceRules":[{{"verbs":["*"],"apiGroups":[""],"resources":["{resources}"],"namespaces":["*"]}}]}}"#
            ))
            .unwrap()
        };
        let info = RequestInfo {
            is_resource: true,
            verb: "get".to_owned(),
            resource: "pods".to_owned(),
            subresource: "log".to_owned(),
            namespace: "ns".to_owned(),
            ..RequestInfo::default()
        };
        let account = r#"{"kind":"ServiceAccount","serviceAccount":{"namespace":"ns","name":"*"}}"#;
        let group = r#"{"kind":"Group","group":{"name":"other"}}"#;
        assert!(matches(&rule(account, "pods/log"), &user, &info));
        assert!(matches(&rule(account, "*"), &user, &info));
        assert!(!matches(&rule(account, "pods"), &user, &info));
        assert!(!matches(&rule(group, "*"), &user, &info));
    }
}
