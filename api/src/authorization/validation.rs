//! What is wrong with questions of what somebody may do.
//!
//! Upstream: `pkg/apis/authorization/validation`.

use k8s_openapi::{
    api::authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use crate::{
    check,
    field::{BadValue, ErrorList, Path, value_of},
    names,
    zero::{list, text},
};

/// Checks a question about somebody.
pub fn subject(spec: &SubjectAccessReviewSpec) -> ErrorList {
    let (resource, path) = (&spec.resource_attributes, &spec.non_resource_attributes);
    let mut errors = one_kind(resource.as_ref(), path.as_ref());
    if text(&spec.user).is_empty() && list(&spec.groups).is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(Path::new("spec.user").invalid("", detail));
    }
    selectors(resource.as_ref(), &mut errors);
    errors
}

/// Checks a question about the sender.
pub fn sender(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> ErrorList {
    let mut errors = one_kind(resource, path);
    selectors(resource, &mut errors);
    errors
}

/// A question has no metadata of its own, only a local one has a namespace.
pub fn no_metadata(metadata: &ObjectMeta, is_local: bool, errors: &mut ErrorList) {
    let bare = ObjectMeta {
        managed_fields: None,
        namespace: metadata.namespace.clone().filter(|_| !is_local),
        ..metadata.clone()
    };
    if bare != ObjectMeta::default() {
        let detail = if is_local {
            "must be empty except for namespace"
        } else {
            "must be empty"
        };
        errors.push(Path::new("metadata").invalid(value_of(metadata), detail));
    }
}

/// A path as upstream shows it, by the names of its internal type.
pub fn shown(attributes: &NonResourceAttributes) -> BadValue {
    BadValue::Struct(vec![
        ("Path", text(&attributes.path).into()),
        ("Verb", text(&attributes.verb).into()),
    ])
}

fn one_kind(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> ErrorList {
    let of = Path::new("spec");
    match (resource, path) {
        (Some(_), Some(attributes)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            vec![
                of.child("nonResourceAttributes")
                    .invalid(shown(attributes), detail),
            ]
        }
        (None, None) => {
            let detail =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            vec![of.child("resourceAttributes").invalid(Value::Null, detail)]
        }
        _ => ErrorList::new(),
    }
}

fn selectors(resource: Option<&ResourceAttributes>, errors: &mut ErrorList) {
    let Some(resource) = resource else { return };
    let of = Path::new("spec.resourceAttributes");
    if let Some(selector) = &resource.field_selector {
        let path = of.child("fieldSelector");
        let requirements = list(&selector.requirements);
        one_form(text(&selector.raw_selector), requirements, &path, errors);
        for (index, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(index);
            if requirement.key.is_empty() {
                errors.push(path.child("key").required("must be specified"));
            }
            let values = list(&requirement.values);
            operator(&requirement.operator, values, &path, errors);
        }
    }
    if let Some(selector) = &resource.label_selector {
        let path = of.child("labelSelector");
        let requirements = list(&selector.requirements);
        one_form(text(&selector.raw_selector), requirements, &path, errors);
        for (index, requirement) in requirements.iter().enumerate() {
            let path = path.child("requirements").index(index);
            let values = list(&requirement.values);
            operator(&requirement.operator, values, &path, errors);
            check::label_name(&requirement.key, &path.child("key"), errors);
            for (index, value) in values.iter().enumerate() {
                let path = path.child("values").index(index);
                check::each(&path, value.as_str(), names::label_value(value), errors);
            }
        }
    }
}

fn one_form<T>(raw: &str, requirements: &[T], path: &Path, errors: &mut ErrorList) {
    match (raw, requirements) {
        ("", []) => errors.push(path.child("requirements").required(format!(
            "when {path} is specified, requirements or rawSelector is required"
        ))),
        ("", _) | (_, []) => {}
        (raw, _) => {
            let detail = "may not specified at the same time as requirements";
            errors.push(path.child("rawSelector").invalid(raw, detail));
        }
    }
}

/// Operators that are not known are let through: newer clients may know more of them.
fn operator(operator: &str, values: &[String], path: &Path, errors: &mut ErrorList) {
    let path = path.child("values");
    match (operator, values) {
        ("In" | "NotIn", []) => {
            errors.push(path.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        ("Exists" | "DoesNotExist", [_, ..]) => errors.push(
            path.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        ),
        _ => {}
    }
}
