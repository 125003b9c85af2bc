//! Validation of `metadata`, the same for every kind.
//!
//! Upstream's `apimachinery/pkg/api/validation/objectmeta.go`.

use std::collections::BTreeMap;

use coracle_api::{
    Kind,
    field::{ErrorList, Path},
    names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use serde_json::json;

const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;
const MAX_SUBRESOURCE_LENGTH: usize = 256;
const IMMUTABLE: &str = "field is immutable";
pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// Makes absent what upstream's encoding leaves out when it is empty.
pub fn normalize(meta: &mut ObjectMeta) {
    fn text(field: &mut Option<String>) {
        if field.as_deref() == Some("") {
            *field = None;
        }
    }
    text(&mut meta.name);
    text(&mut meta.generate_name);
    text(&mut meta.namespace);
    text(&mut meta.uid);
    text(&mut meta.resource_version);
    text(&mut meta.self_link);
    meta.labels.take_if(|labels| labels.is_empty());
    meta.annotations
        .take_if(|annotations| annotations.is_empty());
    meta.finalizers.take_if(|finalizers| finalizers.is_empty());
    meta.owner_references.take_if(|owners| owners.is_empty());
    meta.managed_fields.take_if(|fields| fields.is_empty());
    meta.generation.take_if(|generation| *generation == 0);
}

/// What is wrong with the metadata of an object. Its name was generated already.
pub fn validate(meta: &ObjectMeta, kind: &Kind, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(prefix) = &meta.generate_name {
        for message in kind.name_rule.check_prefix(prefix) {
            errors.push(path.child("generateName").invalid(prefix.clone(), message));
        }
    }
    match meta.name.as_deref() {
        None | Some("") => errors.push(
            path.child("name")
                .required("name or generateName is required"),
        ),
        Some(name) => {
            for message in kind.name_rule.check(name) {
                errors.push(path.child("name").invalid(name, message));
            }
        }
    }
    errors.extend(validate_namespace(
        meta,
        kind.namespaced,
        &path.child("namespace"),
    ));
    if let Some(generation) = meta.generation.filter(|generation| *generation < 0) {
        errors.push(
            path.child("generation")
                .invalid(generation, "must be greater than or equal to 0"),
        );
    }
    errors.extend(validate_maps(meta, path));
    if let Some(finalizers) = &meta.finalizers {
        errors.extend(validate_finalizers(finalizers, &path.child("finalizers")));
    }
    errors
}

fn validate_namespace(meta: &ObjectMeta, namespaced: bool, path: &Path) -> ErrorList {
    match (namespaced, meta.namespace.as_deref().unwrap_or_default()) {
        (true, "") => vec![path.required("")],
        (true, namespace) => names::dns1123_label(namespace)
            .into_iter()
            .map(|message| path.invalid(namespace, message))
            .collect(),
        (false, "") => ErrorList::new(),
        (false, _) => vec![path.forbidden("not allowed on this type")],
    }
}

/// What is checked again at every update.
fn validate_maps(meta: &ObjectMeta, path: &Path) -> ErrorList {
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
    if let Some(managers) = &meta.managed_fields {
        errors.extend(validate_managers(managers, &path.child("managedFields")));
    }
    errors
}

fn validate_labels(labels: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        for message in names::qualified_name(key) {
            errors.push(path.invalid(key.clone(), message));
        }
        for message in names::label_value(value) {
            errors.push(path.key(key).invalid(value.clone(), message));
        }
    }
    errors
}

fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in annotations.keys() {
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.push(path.invalid(key.clone(), message));
        }
    }
    let bytes: usize = annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAX_ANNOTATIONS_BYTES {
        errors.push(path.too_long(MAX_ANNOTATIONS_BYTES));
    }
    errors
}

fn validate_owners(owners: &[OwnerReference], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            errors.push(
                path.child("apiVersion")
                    .invalid(owner.api_version.clone(), "version must not be empty"),
            );
        }
        for (field, value) in [
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid),
        ] {
            if value.is_empty() {
                errors.push(path.child(field).invalid("", "must not be empty"));
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            errors.push(path.invalid(
                json!(owner),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => errors.push(path.invalid(
                    json!(owners),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                )),
                None => controller = Some(this),
            }
        }
    }
    errors
}

fn validate_finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for finalizer in finalizers {
        for message in names::qualified_name(finalizer) {
            errors.push(path.invalid(finalizer.clone(), message));
        }
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has(ORPHAN) && has(FOREGROUND) {
        errors.push(path.invalid(
            json!(finalizers),
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        ));
    }
    errors
}

fn validate_managers(managers: &[ManagedFieldsEntry], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, entry) in managers.iter().enumerate() {
        let path = path.index(index);
        let operation = entry.operation.as_deref().unwrap_or_default();
        if !matches!(operation, "Apply" | "Update") {
            errors.push(
                path.child("operation")
                    .invalid(operation, "must be `Apply` or `Update`"),
            );
        }
        let fields_type = entry.fields_type.as_deref().unwrap_or_default();
        if !matches!(fields_type, "" | "FieldsV1") {
            errors.push(
                path.child("fieldsType")
                    .invalid(fields_type, "must be `FieldsV1`"),
            );
        }
        if entry.subresource.as_deref().map_or(0, str::len) > MAX_SUBRESOURCE_LENGTH {
            errors.push(path.child("subresource").too_long(MAX_SUBRESOURCE_LENGTH));
        }
    }
    errors
}

/// What is wrong with a change of the metadata.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.deletion_timestamp.is_some() {
        let before = old.finalizers.as_deref().unwrap_or_default();
        let mut added: Vec<&String> = new.finalizers.iter().flatten().collect();
        added.retain(|finalizer| !before.contains(finalizer));
        added.sort();
        added.dedup();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
            errors.push(path.child("finalizers").forbidden(format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                listed.join(", ")
            )));
        }
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        errors.push(
            path.child("generation")
                .invalid(new.generation.unwrap_or(0), "must not be decremented"),
        );
    }
    let mut immutable = |field: &str, same: bool, value: serde_json::Value| {
        if !same {
            errors.push(path.child(field).invalid(value, IMMUTABLE));
        }
    };
    let same_text = |new: &Option<String>, old: &Option<String>| {
        new.as_deref().unwrap_or_default() == old.as_deref().unwrap_or_default()
    };
    immutable("name", same_text(&new.name, &old.name), json!(new.name));
    immutable(
        "namespace",
        same_text(&new.namespace, &old.namespace),
        json!(new.namespace),
    );
    immutable("uid", same_text(&new.uid, &old.uid), json!(new.uid));
    immutable(
        "creationTimestamp",
        new.creation_timestamp == old.creation_timestamp,
        json!(new.creation_timestamp),
    );
    immutable(
        "deletionTimestamp",
        new.deletion_timestamp == old.deletion_timestamp,
        json!(new.deletion_timestamp),
    );
    immutable(
        "deletionGracePeriodSeconds",
        new.deletion_grace_period_seconds == old.deletion_grace_period_seconds,
        json!(new.deletion_grace_period_seconds),
    );
    errors
}

#[cfg(test)]
mod tests {
    use coracle_api::kinds;

    use super::*;

    fn check(meta: &ObjectMeta) -> Vec<String> {
        let kind = kinds::find("", "v1", "ConfigMap").unwrap();
        validate(meta, kind, &Path::new("metadata"))
            .into_iter()
            .map(|error| error.field)
            .collect()
    }

    #[test]
    fn what_is_wrong_is_named() {
        let meta = ObjectMeta {
            name: Some("Upper".into()),
            namespace: Some("default".into()),
            labels: Some([("-".into(), "a b".into())].into()),
            finalizers: Some(vec![ORPHAN.into(), FOREGROUND.into()]),
            owner_references: Some(vec![OwnerReference::default()]),
            ..ObjectMeta::default()
        };
        assert_eq!(
            check(&meta),
            [
                "metadata.name",
                "metadata.labels",
                "metadata.labels[-]",
                "metadata.ownerReferences.apiVersion",
                "metadata.ownerReferences.kind",
                "metadata.ownerReferences.name",
                "metadata.ownerReferences.uid",
                "metadata.finalizers",
            ]
        );
    }

    #[test]
    fn no_finalizer_is_added_while_deleting() {
        let old = ObjectMeta {
            deletion_timestamp: Some(super::super::now()),
            finalizers: Some(vec!["a/b".into()]),
            ..ObjectMeta::default()
        };
        let mut new = old.clone();
        assert!(validate_update(&new, &old, &Path::default()).is_empty());
        new.finalizers = Some(vec!["a/b".into(), "c/d".into()]);
        let errors = validate_update(&new, &old, &Path::default());
        assert!(errors[0].detail.ends_with(r#"[]string{"c/d"}"#));
    }
}
