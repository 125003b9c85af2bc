//! The environment of a container (upstream's `makeEnvironmentVariables`).
//!
//! Enter at [`environment`]. What it needs of ConfigMaps and Secrets is fetched before and passed
//! in as [`Sources`], so that the decision is pure.

mod expansion;
pub mod fields;
mod services;

use std::{collections::BTreeMap, sync::Arc};

use coracle_api::quantity::ResourceList;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};
use kube::ResourceExt as _;

pub use expansion::expand;
pub use fields::Addresses;
pub use services::variables as service_variables;

/// The objects of the pod's namespace that its environment is made from, by name. A name that is
/// `None` was looked for and does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
    pub services: BTreeMap<String, String>,
}

/// Reads a key of an environment file in a volume: volume, path, key.
pub type EnvFile<'a> = &'a (dyn Fn(&str, &str, &str) -> Result<Option<String>, String> + Sync);

/// What of its surroundings a container may ask for.
pub struct Surroundings<'a> {
    pub pod: &'a Pod,
    pub addresses: &'a Addresses,
    pub allocatable: &'a ResourceList,
    pub sources: &'a Sources,
    pub env_file: EnvFile<'a>,
}

/// The names of the ConfigMaps and Secrets that a container's environment is made from.
pub fn references(container: &Container) -> (Vec<&str>, Vec<&str>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for from in container.env_from.iter().flatten() {
        config_maps.extend(
            from.config_map_ref
                .iter()
                .map(|source| source.name.as_str()),
        );
        secrets.extend(from.secret_ref.iter().map(|source| source.name.as_str()));
    }
    for from in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        config_maps.extend(
            from.config_map_key_ref
                .iter()
                .map(|source| source.name.as_str()),
        );
        secrets.extend(
            from.secret_key_ref
                .iter()
                .map(|source| source.name.as_str()),
        );
    }
    (config_maps, secrets)
}

/// The variables of a container by name.
///
/// # Errors
/// In upstream's words, as the container's status shows them with
/// `CreateContainerConfigError`.
pub fn environment(
    container: &Container,
    around: &Surroundings<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = from_objects(container, around)?;
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(variable, container, &variables, around)? {
            variables.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in &around.sources.services {
        variables
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    Ok(variables)
}

fn not_found(resource: &str, name: &str) -> String {
    format!("{resource} {name:?} not found")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn from_objects(
    container: &Container,
    around: &Surroundings<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            match around.sources.config_maps.get(&source.name) {
                Some(Some(object)) => {
                    for (key, value) in object.data.iter().flatten() {
                        variables.insert(format!("{prefix}{key}"), value.clone());
                    }
                }
                _ if source.optional == Some(true) => {}
                _ => return Err(not_found("configmap", &source.name)),
            }
        } else if let Some(source) = &from.secret_ref {
            match around.sources.secrets.get(&source.name) {
                Some(Some(object)) => {
                    for (key, value) in object.data.iter().flatten() {
                        variables.insert(format!("{prefix}{key}"), text(&value.0));
                    }
                }
                _ if source.optional == Some(true) => {}
                _ => return Err(not_found("secret", &source.name)),
            }
        }
    }
    Ok(variables)
}

/// The value of one variable; `None` when an optional source is not there.
fn value(
    variable: &EnvVar,
    container: &Container,
    before: &BTreeMap<String, String>,
    around: &Surroundings<'_>,
) -> Result<Option<String>, String> {
    let literal = variable.value.as_deref().unwrap_or_default();
    if !literal.is_empty() {
        let services = &around.sources.services;
        let known = |name: &str| before.get(name).or_else(|| services.get(name));
        return Ok(Some(expand(literal, |name| {
            known(name).map(String::as_str)
        })));
    }
    let Some(from) = &variable.value_from else {
        return Ok(Some(String::new()));
    };
    let namespace = around.pod.namespace().unwrap_or_default();
    if let Some(selector) = &from.field_ref {
        return fields::field(selector, around.pod, around.addresses).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return fields::resource(selector, around.pod, Some(container), around.allocatable)
            .map(Some);
    }
    if let Some(source) = &from.config_map_key_ref {
        let optional = source.optional == Some(true);
        let Some(Some(object)) = around.sources.config_maps.get(&source.name) else {
            return missing(optional, || not_found("configmap", &source.name));
        };
        return match object.data.as_ref().and_then(|data| data.get(&source.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing(optional, || {
                format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    source.key, source.name
                )
            }),
        };
    }
    if let Some(source) = &from.secret_key_ref {
        let optional = source.optional == Some(true);
        let Some(Some(object)) = around.sources.secrets.get(&source.name) else {
            return missing(optional, || not_found("secret", &source.name));
        };
        return match object.data.as_ref().and_then(|data| data.get(&source.key)) {
            Some(value) => Ok(Some(text(&value.0))),
            None => missing(optional, || {
                format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    source.key, source.name
                )
            }),
        };
    }
    if let Some(source) = &from.file_key_ref {
        let found = (around.env_file)(&source.volume_name, &source.path, &source.key)?;
        return match found.filter(|value| !value.is_empty()) {
            Some(value) => Ok(Some(value)),
            None => missing(source.optional == Some(true), || {
                format!(
                    "environment variable key {:?} not found in file {:?}",
                    source.key, source.path
                )
            }),
        };
    }
    Ok(Some(String::new()))
}

fn missing(optional: bool, message: impl FnOnce() -> String) -> Result<Option<String>, String> {
    match optional {
        true => Ok(None),
        false => Err(message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(container: Value) -> Result<BTreeMap<String, String>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []},
        }))
        .expect("a pod");
        let config_map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "config"}, "data": {"a": "1", "b": "2"},
        }))
        .expect("a config map");
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "secret"}, "data": {"password": "aHVudGVyMg=="},
        }))
        .expect("a secret");
        let sources = Sources {
            config_maps: [
                ("config".to_owned(), Some(Arc::new(config_map))),
                ("none".to_owned(), None),
            ]
            .into(),
            secrets: [("secret".to_owned(), Some(Arc::new(secret)))].into(),
            services: [("WEB_SERVICE_HOST".to_owned(), "10.43.0.9".to_owned())].into(),
        };
        let container: Container = serde_json::from_value(container).expect("a container");
        environment(
            &container,
            &Surroundings {
                pod: &pod,
                addresses: &Addresses::default(),
                allocatable: &ResourceList::new(),
                sources: &sources,
                env_file: &|_, _, _| Ok(None),
            },
        )
    }

    #[test]
    fn later_sources_win_and_services_come_last() {
        let variables = of(json!({
            "name": "c",
            "envFrom": [
                {"prefix": "C_", "configMapRef": {"name": "config"}},
                {"secretRef": {"name": "secret"}},
                {"configMapRef": {"name": "none", "optional": true}},
            ],
            "env": [
                {"name": "C_a", "value": "own"},
                {"name": "URL", "value": "http://$(WEB_SERVICE_HOST)/$(C_a)/$(UNKNOWN)"},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "password"}}},
                {"name": "NOT", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "x", "optional": true}}},
            ],
        }))
        .expect("all is there");
        let expected = [
            ("C_a", "own"),
            ("C_b", "2"),
            ("NAME", "p"),
            ("PASS", "hunter2"),
            ("URL", "http://10.43.0.9/own/$(UNKNOWN)"),
            ("WEB_SERVICE_HOST", "10.43.0.9"),
            ("password", "hunter2"),
        ];
        let found: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_missing_is_told_in_upstreams_words() {
        let cases = [
            (
                json!({"configMapKeyRef": {"name": "none", "key": "k"}}),
                "configmap \"none\" not found",
            ),
            (
                json!({"configMapKeyRef": {"name": "config", "key": "k"}}),
                "couldn't find key k in ConfigMap n/config",
            ),
            (
                json!({"secretKeyRef": {"name": "secret", "key": "k"}}),
                "couldn't find key k in Secret n/secret",
            ),
        ];
        for (from, expected) in cases {
            let container = json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]});
            assert_eq!(of(container).err().as_deref(), Some(expected));
        }
    }
}
