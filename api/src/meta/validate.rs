//! What is wrong with `metadata`, label selectors and conditions.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Condition, LabelSelector, ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use serde_json::Value;

use super::{ANNOTATIONS_MAX_BYTES, IMMUTABLE, validate_field_manager};
use crate::{
    field::{BadValue, ErrorList, Path},
    names::{self, NameRule},
    object::is_zero_time,
};

/// What is wrong with the metadata of an object, new or changed.
pub fn validate(meta: &ObjectMeta, namespaced: bool, rule: NameRule, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (name, generate_name) = (text(&meta.name), text(&meta.generate_name));
    if !generate_name.is_empty() {
        for message in rule.check_prefix(&generate_name) {
            errors.push(
                path.child("generateName")
                    .invalid(generate_name.clone(), message),
            );
        }
    }
    if name.is_empty() {
        errors.push(
            path.child("name")
                .required("name or generateName is required"),
        );
    } else {
        for message in rule.check(&name) {
            errors.push(path.child("name").invalid(name.clone(), message));
        }
    }
    let namespace = text(&meta.namespace);
    let namespace_path = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(namespace_path.required("")),
        (true, false) => {
            for message in names::dns1123_label(&namespace) {
                errors.push(namespace_path.invalid(namespace.clone(), message));
            }
        }
        (false, false) => errors.push(namespace_path.forbidden("not allowed on this type")),
        (false, true) => {}
    }
    if let Some(generation) = meta.generation.filter(|generation| *generation < 0) {
        errors.push(
            path.child("generation")
                .invalid(generation, "must be greater than or equal to 0"),
        );
    }
    errors.extend(validate_maps_and_owners(meta, path));
    errors.extend(validate_finalizers(
        meta.finalizers.as_deref().unwrap_or_default(),
        &path.child("finalizers"),
    ));
    errors.extend(validate_managed_fields(
        meta.managed_fields.as_deref().unwrap_or_default(),
        &path.child("managedFields"),
    ));
    errors
}

/// What is wrong with the change of an object's metadata.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.deletion_timestamp.is_some() {
        let known: BTreeSet<&String> = old.finalizers.iter().flatten().collect();
        let added: BTreeSet<&String> = new
            .finalizers
            .iter()
            .flatten()
            .filter(|finalizer| !known.contains(finalizer))
            .collect();
        if !added.is_empty() {
            let added: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
            errors.push(path.child("finalizers").forbidden(format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.join(", ")
            )));
        }
    }
    if new.resource_version.as_deref().unwrap_or("").is_empty() {
        errors.push(
            path.child("resourceVersion")
                .invalid("", "must be specified for an update"),
        );
    }
    let generation = |meta: &ObjectMeta| meta.generation.unwrap_or_default();
    if generation(new) < generation(old) {
        errors.push(
            path.child("generation")
                .invalid(generation(new), "must not be decremented"),
        );
    }
    errors.extend(validate_immutable(new, old, path));
    errors.extend(validate_maps_and_owners(new, path));
    errors.extend(validate_managed_fields(
        new.managed_fields.as_deref().unwrap_or_default(),
        &path.child("managedFields"),
    ));
    errors
}

fn validate_immutable(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> ErrorList {
    let text = |value: &Option<String>| Value::from(value.as_deref().unwrap_or(""));
    let json = |value: serde_json::Result<Value>| value.unwrap_or_default();
    let fields = |meta: &ObjectMeta| {
        [
            ("name", text(&meta.name)),
            ("namespace", text(&meta.namespace)),
            ("uid", text(&meta.uid)),
            (
                "creationTimestamp",
                json(serde_json::to_value(&meta.creation_timestamp)),
            ),
            (
                "deletionTimestamp",
                json(serde_json::to_value(&meta.deletion_timestamp)),
            ),
            (
                "deletionGracePeriodSeconds",
                Value::from(meta.deletion_grace_period_seconds),
            ),
        ]
    };
    fields(new)
        .into_iter()
        .zip(fields(old))
        .filter(|((_, new), (_, old))| new != old)
        .map(|((name, new), _)| path.child(name).invalid(new, IMMUTABLE))
        .collect()
}

fn validate_maps_and_owners(meta: &ObjectMeta, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(labels) = &meta.labels {
        errors.extend(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = &meta.annotations {
        errors.extend(validate_annotations(
            annotations,
            &path.child("annotations"),
        ));
    }
    if let Some(owners) = &meta.owner_references {
        errors.extend(validate_owners(owners, &path.child("ownerReferences")));
    }
    errors
}

/// What is wrong with the key of a label.
pub fn validate_label_name(name: &str, path: &Path) -> ErrorList {
    names::qualified_name(name)
        .into_iter()
        .map(|message| path.invalid(name, message))
        .collect()
}

/// What is wrong with labels.
pub fn validate_labels(labels: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (name, value) in labels {
        errors.extend(validate_label_name(name, path));
        for message in names::label_value(value) {
            errors.push(path.invalid(value.clone(), message));
        }
    }
    errors
}

/// What is wrong with annotations.
pub fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut bytes = 0;
    for (name, value) in annotations {
        bytes += name.len() + value.len();
        for message in names::qualified_name(&name.to_lowercase()) {
            errors.push(path.invalid(name.clone(), message));
        }
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        errors.push(path.too_long(ANNOTATIONS_MAX_BYTES));
    }
    errors
}

fn validate_owners(owners: &[OwnerReference], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        errors.extend(validate_owner(owner, path));
        if owner.controller != Some(true) {
            continue;
        }
        let name = format!("{}/{}", owner.kind, owner.name);
        match &controller {
            None => controller = Some(name),
            Some(first) => errors.push(path.invalid(
                BadValue::List(owners.iter().map(shown_owner).collect()),
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {first} and {name}"
                ),
            )),
        }
    }
    errors
}

/// An owner with its fields in upstream's order.
fn shown_owner(owner: &OwnerReference) -> BadValue {
    let mut fields = vec![
        ("apiVersion", owner.api_version.as_str().into()),
        ("kind", owner.kind.as_str().into()),
        ("name", owner.name.as_str().into()),
        ("uid", owner.uid.as_str().into()),
    ];
    let flags = [
        ("controller", owner.controller),
        ("blockOwnerDeletion", owner.block_owner_deletion),
    ];
    fields.extend(
        flags
            .into_iter()
            .filter_map(|(name, flag)| Some((name, flag?.into()))),
    );
    BadValue::Struct(fields)
}

fn validate_owner(owner: &OwnerReference, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    // Two slashes make no group and version.
    let version = match owner.api_version.split('/').collect::<Vec<_>>()[..] {
        [version] | [_, version] => version,
        _ => "",
    };
    if version.is_empty() {
        errors.push(
            path.child("apiVersion")
                .invalid(owner.api_version.clone(), "version must not be empty"),
        );
    }
    for (name, value) in [
        ("kind", &owner.kind),
        ("name", &owner.name),
        ("uid", &owner.uid),
    ] {
        if value.is_empty() {
            errors.push(path.child(name).invalid("", "must not be empty"));
        }
    }
    if owner.api_version == "v1" && owner.kind == "Event" {
        errors.push(path.invalid(
            shown_owner(owner),
            "/v1, Kind=Event is disallowed from being an owner",
        ));
    }
    errors
}

/// What is wrong with the name of a finalizer.
pub fn validate_finalizer(name: &str, path: &Path) -> ErrorList {
    validate_label_name(name, path)
}

fn validate_finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors: ErrorList = finalizers
        .iter()
        .flat_map(|finalizer| validate_finalizer(finalizer, path))
        .collect();
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(path.invalid(
            finalizers,
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    errors
}

fn validate_managed_fields(entries: &[ManagedFieldsEntry], path: &Path) -> ErrorList {
    const MAX_SUBRESOURCE: usize = 256;
    let mut errors = ErrorList::new();
    for (index, entry) in entries.iter().enumerate() {
        let path = path.index(index);
        let operation = entry.operation.as_deref().unwrap_or("");
        if !matches!(operation, "Apply" | "Update") {
            errors.push(
                path.child("operation")
                    .invalid(operation, "must be `Apply` or `Update`"),
            );
        }
        if let Some(fields_type) = entry.fields_type.as_deref()
            && !matches!(fields_type, "" | "FieldsV1")
        {
            errors.push(
                path.child("fieldsType")
                    .invalid(fields_type, "must be `FieldsV1`"),
            );
        }
        errors.extend(validate_field_manager(
            entry.manager.as_deref().unwrap_or(""),
            &path.child("manager"),
        ));
        if entry.subresource.as_deref().unwrap_or("").len() > MAX_SUBRESOURCE {
            errors.push(path.child("subresource").too_long(MAX_SUBRESOURCE));
        }
    }
    errors
}

/// What is wrong with a label selector of a spec.
pub fn validate_label_selector(selector: &LabelSelector, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(labels) = &selector.match_labels {
        errors.extend(validate_labels(labels, &path.child("matchLabels")));
    }
    let expressions_path = path.child("matchExpressions");
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = expressions_path.index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        match (expression.operator.as_str(), values.is_empty()) {
            ("In" | "NotIn", true) => errors.push(
                path.child("values")
                    .required("must be specified when `operator` is 'In' or 'NotIn'"),
            ),
            ("Exists" | "DoesNotExist", false) => {
                errors.push(path.child("values").forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ))
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => errors.push(
                path.child("operator")
                    .invalid(other, "not a valid selector operator"),
            ),
        }
        errors.extend(validate_label_name(&expression.key, &path.child("key")));
        for (index, value) in values.iter().enumerate() {
            for message in names::label_value(value) {
                errors.push(
                    path.child("values")
                        .index(index)
                        .invalid(value.clone(), message),
                );
            }
        }
    }
    errors
}

/// What is wrong with conditions of the common type.
pub fn validate_conditions(conditions: &[Condition], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(&condition.type_) {
            errors.push(path.child("type").duplicate(condition.type_.clone()));
        }
        errors.extend(validate_condition(condition, &path));
    }
    errors
}

fn validate_condition(condition: &Condition, path: &Path) -> ErrorList {
    const MAX_REASON: usize = 1 << 10;
    const MAX_MESSAGE: usize = 32 << 10;
    let mut errors = validate_label_name(&condition.type_, &path.child("type"));
    if !matches!(condition.status.as_str(), "True" | "False" | "Unknown") {
        errors.push(
            path.child("status")
                .not_supported(condition.status.clone(), &["False", "True", "Unknown"]),
        );
    }
    if let Some(generation) = condition.observed_generation.filter(|value| *value < 0) {
        errors.push(
            path.child("observedGeneration")
                .invalid(generation, "must be greater than or equal to zero"),
        );
    }
    if is_zero_time(&condition.last_transition_time) {
        errors.push(path.child("lastTransitionTime").required(""));
    }
    let reason = condition.reason.as_str();
    if reason.is_empty() {
        errors.push(path.child("reason").required(""));
    } else {
        if !is_condition_reason(reason) {
            errors.push(path.child("reason").invalid(
                reason,
                names::regex_error(
                    "a condition reason must start with alphabetic character, optionally \
                     followed by a string of alphanumeric characters or '_,:', and must end with \
                     an alphanumeric character or '_'",
                    "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
                    &[
                        "my_name",
                        "MY_NAME",
                        "MyName",
                        "ReasonA,ReasonB",
                        "ReasonA:ReasonB",
                    ],
                ),
            ));
        }
        if reason.len() > MAX_REASON {
            errors.push(path.child("reason").too_long(MAX_REASON));
        }
    }
    if condition.message.len() > MAX_MESSAGE {
        errors.push(path.child("message").too_long(MAX_MESSAGE));
    }
    errors
}

fn is_condition_reason(reason: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = reason.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes
            .iter()
            .all(|byte| word(byte) || matches!(byte, b',' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(json: Value) -> ObjectMeta {
        serde_json::from_value(json).unwrap()
    }

    fn errors(errors: ErrorList) -> Vec<String> {
        errors.into_iter().map(|error| error.to_string()).collect()
    }

    #[test]
    fn metadata_is_validated_with_upstreams_words() {
        let path = Path::new("metadata");
        let check = |json: Value, namespaced: bool| {
            errors(validate(
                &meta(json),
                namespaced,
                NameRule::Subdomain,
                &path,
            ))
        };
        assert_eq!(
            check(
                serde_json::json!({"name": "web", "namespace": "default"}),
                true
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            check(serde_json::json!({}), true),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        assert_eq!(
            check(
                serde_json::json!({"name": "a", "namespace": "b", "generateName": "c-"}),
                false
            ),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
        assert_eq!(
            check(serde_json::json!({"name": "A"}), false),
            [
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist \
                 of lower case alphanumeric characters, '-' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            check(
                serde_json::json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}),
                false
            ),
            [
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: \
                 finalizer orphan and foregroundDeletion cannot be both set"
            ]
        );
    }

    #[test]
    fn what_is_immutable_is_kept() {
        let path = Path::new("metadata");
        let old = meta(serde_json::json!({
            "name": "a", "uid": "1", "resourceVersion": "5",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x.io/a"],
        }));
        let mut new = meta(serde_json::json!({
            "name": "a", "resourceVersion": "5", "finalizers": ["x.io/a", "x.io/b"],
        }));
        crate::meta::prepare_for_update(&mut new, &old);
        assert_eq!(
            errors(validate_update(&new, &old, &path)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
                 being deleted, found new finalizers []string{\"x.io/b\"}"
            ]
        );
        new.finalizers = None;
        new.uid = Some("2".to_owned());
        new.resource_version = None;
        assert_eq!(
            errors(validate_update(&new, &old, &path)),
            [
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
    }
}
