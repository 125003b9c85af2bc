//! What is wrong with the policies of a Job: which failures count, and what is success.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule, SuccessPolicy, SuccessPolicyRule,
};

use super::{indexes, validation::is_indexed};
use crate::{
    check,
    field::{ErrorList, Path, value_of},
    internal,
    zero::list,
};

const MAX_RULES: usize = 20;
const MAX_PATTERNS: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_SUCCEEDED_INDEXES: usize = 64 * 1024;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// A text out of a closed list, where a missing one is told the list as Go prints it.
fn chosen(value: &str, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        errors.push(path.required(format!("valid values: [{}]", supported.join(" "))));
    } else {
        check::one_of(value, supported, path, errors);
    }
}

/// Which Pods' failures count how.
pub fn failure(policy: &PodFailurePolicy, spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let path = path.child("rules");
    if policy.rules.len() > MAX_RULES {
        errors.push(path.too_many(policy.rules.len(), MAX_RULES));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        failure_rule(rule, spec, &path.index(index), errors);
    }
}

fn failure_rule(rule: &PodFailurePolicyRule, spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    let action_path = path.child("action");
    chosen(&rule.action, ACTIONS, &action_path, errors);
    if rule.action == "FailIndex" && spec.backoff_limit_per_index.is_none() {
        errors.push(action_path.invalid(
            rule.action.as_str(),
            "requires the backoffLimitPerIndex to be set",
        ));
    }
    let conditions = list(&rule.on_pod_conditions);
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(codes, spec, &path.child("onExitCodes"), errors);
    }
    pod_conditions(conditions, &path.child("onPodConditions"), errors);
    let problem = match (&rule.on_exit_codes, conditions) {
        (Some(_), [_, ..]) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (None, []) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(path.invalid_without_value(problem));
}

fn exit_codes(
    codes: &PodFailurePolicyOnExitCodesRequirement,
    spec: &JobSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    chosen(&codes.operator, OPERATORS, &path.child("operator"), errors);
    if let Some(name) = &codes.container_name
        && !has_container(spec, name)
    {
        errors.push(path.child("containerName").invalid(
            name.as_str(),
            "must be one of the container or initContainer names in the pod template",
        ));
    }
    let path = path.child("values");
    if codes.values.is_empty() {
        errors.push(path.invalid(Vec::<i32>::new(), "at least one value is required"));
    } else if codes.values.len() > MAX_EXIT_CODES {
        errors.push(path.too_many(codes.values.len(), MAX_EXIT_CODES));
    }
    for (index, &value) in codes.values.iter().enumerate() {
        let path = path.index(index);
        if codes.operator == "In" && value == 0 {
            errors.push(path.invalid(value, "must not be 0 for the In operator"));
        }
        if codes.values[..index].contains(&value) {
            errors.push(path.duplicate(value));
        }
    }
    if !codes.values.is_sorted() {
        errors.push(path.invalid(value_of(&codes.values), "must be ordered"));
    }
}

fn has_container(spec: &JobSpec, name: &str) -> bool {
    spec.template.spec.as_ref().is_some_and(|spec| {
        let mut containers = spec.containers.iter().chain(list(&spec.init_containers));
        containers.any(|container| container.name == name)
    })
}

fn pod_conditions(
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    path: &Path,
    errors: &mut ErrorList,
) {
    if patterns.len() > MAX_PATTERNS {
        errors.push(path.too_many(patterns.len(), MAX_PATTERNS));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        check::qualified_name(&pattern.type_, &path.child("type"), errors);
        let status = pattern.status.as_deref().unwrap_or_default();
        chosen(status, STATUSES, &path.child("status"), errors);
    }
}

/// Which indexes, or how many, make the Job a success.
pub fn success(policy: &SuccessPolicy, spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    if !is_indexed(spec) {
        let shown = internal::shown("SuccessPolicy", policy);
        errors.push(path.invalid(shown, "requires indexed completion mode"));
        return;
    }
    let path = path.child("rules");
    if policy.rules.is_empty() {
        errors.push(
            path.required(
                "at least one rules must be specified when the successPolicy is specified",
            ),
        );
    }
    if policy.rules.len() > MAX_RULES {
        errors.push(path.too_many(policy.rules.len(), MAX_RULES));
    }
    // Without completions there is already an error, and nothing to compare with.
    let completions = spec.completions.unwrap_or(0);
    for (index, rule) in policy.rules.iter().enumerate() {
        success_rule(rule, completions, &path.index(index), errors);
    }
}

fn success_rule(rule: &SuccessPolicyRule, completions: i32, path: &Path, errors: &mut ErrorList) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.push(
            path.required("at least one of succeededCount or succeededIndexes must be specified"),
        );
    }
    let mut total = None;
    if let Some(indexes) = &rule.succeeded_indexes {
        let path = path.child("succeededIndexes");
        if indexes.len() > MAX_SUCCEEDED_INDEXES {
            errors.push(path.too_long(MAX_SUCCEEDED_INDEXES));
        }
        total = Some(
            indexes::count(indexes, completions).unwrap_or_else(|problem| {
                let detail = format!("error parsing succeededIndexes: {problem}");
                errors.push(path.invalid(indexes.as_str(), detail));
                0
            }),
        );
    }
    let Some(count) = rule.succeeded_count else {
        return;
    };
    let path = path.child("succeededCount");
    check::not_negative(count.into(), &path, errors);
    if count > completions {
        errors.push(path.invalid(
            count,
            format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            ),
        ));
    }
    if let Some(total) = total.filter(|total| count > *total) {
        errors.push(path.invalid(
            count,
            format!(
                "must be less than or equal to {total} (the number of indexes in the specified \
                 succeededIndexes field)"
            ),
        ));
    }
}
