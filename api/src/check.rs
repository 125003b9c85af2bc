//! Checks of single fields that many kinds share. Each adds what is wrong to a list of errors,
//! in upstream's words and order.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, TopologySelectorTerm,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    field::{ErrorList, Path, value_of},
    formats, meta, names,
    object::is_zero_time,
    quantity::Amount,
    zero::list,
};

pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub const POSITIVE: &str = "must be greater than zero";
pub const IMMUTABLE: &str = "field is immutable";

type Labels = BTreeMap<String, String>;

/// One error for each message about a value.
pub fn each(path: &Path, value: impl Into<Value>, messages: Vec<String>, errors: &mut ErrorList) {
    if messages.is_empty() {
        return;
    }
    let value = value.into();
    errors.extend(
        messages
            .into_iter()
            .map(|message| path.invalid(value.clone(), message)),
    );
}

pub fn dns_label(value: &str, path: &Path, errors: &mut ErrorList) {
    each(path, value, names::dns1123_label(value), errors);
}

pub fn subdomain(value: &str, path: &Path, errors: &mut ErrorList) {
    each(path, value, names::dns1123_subdomain(value), errors);
}

pub fn qualified_name(value: &str, path: &Path, errors: &mut ErrorList) {
    each(path, value, names::qualified_name(value), errors);
}

pub fn ip(value: &str, path: &Path, errors: &mut ErrorList) {
    each(path, value, formats::ip(value), errors);
}

/// A label's key, a topology key, a toleration's key.
pub fn label_name(value: &str, path: &Path, errors: &mut ErrorList) {
    qualified_name(value, path, errors);
}

/// A path that starts with a domain, such as `acme.io/foo`.
pub fn domain_prefixed_path(value: &str, path: &Path, errors: &mut ErrorList) {
    const HTTP_PATH: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
    if value.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let parts = value.split_once('/');
    let Some((host, rest)) = parts.filter(|(host, rest)| !host.is_empty() && !rest.is_empty())
    else {
        errors.push(path.invalid(
            value,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
        return;
    };
    subdomain(host, path, errors);
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(is_allowed) {
        errors.push(path.invalid(rest, names::regex_error("Invalid path", HTTP_PATH, &[])));
    }
}

/// A key that starts with a domain, such as `acme.io/foo`.
pub fn domain_prefixed_key(value: &str, path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(path.required(""));
        return;
    }
    let messages = names::qualified_name(value);
    if messages.is_empty() && !value.contains('/') {
        errors.push(path.invalid(
            value,
            "must be a domain-prefixed key (such as \"acme.io/foo\")",
        ));
    }
    each(path, value, messages, errors);
}

/// Keys and values of labels or of a map selector.
pub fn labels(labels: Option<&Labels>, path: &Path, errors: &mut ErrorList) {
    if let Some(labels) = labels {
        errors.extend(meta::validate_labels(labels, path));
    }
}

/// Keys of annotations, and the size of all together.
pub fn annotations(annotations: Option<&Labels>, path: &Path, errors: &mut ErrorList) {
    if let Some(annotations) = annotations {
        errors.extend(meta::validate_annotations(annotations, path));
    }
}

pub fn label_selector(selector: Option<&LabelSelector>, path: &Path, errors: &mut ErrorList) {
    if let Some(selector) = selector {
        errors.extend(meta::validate_label_selector(selector, path));
    }
}

/// Whether a selector selects by nothing, which means everything.
pub fn is_empty_selector(selector: &LabelSelector) -> bool {
    list(&selector.match_expressions).is_empty()
        && selector
            .match_labels
            .as_ref()
            .is_none_or(BTreeMap::is_empty)
}

/// Node selector terms of a Pod's affinity or of a volume.
pub fn node_selector(selector: &NodeSelector, path: &Path, errors: &mut ErrorList) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(path.required("must have at least one node selector term"));
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(term, true, &path.index(index), errors);
    }
}

/// One term. Preferences may name label values that no node can have.
pub fn node_selector_term(
    term: &NodeSelectorTerm,
    check_values: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    for (index, requirement) in list(&term.match_expressions).iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        node_requirement(requirement, check_values, &path, errors);
    }
    for (index, requirement) in list(&term.match_fields).iter().enumerate() {
        let path = path.child("matchFields").index(index);
        node_field_requirement(requirement, &path, errors);
    }
}

fn node_requirement(
    requirement: &NodeSelectorRequirement,
    check_values: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let values = list(&requirement.values);
    let values_path = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => errors
            .push(values_path.required("must be specified when `operator` is 'In' or 'NotIn'")),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(
            values_path
                .forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        ),
        "Gt" | "Lt" if values.len() != 1 => errors.push(
            values_path.required("must be specified single value when `operator` is 'Lt' or 'Gt'"),
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        operator => errors.push(
            path.child("operator")
                .invalid(operator, "not a valid selector operator"),
        ),
    }
    label_name(&requirement.key, &path.child("key"), errors);
    for (index, value) in values.iter().enumerate().filter(|_| check_values) {
        let path = values_path.index(index);
        each(&path, value.as_str(), names::label_value(value), errors);
    }
}

/// Of a node's fields only its name can be selected by.
fn node_field_requirement(
    requirement: &NodeSelectorRequirement,
    path: &Path,
    errors: &mut ErrorList,
) {
    let values = list(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => errors.push(path.child("values").required(
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        )),
        "In" | "NotIn" => {}
        operator => errors.push(
            path.child("operator")
                .invalid(operator, "not a valid selector operator"),
        ),
    }
    if requirement.key == "metadata.name" {
        for (index, value) in values.iter().enumerate() {
            subdomain(value, &path.child("values").index(index), errors);
        }
    } else {
        errors.push(
            path.child("key")
                .invalid(requirement.key.as_str(), "not a valid field selector key"),
        );
    }
}

/// A term of a StorageClass's allowed topologies.
pub fn topology_selector_term(term: &TopologySelectorTerm, path: &Path, errors: &mut ErrorList) {
    let mut keys = Vec::new();
    for (index, requirement) in list(&term.match_label_expressions).iter().enumerate() {
        let path = path.child("matchLabelExpressions").index(index);
        let values_path = path.child("values");
        if requirement.values.is_empty() {
            errors.push(values_path.required(""));
        }
        for (index, value) in requirement.values.iter().enumerate() {
            if requirement.values[..index].contains(value) {
                errors.push(values_path.index(index).duplicate(value.as_str()));
            }
        }
        label_name(&requirement.key, &path.child("key"), errors);
        if keys.contains(&&requirement.key) {
            errors.push(path.child("key").duplicate(requirement.key.as_str()));
        }
        keys.push(&requirement.key);
    }
}

pub fn not_negative(value: i64, path: &Path, errors: &mut ErrorList) {
    if value < 0 {
        errors.push(path.invalid(value, NOT_NEGATIVE));
    }
}

pub fn positive(value: i64, path: &Path, errors: &mut ErrorList) {
    if value <= 0 {
        errors.push(path.invalid(value, POSITIVE));
    }
}

/// A quantity's amount; a malformed one is an error and counts as zero.
pub fn amount(quantity: &Quantity, path: &Path, errors: &mut ErrorList) -> Amount {
    Amount::parse(&quantity.0).unwrap_or_else(|error| {
        errors.push(path.invalid(quantity.0.as_str(), error.to_string()));
        Amount::ZERO
    })
}

pub fn not_negative_quantity(quantity: &Quantity, path: &Path, errors: &mut ErrorList) -> Amount {
    let amount = amount(quantity, path, errors);
    if amount.is_negative() {
        errors.push(path.invalid(amount.to_string(), NOT_NEGATIVE));
    }
    amount
}

pub fn positive_quantity(quantity: &Quantity, path: &Path, errors: &mut ErrorList) {
    let amount = amount(quantity, path, errors);
    if !amount.is_positive() {
        errors.push(path.invalid(amount.to_string(), POSITIVE));
    }
}

/// A field that an update may not change.
pub fn immutable<T: PartialEq + Serialize>(new: &T, old: &T, path: &Path, errors: &mut ErrorList) {
    if new != old {
        let mut value = value_of(new);
        // What upstream has a pointer for, and is no option here, is empty when it is absent.
        let is_option = std::any::type_name::<T>().starts_with("core::option::Option<");
        if !is_option && value.as_object().is_some_and(serde_json::Map::is_empty) {
            value = Value::Null;
        }
        errors.push(path.invalid(value, IMMUTABLE));
    }
}

/// A port's number or its name.
pub fn port_number_or_name(port: &IntOrString, path: &Path, errors: &mut ErrorList) {
    match port {
        IntOrString::Int(number) => each(path, *number, formats::port_number(*number), errors),
        IntOrString::String(name) => {
            each(path, name.as_str(), formats::port_name(name), errors);
        }
    }
}

/// A count or a percentage, neither negative.
pub fn count_or_percent(value: &IntOrString, path: &Path, errors: &mut ErrorList) {
    match value {
        IntOrString::Int(number) => not_negative((*number).into(), path, errors),
        IntOrString::String(text) => each(path, text.as_str(), formats::percent(text), errors),
    }
}

/// A percentage of at most 100.
pub fn at_most_hundred_percent(value: &IntOrString, path: &Path, errors: &mut ErrorList) {
    if percentage(value).is_some_and(|percent| percent > 100) {
        errors.push(path.invalid(value_of(value), "must not be greater than 100%"));
    }
}

/// The number before the percent sign; `None` when it is a count or malformed.
pub fn percentage(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) if formats::percent(text).is_empty() => {
            text.strip_suffix('%')?.parse().ok()
        }
        IntOrString::String(_) => None,
    }
}

/// A text out of a closed list, which is printed as given.
pub fn one_of(value: &str, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    if !supported.contains(&value) {
        errors.push(path.not_supported(value, supported));
    }
}

/// The same where an empty text means that the field is missing.
pub fn required_one_of(value: &str, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(path.required(""));
    } else {
        one_of(value, supported, path, errors);
    }
}

/// A text that may not be empty.
pub fn required(value: &str, path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(path.required(""));
    }
}

/// A name that stands in URLs, and may not be empty.
pub fn required_path_segment(value: &str, path: &Path, errors: &mut ErrorList) {
    required(value, path, errors);
    each(path, value, names::path_segment_name(value), errors);
}

/// The conditions of a status.
pub fn conditions(conditions: &[Condition], path: &Path, errors: &mut ErrorList) {
    const MAX_REASON: usize = 1024;
    const MAX_MESSAGE: usize = 32 * 1024;
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let same_type = |other: &Condition| other.type_ == condition.type_;
        if conditions[..index].iter().any(same_type) {
            errors.push(path.child("type").duplicate(condition.type_.as_str()));
        }
        label_name(&condition.type_, &path.child("type"), errors);
        let status_path = path.child("status");
        one_of(
            &condition.status,
            &["False", "True", "Unknown"],
            &status_path,
            errors,
        );
        if let Some(generation) = condition.observed_generation.filter(|number| *number < 0) {
            let path = path.child("observedGeneration");
            errors.push(path.invalid(generation, "must be greater than or equal to zero"));
        }
        if is_zero_time(&condition.last_transition_time) {
            errors.push(path.child("lastTransitionTime").required(""));
        }
        let reason_path = path.child("reason");
        let reason = condition.reason.as_str();
        if reason.is_empty() {
            errors.push(reason_path.required(""));
        } else {
            each(
                &reason_path,
                reason,
                formats::condition_reason(reason),
                errors,
            );
            if reason.len() > MAX_REASON {
                errors.push(reason_path.too_long(MAX_REASON));
            }
        }
        if condition.message.len() > MAX_MESSAGE {
            errors.push(path.child("message").too_long(MAX_MESSAGE));
        }
    }
}

/// A finalizer: a qualified name, with a prefix unless it is one of Kubernetes' own.
pub fn finalizer(name: &str, path: &Path, errors: &mut ErrorList) {
    errors.extend(meta::validate_finalizer(name, path));
    standard_finalizer(name, path, errors);
}

/// The finalizers of an object of a built-in kind.
pub fn finalizers(metadata: &ObjectMeta, errors: &mut ErrorList) {
    for (index, name) in list(&metadata.finalizers).iter().enumerate() {
        standard_finalizer(name, &Path::new("metadata.finalizers").index(index), errors);
    }
}

fn standard_finalizer(name: &str, path: &Path, errors: &mut ErrorList) {
    let is_standard = matches!(name, "kubernetes" | "orphan" | "foregroundDeletion");
    if !name.contains('/') && !is_standard {
        errors.push(path.invalid(
            name,
            "name is neither a standard finalizer name nor is it fully qualified",
        ));
    }
}
