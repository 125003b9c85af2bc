//! Upstream's EncryptionConfiguration (`apiserver.config.k8s.io/v1`): reading it and finding
//! what is wrong with it, in upstream's words.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::field::{ErrorList, Path};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::providers::Method;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("error decoding encryption provider configuration: {0}")]
    Decode(String),
    #[error("{0}")]
    Invalid(String),
    #[error("resource {masked:?} is masked by earlier rule {by:?}")]
    Masked { masked: String, by: String },
    #[error("the kms provider {0:?} is not supported: use aesgcm, aescbc, secretbox or identity")]
    Kms(String),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Configuration {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub resources: Vec<Resources>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resources {
    #[serde(default)]
    pub resources: Vec<String>,
    #[serde(default)]
    pub providers: Vec<ProviderEntry>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aesgcm: Option<Keys>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aescbc: Option<Keys>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secretbox: Option<Keys>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    #[serde(default)]
    pub keys: Vec<NamedKey>,
}

#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedKey {
    #[serde(default)]
    pub name: String,
    /// Base64.
    #[serde(default)]
    pub secret: String,
}

impl std::fmt::Debug for NamedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamedKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl NamedKey {
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.secret).ok()
    }
}

impl Configuration {
    pub fn new(resources: Vec<Resources>) -> Self {
        Configuration {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            resources,
        }
    }

    /// Reads YAML or JSON, and checks it.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let read: Configuration = serde_yaml_ng::from_str(text)
            .map_err(|error| ConfigurationError::Decode(error.to_string()))?;
        if read.api_version != API_VERSION || read.kind != KIND {
            return Err(ConfigurationError::Decode(format!(
                "no kind {:?} is registered for version {:?}",
                read.kind, read.api_version
            )));
        }
        let errors = validate(&read);
        if !errors.is_empty() {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(ConfigurationError::Invalid(match errors.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            }));
        }
        Ok(read)
    }
}

impl ProviderEntry {
    /// The provider's method and keys; `None`: it is the identity.
    pub fn keys(&self) -> Option<(Method, &Keys)> {
        let aesgcm = self.aesgcm.as_ref().map(|keys| (Method::AesGcm, keys));
        let aescbc = self.aescbc.as_ref().map(|keys| (Method::AesCbc, keys));
        let secretbox = self
            .secretbox
            .as_ref()
            .map(|keys| (Method::Secretbox, keys));
        aesgcm.or(aescbc).or(secretbox)
    }
}

fn validate(configuration: &Configuration) -> ErrorList {
    let root = Path::new("resources");
    let mut errors = ErrorList::new();
    if configuration.resources.is_empty() {
        errors.push(root.required("at least one resources is required"));
    }
    for (index, entry) in configuration.resources.iter().enumerate() {
        let resources = root.index(index).child("resources");
        if entry.resources.is_empty() {
            errors.push(resources.required(format!("at least one {resources} is required")));
        }
        check_overlap(&entry.resources, &resources, &mut errors);
        for (index, resource) in entry.resources.iter().enumerate() {
            if let Some(wrong) = wrong_name(resource) {
                errors.push(resources.index(index).invalid(resource.as_str(), wrong));
            }
        }
        let providers = root.index(index).child("providers");
        if entry.providers.is_empty() {
            errors.push(providers.required(format!("at least one {providers} is required")));
        }
        for (index, provider) in entry.providers.iter().enumerate() {
            validate_provider(provider, &providers.index(index), &mut errors);
        }
    }
    errors
}

/// Resource and group.
pub(super) fn group_resource(text: &str) -> (&str, &str) {
    text.split_once('.').unwrap_or((text, ""))
}

fn check_overlap(resources: &[String], path: &Path, errors: &mut ErrorList) {
    const ALL: (&str, &str) = ("*", "*");
    let parsed: Vec<_> = resources.iter().map(|text| group_resource(text)).collect();
    let pairs = || {
        let one = parsed.iter().enumerate();
        one.flat_map(|(i, one)| parsed[i + 1..].iter().map(move |other| (*one, *other)))
    };
    let duplicate = pairs().any(|(one, other)| one == other);
    let overlap = pairs().any(|(one, other)| {
        one != other
            && (one == ALL || other == ALL || one.1 == other.1 && (one.0 == "*" || other.0 == "*"))
    });
    if duplicate {
        errors.push(path.invalid(
            json!(resources),
            "the same resource cannot be specified multiple times",
        ));
    }
    if overlap {
        errors.push(path.invalid(
            json!(resources),
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        ));
    }
}

fn wrong_name(text: &str) -> Option<&'static str> {
    const NO_REST: [&str; 3] = [
        "apiserveripinfo",
        "serviceipallocations",
        "servicenodeportallocations",
    ];
    let (resource, group) = group_resource(text);
    if text.chars().any(char::is_uppercase) {
        Some("resource name should not contain capital letters")
    } else if text == "*" {
        Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        )
    } else if NO_REST.contains(&text) {
        Some("resources which do not have REST API/s cannot be encrypted")
    } else if group == "events.k8s.io" {
        Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        )
    } else if group == "extensions" {
        Some("'extensions' group has been removed and cannot be used for encryption")
    } else if group == "*" && resource != "*" {
        Some("encrypting the same resource across groups is not supported")
    } else {
        None
    }
}

fn validate_provider(provider: &ProviderEntry, path: &Path, errors: &mut ErrorList) {
    let given = [
        provider.aesgcm.is_some(),
        provider.aescbc.is_some(),
        provider.secretbox.is_some(),
        provider.identity.is_some(),
        provider.kms.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        1 => {}
        0 => errors.push(path.invalid_without_value("provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")),
        _ => errors.push(path.invalid_without_value("more than one provider specified in a single element, should split into different list elements")),
    }
    let Some((method, keys)) = provider.keys() else {
        return;
    };
    let (name, lengths): (_, &[usize]) = match method {
        Method::AesGcm => ("aesgcm", &[16, 24, 32]),
        Method::AesCbc => ("aescbc", &[16, 24, 32]),
        Method::Secretbox => ("secretbox", &[32]),
    };
    let path = path.child(name).child("keys");
    if keys.keys.is_empty() {
        errors.push(path.required("at least one keys is required"));
    }
    for (index, key) in keys.keys.iter().enumerate() {
        validate_key(key, lengths, &path.index(index), errors);
    }
}

fn validate_key(key: &NamedKey, lengths: &[usize], path: &Path, errors: &mut ErrorList) {
    if key.name.is_empty() {
        errors.push(
            path.child("name")
                .required("name is a mandatory field for a key"),
        );
    }
    let path = path.child("secret");
    if key.secret.is_empty() {
        errors.push(path.required("secret is a mandatory field for a key"));
        return;
    }
    match key.bytes().map(|bytes| bytes.len()) {
        None => errors.push(path.invalid("REDACTED", "secrets must be base64 encoded")),
        Some(length) if !lengths.contains(&length) => {
            let expected: Vec<String> = lengths.iter().map(ToString::to_string).collect();
            errors.push(path.invalid(
                "REDACTED",
                format!(
                    "secret is not of the expected length, got {length}, expected one of [{}]",
                    expected.join(" ")
                ),
            ));
        }
        Some(_) => {}
    }
}
