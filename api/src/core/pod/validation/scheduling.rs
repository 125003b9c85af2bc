//! Where a Pod may run: affinity, tolerations, topology spread.

use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, PodAffinityTerm, Toleration, TopologySpreadConstraint,
        WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::{
    check,
    field::{ErrorList, Path},
    names,
    zero::{list, text},
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `affinity` of a spec.
pub fn affinity(affinity: &Affinity, path: &Path, errors: &mut ErrorList) {
    if let Some(node) = &affinity.node_affinity {
        node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        let required = &pods.required_during_scheduling_ignored_during_execution;
        let preferred = &pods.preferred_during_scheduling_ignored_during_execution;
        affinity_terms(list(required), &path.child(REQUIRED), errors);
        weighted_terms(list(preferred), &path.child(PREFERRED), errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        let required = &pods.required_during_scheduling_ignored_during_execution;
        let preferred = &pods.preferred_during_scheduling_ignored_during_execution;
        affinity_terms(list(required), &path.child(REQUIRED), errors);
        weighted_terms(list(preferred), &path.child(PREFERRED), errors);
    }
}

fn node_affinity(affinity: &NodeAffinity, path: &Path, errors: &mut ErrorList) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        check::node_selector(selector, &path.child(REQUIRED), errors);
    }
    let preferred = list(&affinity.preferred_during_scheduling_ignored_during_execution);
    for (index, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        weight(term.weight, &path, errors);
        check::node_selector_term(&term.preference, false, &path.child("preference"), errors);
    }
}

fn weight(weight: i32, path: &Path, errors: &mut ErrorList) {
    if !(1..=100).contains(&weight) {
        errors.push(
            path.child("weight")
                .invalid(weight, "must be in the range 1-100"),
        );
    }
}

fn affinity_terms(terms: &[PodAffinityTerm], path: &Path, errors: &mut ErrorList) {
    for (index, term) in terms.iter().enumerate() {
        affinity_term(term, &path.index(index), errors);
    }
}

fn weighted_terms(terms: &[WeightedPodAffinityTerm], path: &Path, errors: &mut ErrorList) {
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index);
        weight(term.weight, &path, errors);
        affinity_term(
            &term.pod_affinity_term,
            &path.child("podAffinityTerm"),
            errors,
        );
    }
}

fn affinity_term(term: &PodAffinityTerm, path: &Path, errors: &mut ErrorList) {
    let selector = term.label_selector.as_ref();
    check::label_selector(selector, &path.child("labelSelector"), errors);
    check::label_selector(
        term.namespace_selector.as_ref(),
        &path.child("namespaceSelector"),
        errors,
    );
    for name in list(&term.namespaces) {
        check::dns_label(name, &path.child("namespace"), errors);
    }
    label_keys(
        list(&term.match_label_keys),
        list(&term.mismatch_label_keys),
        selector,
        path,
        errors,
    );
    let key_path = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(key_path.required("can not be empty"));
    }
    check::label_name(&term.topology_key, &key_path, errors);
}

/// Keys whose values are taken from the Pod. On create they also become requirements of the
/// selector, so one requirement with such a key is no conflict.
fn label_keys(
    matching: &[String],
    mismatching: &[String],
    selector: Option<&LabelSelector>,
    path: &Path,
    errors: &mut ErrorList,
) {
    for (field, keys) in [
        ("matchLabelKeys", matching),
        ("mismatchLabelKeys", mismatching),
    ] {
        let path = path.child(field);
        if !keys.is_empty() && selector.is_none() {
            errors.push(path.forbidden("must not be specified when labelSelector is not set"));
        } else {
            for (index, key) in keys.iter().enumerate() {
                check::label_name(key, &path.index(index), errors);
            }
        }
    }
    if let Some(selector) = selector {
        let mut seen: Vec<&String> = selector
            .match_labels
            .iter()
            .flat_map(|l| l.keys())
            .collect();
        for requirement in list(&selector.match_expressions) {
            let key = &requirement.key;
            let index = matching.iter().rposition(|other| other == key);
            if let Some(index) = index
                && seen.contains(&key)
            {
                errors.push(path.index(index).invalid(
                    key.as_str(),
                    "exists in both matchLabelKeys and labelSelector",
                ));
            }
            seen.push(key);
        }
    }
    for (index, key) in matching.iter().enumerate() {
        if mismatching.contains(key) {
            errors.push(path.child("matchLabelKeys").index(index).invalid(
                key.as_str(),
                "exists in both matchLabelKeys and mismatchLabelKeys",
            ));
        }
    }
}

/// `topologySpreadConstraints` of a spec.
pub fn topology_spread(
    constraints: &[TopologySpreadConstraint],
    path: &Path,
    errors: &mut ErrorList,
) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let action = constraint.when_unsatisfiable.as_str();
        check::positive(constraint.max_skew.into(), &path.child("maxSkew"), errors);
        if constraint.topology_key.is_empty() {
            errors.push(path.child("topologyKey").required("can not be empty"));
        }
        check::one_of(
            action,
            &["DoNotSchedule", "ScheduleAnyway"],
            &path.child("whenUnsatisfiable"),
            errors,
        );
        let is_repeated = constraints[index + 1..].iter().any(|other| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == action
        });
        if is_repeated {
            errors.push(
                path.child("{topologyKey, whenUnsatisfiable}")
                    .duplicate(format!("{{{}, {action}}}", constraint.topology_key)),
            );
        }
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            check::positive(domains.into(), &path, errors);
            if action != "DoNotSchedule" {
                errors.push(path.invalid(
                    domains,
                    format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                    ),
                ));
            }
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy {
                check::one_of(policy, &["Honor", "Ignore"], &path.child(field), errors);
            }
        }
        let selector = constraint.label_selector.as_ref();
        label_keys(
            list(&constraint.match_label_keys),
            &[],
            selector,
            &path,
            errors,
        );
        check::label_selector(selector, &path.child("labelSelector"), errors);
    }
}

/// `tolerations` of a spec.
pub fn tolerations(tolerations: &[Toleration], path: &Path, errors: &mut ErrorList) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (text(&toleration.key), text(&toleration.value));
        let (operator, effect) = (text(&toleration.operator), text(&toleration.effect));
        let operator_path = path.child("operator");
        if !key.is_empty() {
            check::label_name(key, &path.child("key"), errors);
        } else if operator != "Exists" {
            errors.push(operator_path.invalid(
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and \
                 all keys\"",
            ));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            errors.push(path.child("effect").invalid(
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.push(operator_path.invalid(value, messages.join(";")));
                }
            }
            "Exists" if !value.is_empty() => errors.push(
                operator_path.invalid(value, "value must be empty when `operator` is 'Exists'"),
            ),
            "Exists" => {}
            // The feature TaintTolerationComparisonOperators is off in v1.36.
            "Lt" | "Gt" => {
                errors.push(operator_path.not_supported(operator, &["Equal", "Exists", "Lt", "Gt"]))
            }
            _ => errors.push(operator_path.not_supported(operator, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            taint_effect(effect, &path.child("effect"), errors);
        }
    }
}

/// What a taint does to a Pod that does not tolerate it.
pub fn taint_effect(effect: &str, path: &Path, errors: &mut ErrorList) {
    check::one_of(
        effect,
        &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        path,
        errors,
    );
}
