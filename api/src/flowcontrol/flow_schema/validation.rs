//! What is wrong with a FlowSchema.
//!
//! Upstream: `pkg/apis/flowcontrol/validation`.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule,
    ServiceAccountSubject, Subject,
};
use serde_json::{Value, json};

use crate::{
    check,
    field::{ErrorList, Path, value_of},
    names,
    zero::{list, text},
};

const MAX_PRECEDENCE: i32 = 10_000;
const EXEMPT: &str = "exempt";
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

pub fn object(schema: &FlowSchema) -> ErrorList {
    let mut errors = ErrorList::new();
    let (name, path) = (text(&schema.metadata.name), Path::new("spec"));
    if let Some(schema) = &schema.spec {
        spec(schema, name, &path, &mut errors);
        let value = value_of(schema);
        if fixed(name).is_some_and(|fixed| fixed != value) {
            let message = format!("spec of '{name}' must equal the fixed value");
            errors.push(path.invalid(value, message));
        }
    }
    errors.extend(status(schema));
    errors
}

pub fn status(schema: &FlowSchema) -> ErrorList {
    let status = schema.status.as_ref();
    let conditions = status.map_or(&[][..], |status| list(&status.conditions));
    let types: Vec<&str> = conditions.iter().map(|one| text(&one.type_)).collect();
    crate::flowcontrol::condition_types(&types)
}

/// The spec that a mandatory object must have.
fn fixed(name: &str) -> Option<Value> {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let everything = |subjects: Value| {
        json!([{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    match name {
        EXEMPT => Some(json!({
            "priorityLevelConfiguration": {"name": EXEMPT},
            "matchingPrecedence": 1,
            "rules": everything(json!([group("system:masters")])),
        })),
        "catch-all" => Some(json!({
            "priorityLevelConfiguration": {"name": "catch-all"},
            "matchingPrecedence": MAX_PRECEDENCE,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": everything(json!([
                group("system:unauthenticated"),
                group("system:authenticated"),
            ])),
        })),
        _ => None,
    }
}

fn spec(spec: &FlowSchemaSpec, name: &str, path: &Path, errors: &mut ErrorList) {
    let precedence_path = path.child("matchingPrecedence");
    let precedence = spec.matching_precedence.unwrap_or_default();
    if precedence <= 0 {
        errors.push(precedence_path.invalid(precedence, "must be a positive value"));
    }
    if precedence > MAX_PRECEDENCE {
        let message = format!("must not be greater than {MAX_PRECEDENCE}");
        errors.push(precedence_path.invalid(precedence, message));
    }
    if precedence == 1 && name != EXEMPT {
        let message = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(precedence_path.invalid(precedence, message));
    }
    if let Some(method) = &spec.distinguisher_method {
        const METHODS: &[&str] = &["ByNamespace", "ByUser"];
        if !METHODS.contains(&method.type_.as_str()) {
            let path = path.child("distinguisherMethod.type");
            errors.push(path.not_supported(value_of(method), METHODS));
        }
    }
    let level = &spec.priority_level_configuration.name;
    let level_path = path.child("priorityLevelConfiguration.name");
    if level.is_empty() {
        errors.push(level_path.required("must reference a priority level"));
    } else {
        check::subdomain(level, &level_path, errors);
    }
    for (index, rule) in list(&spec.rules).iter().enumerate() {
        rules(rule, &path.child("rules").index(index), errors);
    }
}

fn rules(rules: &PolicyRulesWithSubjects, path: &Path, errors: &mut ErrorList) {
    if rules.subjects.is_empty() {
        let path = path.child("subjects");
        errors.push(path.required("subjects must contain at least one value"));
    }
    for (index, item) in rules.subjects.iter().enumerate() {
        subject(item, &path.child("subjects").index(index), errors);
    }
    let resource_rules = list(&rules.resource_rules);
    let other_rules = list(&rules.non_resource_rules);
    if resource_rules.is_empty() && other_rules.is_empty() {
        errors.push(
            path.required("at least one of resourceRules and nonResourceRules has to be non-empty"),
        );
    }
    for (index, rule) in resource_rules.iter().enumerate() {
        resource_rule(rule, &path.child("resourceRules").index(index), errors);
    }
    for (index, rule) in other_rules.iter().enumerate() {
        other_rule(rule, &path.child("nonResourceRules").index(index), errors);
    }
}

fn subject(subject: &Subject, path: &Path, errors: &mut ErrorList) {
    const KINDS: &[&str] = &["Group", "ServiceAccount", "User"];
    let kind = subject.kind.as_str();
    if !KINDS.contains(&kind) {
        errors.push(path.child("kind").not_supported(kind, KINDS));
        return;
    }
    let user = subject.user.as_ref().map(|user| user.name.as_str());
    let group = subject.group.as_ref().map(|group| group.name.as_str());
    let missing = |field: &str| format!("{field} is required when subject kind is '{kind}'");
    let named = |field: &str, name: Option<&str>, errors: &mut ErrorList| {
        let path = path.child(field);
        match name {
            None => errors.push(path.required(missing(field))),
            Some(name) => check::required(name, &path.child("name"), errors),
        }
    };
    match kind {
        "User" => named("user", user, errors),
        "Group" => named("group", group, errors),
        _ => {
            let path = path.child("serviceAccount");
            match &subject.service_account {
                None => errors.push(path.required(missing("serviceAccount"))),
                Some(account) => service_account(account, &path, errors),
            }
        }
    }
    for (field, of, is_set) in [
        (
            "serviceAccount",
            "ServiceAccount",
            subject.service_account.is_some(),
        ),
        ("user", "User", user.is_some()),
        ("group", "Group", group.is_some()),
    ] {
        if is_set && of != kind {
            let message = format!("{field} is forbidden when subject kind is not '{of}'");
            errors.push(path.child(field).forbidden(message));
        }
    }
}

fn service_account(account: &ServiceAccountSubject, path: &Path, errors: &mut ErrorList) {
    let name_path = path.child("name");
    match account.name.as_str() {
        "" => errors.push(name_path.required("")),
        "*" => {}
        name => check::subdomain(name, &name_path, errors),
    }
    let namespace_path = path.child("namespace");
    if account.namespace.is_empty() {
        errors.push(namespace_path.required("must specify namespace for service account"));
    } else {
        check::dns_label(&account.namespace, &namespace_path, errors);
    }
}

fn has_wildcard(values: &[String]) -> bool {
    values.iter().any(|value| value == "*")
}

/// A list that may be only a wildcard: what is wrong when it holds others too.
fn alone(values: &[String], what: &str, path: &Path, errors: &mut ErrorList) {
    if values.len() > 1 && has_wildcard(values) {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(path.invalid(value_of(&values), message));
    }
}

fn verbs(verbs: &[String], path: &Path, errors: &mut ErrorList) {
    let path = path.child("verbs");
    if verbs.is_empty() {
        errors.push(path.required("verbs must contain at least one value"));
    } else if has_wildcard(verbs) {
        alone(verbs, "verbs", &path, errors);
    } else if !verbs.iter().all(|verb| VERBS.contains(&verb.as_str())) {
        errors.push(path.not_supported(value_of(&verbs), VERBS));
    }
}

fn resource_rule(rule: &ResourcePolicyRule, path: &Path, errors: &mut ErrorList) {
    verbs(&rule.verbs, path, errors);
    for (field, values, missing, others) in [
        ("apiGroups", &rule.api_groups, "api group", "api groups"),
        ("resources", &rule.resources, "resource", "resources"),
    ] {
        let path = path.child(field);
        if values.is_empty() {
            let message = format!("resource rules must supply at least one {missing}");
            errors.push(path.required(message));
        }
        alone(values, others, &path, errors);
    }
    let (namespaces, path) = (list(&rule.namespaces), path.child("namespaces"));
    if namespaces.is_empty() && rule.cluster_scope != Some(true) {
        errors.push(path.required(
            "resource rules that are not cluster scoped must supply at least one namespace",
        ));
    } else if has_wildcard(namespaces) {
        alone(namespaces, "namespaces", &path, errors);
    } else {
        for (index, namespace) in namespaces.iter().enumerate() {
            for message in names::dns1123_label(namespace) {
                errors.push(path.index(index).invalid(
                    namespace.as_str(),
                    format!("each member of this list must be '*' or a DNS-1123 label; {message}"),
                ));
            }
        }
    }
}

fn other_rule(rule: &NonResourcePolicyRule, path: &Path, errors: &mut ErrorList) {
    verbs(&rule.verbs, path, errors);
    let (urls, path) = (&rule.non_resource_urls, path.child("nonResourceURLs"));
    if urls.is_empty() {
        errors.push(path.required("nonResourceURLs must contain at least one value"));
    } else if has_wildcard(urls) {
        alone(urls, "non-resource URLs", &path, errors);
    } else {
        for (index, url) in urls.iter().enumerate() {
            if let Some(message) = url_problem(url) {
                errors.push(path.index(index).invalid(url.as_str(), message));
            }
        }
    }
}

fn url_problem(url: &str) -> Option<&'static str> {
    let wildcards = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if wildcards > 1 || (wildcards == 1 && !url.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}
