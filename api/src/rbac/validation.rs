//! Defaults of roles and bindings, and what is wrong with them.

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde_json::json;

use crate::{
    check,
    field::{ErrorList, Path, value_of},
    names,
    zero::{default_text, list, text},
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The API groups of role and subjects.
pub fn default_binding(role: &mut RoleRef, subjects: &mut [Subject]) {
    default_text(&mut role.api_group, GROUP);
    for subject in subjects {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            default_text(&mut subject.api_group, GROUP);
        }
    }
}

/// Rules, which of a Role are about its namespace only.
pub fn rules(rules: &[PolicyRule], namespaced: bool, errors: &mut ErrorList) {
    for (index, rule) in rules.iter().enumerate() {
        policy_rule(rule, namespaced, &Path::new("rules").index(index), errors);
    }
}

fn policy_rule(rule: &PolicyRule, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    if rule.verbs.is_empty() {
        let path = path.child("verbs");
        errors.push(path.required("verbs must contain at least one value"));
    }
    let (groups, resources) = (list(&rule.api_groups), list(&rule.resources));
    let urls = list(&rule.non_resource_urls);
    if !urls.is_empty() {
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.push(path.invalid(urls, "namespaced rules cannot apply to non-resource URLs"));
        }
        let resource_names = list(&rule.resource_names);
        if !(groups.is_empty() && resources.is_empty() && resource_names.is_empty()) {
            errors.push(path.invalid(
                urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        return;
    }
    if groups.is_empty() {
        let path = path.child("apiGroups");
        errors.push(path.required("resource rules must supply at least one api group"));
    }
    if resources.is_empty() {
        let path = path.child("resources");
        errors.push(path.required("resource rules must supply at least one resource"));
    }
}

/// The role that a binding grants, of one of `kinds`.
pub fn role_ref(role: &RoleRef, kinds: &[&str], errors: &mut ErrorList) {
    let path = Path::new("roleRef");
    let group = text(&role.api_group);
    check::one_of(group, &[GROUP], &path.child("apiGroup"), errors);
    check::one_of(&role.kind, kinds, &path.child("kind"), errors);
    check::required_path_segment(&role.name, &path.child("name"), errors);
}

/// To whom a binding grants it.
pub fn subjects(subjects: &[Subject], namespaced: bool, errors: &mut ErrorList) {
    for (index, subject) in subjects.iter().enumerate() {
        validate_subject(
            subject,
            namespaced,
            &Path::new("subjects").index(index),
            errors,
        );
    }
}

fn validate_subject(subject: &Subject, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let name = subject.name.as_str();
    check::required(name, &path.child("name"), errors);
    let group = text(&subject.api_group);
    let group_path = path.child("apiGroup");
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                let messages = names::dns1123_subdomain(name);
                check::each(&path.child("name"), name, messages, errors);
            }
            check::one_of(group, &[""], &group_path, errors);
            if !namespaced && text(&subject.namespace).is_empty() {
                errors.push(path.child("namespace").required(""));
            }
        }
        "User" | "Group" => check::one_of(group, &[GROUP], &group_path, errors),
        kind => errors.push(
            path.child("kind")
                .not_supported(kind, &["ServiceAccount", "User", "Group"]),
        ),
    }
}

/// What a binding grants is for ever.
pub fn same_role(new: &RoleRef, old: &RoleRef, errors: &mut ErrorList) {
    if new != old {
        let role = json!({
            "APIGroup": new.api_group,
            "Kind": new.kind,
            "Name": new.name,
        });
        errors.push(Path::new("roleRef").invalid(value_of(&role), "cannot change roleRef"));
    }
}
