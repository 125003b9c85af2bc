//! Environment variables and where their values come from.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector,
    ResourceFieldSelector,
};

use super::volumes::no_backsteps;
use crate::{
    check,
    field::{ErrorList, Path},
    formats, names,
    quantity::Amount,
    zero::text,
};

/// Fields of the Pod that a variable can hold.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the Pod that a file can hold.
pub const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const SIZE_DIVISORS: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// `env` of a container.
pub fn variables(variables: &[EnvVar], path: &Path, errors: &mut ErrorList) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = variable.name.as_str();
        let name_path = path.child("name");
        if name.is_empty() {
            errors.push(name_path.required(""));
        } else {
            check::each(&name_path, name, formats::env_var_name(name), errors);
        }
        if let Some(source) = &variable.value_from {
            let has_value = !text(&variable.value).is_empty();
            value_from(source, has_value, &path.child("valueFrom"), errors);
        }
    }
}

fn value_from(source: &EnvVarSource, has_value: bool, path: &Path, errors: &mut ErrorList) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(field, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        let path = path.child("resourceFieldRef");
        resource_field_ref(resource, false, &path, errors);
    }
    if let Some(selector) = &source.config_map_key_ref {
        sources += 1;
        let path = path.child("configMapKeyRef");
        key_ref(&selector.name, &selector.key, &path, errors);
    }
    if let Some(selector) = &source.secret_key_ref {
        sources += 1;
        key_ref(
            &selector.name,
            &selector.key,
            &path.child("secretKeyRef"),
            errors,
        );
    }
    if let Some(selector) = &source.file_key_ref {
        sources += 1;
        file_key_ref(selector, &path.child("fileKeyRef"), errors);
    }
    let detail = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
             `secretKeyRef` or `fileKeyRef`"
        }
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(path.invalid("", detail));
}

/// A field of the Pod, by its path, or by its path and a key: `metadata.labels['app']`.
pub fn field_ref(
    selector: &ObjectFieldSelector,
    supported: &[&str],
    path: &Path,
    errors: &mut ErrorList,
) {
    let version = text(&selector.api_version);
    let field = selector.field_path.as_str();
    if version.is_empty() {
        errors.push(path.child("apiVersion").required(""));
        return;
    }
    if field.is_empty() {
        errors.push(path.child("fieldPath").required(""));
        return;
    }
    let field_path = path.child("fieldPath");
    let refuse =
        |reason: String| field_path.invalid(field, format!("error converting fieldPath: {reason}"));
    if version != "v1" {
        errors.push(refuse(format!("unsupported pod version: {version}")));
        return;
    }
    match split_subscript(field) {
        Some(("metadata.annotations", key)) => {
            check::qualified_name(&key.to_lowercase(), path, errors);
        }
        Some(("metadata.labels", key)) => check::qualified_name(key, path, errors),
        Some(_) => errors.push(refuse(format!(
            "field label does not support subscript: {field}"
        ))),
        None => match known_field(field) {
            None => errors.push(refuse(format!("field label not supported: {field}"))),
            Some(known) => check::one_of(known, supported, &field_path, errors),
        },
    }
}

/// `metadata.labels['app']` as path and key.
pub fn split_subscript(field: &str) -> Option<(&str, &str)> {
    field
        .strip_suffix("']")?
        .split_once("['")
        .filter(|(path, _)| !path.is_empty())
}

/// A field that the downward API knows, by its present name.
fn known_field(field: &str) -> Option<&str> {
    match field {
        "spec.host" => Some("spec.nodeName"),
        "spec.restartPolicy" | "spec.schedulerName" | "status.phase" => Some(field),
        _ if ENV_FIELDS.contains(&field) || FILE_FIELDS.contains(&field) => Some(field),
        _ => None,
    }
}

/// A limit or request of a container.
pub fn resource_field_ref(
    selector: &ResourceFieldSelector,
    in_volume: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let resource = selector.resource.as_str();
    let is_huge_page = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|prefix| resource.starts_with(prefix));
    if in_volume && text(&selector.container_name).is_empty() {
        errors.push(path.child("containerName").required(""));
    } else if resource.is_empty() {
        errors.push(path.child("resource").required(""));
    } else if !is_huge_page {
        check::one_of(resource, RESOURCES, &path.child("resource"), errors);
    }

    let divisor = selector
        .divisor
        .as_ref()
        .map(Amount::from)
        .unwrap_or_default();
    if divisor.is_zero() {
        return;
    }
    let (supported, of_what) = match resource {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"][..], "cpu"),
        "limits.memory" | "requests.memory" => (SIZE_DIVISORS, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (SIZE_DIVISORS, "local ephemeral storage")
        }
        _ if is_huge_page => (SIZE_DIVISORS, "hugepages"),
        _ => return,
    };
    if !supported.contains(&divisor.to_string().as_str()) {
        let values = match of_what {
            "cpu" => "1m and 1".to_owned(),
            _ => supported.join(", "),
        };
        errors.push(path.child("divisor").invalid(
            resource,
            format!("only divisor's values {values} are supported with the {of_what} resource"),
        ));
    }
}

fn key_ref(name: &str, key: &str, path: &Path, errors: &mut ErrorList) {
    check::subdomain(name, &path.child("name"), errors);
    let key_path = path.child("key");
    if key.is_empty() {
        errors.push(key_path.required(""));
    } else {
        check::each(&key_path, key, formats::config_map_key(key), errors);
    }
}

fn file_key_ref(selector: &FileKeySelector, path: &Path, errors: &mut ErrorList) {
    let key = selector.key.as_str();
    if key.is_empty() {
        errors.push(path.child("key").required(""));
    } else {
        check::each(&path.child("key"), key, formats::env_var_name(key), errors);
    }
    let name_path = path.child("volumeName");
    if selector.volume_name.is_empty() {
        errors.push(name_path.required(""));
    } else {
        check::dns_label(&selector.volume_name, &name_path, errors);
    }
    if selector.path.is_empty() {
        errors.push(path.child("path").required(""));
    } else {
        no_backsteps(&selector.path, &path.child("path"), errors);
    }
}

/// `envFrom` of a container.
pub fn sources(sources: &[EnvFromSource], path: &Path, errors: &mut ErrorList) {
    for (index, source) in sources.iter().enumerate() {
        let item = path.index(index);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            let messages = formats::env_var_name(prefix);
            check::each(&item.child("prefix"), prefix, messages, errors);
        }
        let config_map = source.config_map_ref.as_ref().map(|r| r.name.as_str());
        let secret = source.secret_ref.as_ref().map(|r| r.name.as_str());
        for (field, name) in [("configMapRef", config_map), ("secretRef", secret)] {
            let Some(name) = name else { continue };
            let path = item.child(field).child("name");
            if name.is_empty() {
                errors.push(path.required(""));
            } else {
                let messages = names::NameRule::Subdomain.check_prefix(name);
                check::each(&path, name, messages, errors);
            }
        }
        match (config_map, secret) {
            (None, None) => {
                errors.push(path.invalid("", "must specify one of: `configMapRef` or `secretRef`"));
            }
            (Some(_), Some(_)) => errors
                .push(path.invalid("", "may not have more than one field specified at a time")),
            _ => {}
        }
    }
}
