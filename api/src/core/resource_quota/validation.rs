//! What is wrong with a ResourceQuota.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ResourceQuotaSpec, ResourceQuotaStatus, ScopedResourceSelectorRequirement,
};

use crate::{
    check,
    core::pod::{
        resources::is_huge_page,
        validation::resources::{quantity_value, resource_name},
    },
    field::{ErrorList, Path, value_of},
    quantity::ResourceList,
    zero::list,
};

const CONFLICTS: [[&str; 2]; 2] = [
    ["BestEffort", "NotBestEffort"],
    ["NotTerminating", "Terminating"],
];

pub fn spec(spec: &ResourceQuotaSpec, path: &Path, errors: &mut ErrorList) {
    resources(spec.hard.as_ref(), &path.child("hard"), errors);
    let all = list(&spec.scopes);
    let scopes_path = path.child("scopes");
    for scope in all {
        if !is_scope(scope) {
            errors.push(scopes_path.invalid(value_of(&all), "unsupported scope"));
        }
        for _ in out_of_scope(spec, scope) {
            let message = "unsupported scope applied to resource";
            errors.push(scopes_path.invalid(value_of(&all), message));
        }
    }
    let scopes: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    conflicts(&scopes, spec, &scopes_path, errors);
    let Some(selector) = &spec.scope_selector else {
        return;
    };
    let path = path.child("scopeSelector.matchExpressions");
    let requirements = list(&selector.match_expressions);
    for requirement in requirements {
        scope_requirement(requirement, spec, &path, errors);
    }
    let scopes = requirements.iter().map(|r| r.scope_name.as_str()).collect();
    conflicts(&scopes, spec, &path, errors);
}

pub fn status(status: &ResourceQuotaStatus, path: &Path, errors: &mut ErrorList) {
    resources(status.hard.as_ref(), &path.child("hard"), errors);
    resources(status.used.as_ref(), &path.child("used"), errors);
}

fn resources(resources: Option<&ResourceList>, path: &Path, errors: &mut ErrorList) {
    for (name, quantity) in resources.into_iter().flatten() {
        let path = path.key(name);
        resource_name(name, &path, errors);
        if !name.contains('/') && !is_quota_resource(name) {
            errors.push(path.invalid(name.as_str(), "must be a standard resource for quota"));
        }
        quantity_value(name, quantity, &path, errors);
    }
}

/// Resources of Kubernetes that a quota can limit.
fn is_quota_resource(name: &str) -> bool {
    const STANDARD: [&str; 19] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    ];
    STANDARD.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "VolumeAttributesClass"
            | "CrossNamespacePodAffinity"
    )
}

/// Limited resources that objects in a scope do not use.
fn out_of_scope<'a>(
    spec: &'a ResourceQuotaSpec,
    scope: &'a str,
) -> impl Iterator<Item = &'a String> {
    let limited = spec.hard.iter().flat_map(|hard| hard.keys());
    limited.filter(move |name| is_quota_resource(name) && !is_in_scope(scope, name))
}

fn is_in_scope(scope: &str, resource: &str) -> bool {
    let is_compute = matches!(
        resource,
        "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory"
    );
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || is_compute,
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

fn conflicts(
    scopes: &BTreeSet<&str>,
    spec: &ResourceQuotaSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    for pair in CONFLICTS {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            errors.push(path.invalid(value_of(&list(&spec.scopes)), "conflicting scopes"));
        }
    }
}

fn scope_requirement(
    requirement: &ScopedResourceSelectorRequirement,
    spec: &ResourceQuotaSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    let scope = requirement.scope_name.as_str();
    let operator = requirement.operator.as_str();
    let values = list(&requirement.values);
    let operator_path = path.child("operator");
    if !is_scope(scope) {
        errors.push(path.child("scopeName").invalid(scope, "unsupported scope"));
    }
    for _ in out_of_scope(spec, scope) {
        let message = "unsupported scope applied to resource";
        errors.push(path.invalid(value_of(&spec.scope_selector), message));
    }
    let has_no_values =
        is_scope(scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if has_no_values && operator != "Exists" {
        errors.push(operator_path.invalid(
            operator,
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
             ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
             ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        ));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => errors.push(path.child("values").required(
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(path.child("values").invalid(
                value_of(&values),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(operator_path.invalid(operator, "not a valid selector operator")),
    }
}

/// The scopes decide what is counted, so they stay.
pub fn scopes_change(new: &ResourceQuotaSpec, old: &ResourceQuotaSpec, errors: &mut ErrorList) {
    let set = |spec: &ResourceQuotaSpec| -> BTreeSet<String> {
        list(&spec.scopes).iter().cloned().collect()
    };
    if set(new) != set(old) {
        let value = value_of(&new.scopes);
        errors.push(Path::new("spec.scopes").invalid(value, check::IMMUTABLE));
    }
}
