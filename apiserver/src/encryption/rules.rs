//! Which providers are for which keys of the store.

use std::{collections::HashMap, sync::Arc, time::Instant};

use bytes::Bytes;
use coracle_api::{
    Kind,
    kinds::{self, Storage},
};
use tokio_util::task::TaskTracker;

use super::{
    ConfigurationError, MARK,
    configuration::{Configuration, ProviderEntry, group_resource},
    providers::{Cipher, Key, Opened, Provider, Providers},
};
use crate::{
    metrics::storage::{Way, transformed},
    registry::ROOT,
};

/// What is encrypted, and how. Built from an EncryptionConfiguration.
#[derive(Default)]
pub struct Rules {
    /// Of the built-in kinds that there is a rule for, by the prefix of their keys.
    builtin: Vec<(String, Arc<Providers>)>,
    /// By resource and group, both of which may be `*`.
    overrides: HashMap<(String, String), Arc<Providers>>,
    /// What is still being written by these rules.
    pub(super) writes: TaskTracker,
}

/// A key as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyInfo {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub name: String,
    pub active: bool,
}

impl Rules {
    /// Reads an EncryptionConfiguration, YAML or JSON.
    ///
    /// # Errors
    /// Upstream's, in its words; KMS providers are refused.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        Rules::new(&Configuration::parse(text)?)
    }

    pub(super) fn new(configuration: &Configuration) -> Result<Self, ConfigurationError> {
        let mut overrides: HashMap<(String, String), Providers> = HashMap::new();
        for entry in &configuration.resources {
            let providers: Vec<Arc<Provider>> = entry
                .providers
                .iter()
                .map(|provider| Ok(Arc::new(read(provider)?)))
                .collect::<Result<_, ConfigurationError>>()?;
            for text in &entry.resources {
                let (resource, group) = group_resource(text);
                for masking in [("*", group), ("*", "*")] {
                    if overrides.contains_key(&owned(masking)) {
                        return Err(ConfigurationError::Masked {
                            masked: text.clone(),
                            by: format!("{}.{}", masking.0, masking.1),
                        });
                    }
                }
                let rule = overrides.entry(owned((resource, group))).or_default();
                rule.0.extend(providers.iter().cloned());
            }
        }
        let overrides: HashMap<_, _> = overrides
            .into_iter()
            .map(|(key, providers)| (key, Arc::new(providers)))
            .collect();
        let mut rules = Rules {
            overrides,
            ..Rules::default()
        };
        rules.builtin = kinds::builtin()
            .iter()
            .filter_map(|kind| rules.of_kind(kind))
            .collect();
        Ok(rules)
    }

    /// The same rules, reading also what the keys of `older` wrote.
    pub(super) fn also_reading(mut self, older: &Rules) -> Self {
        let also =
            |key: &(String, String), providers: &Arc<Providers>| match older.find(&key.0, &key.1) {
                Some(further) => {
                    let all = providers.0.iter().chain(&further.0).cloned();
                    Arc::new(Providers(all.collect()))
                }
                None => providers.clone(),
            };
        let mut overrides: HashMap<_, _> = self
            .overrides
            .iter()
            .map(|(key, providers)| (key.clone(), also(key, providers)))
            .collect();
        for (key, further) in &older.overrides {
            if !overrides.contains_key(key) {
                // What is written from now on is written as the newer rules say.
                let first = self.find(&key.0, &key.1).map(|found| found.0.clone());
                let first = first.unwrap_or_else(|| vec![Arc::new(Provider::Identity)]);
                let all = first.into_iter().chain(further.0.iter().cloned());
                overrides.insert(key.clone(), Arc::new(Providers(all.collect())));
            }
        }
        self.overrides = overrides;
        self.builtin = kinds::builtin()
            .iter()
            .filter_map(|kind| self.of_kind(kind))
            .collect();
        self
    }

    fn of_kind(&self, kind: &Kind) -> Option<(String, Arc<Providers>)> {
        let Storage::Own { prefix } = &kind.storage else {
            return None;
        };
        let providers = self.find(&kind.resource, &kind.group)?;
        Some((format!("{ROOT}{prefix}/"), providers.clone()))
    }

    fn find(&self, resource: &str, group: &str) -> Option<&Arc<Providers>> {
        [(resource, group), ("*", group), ("*", "*")]
            .into_iter()
            .find_map(|key| self.overrides.get(&owned(key)))
    }

    fn providers(&self, key: &str) -> Option<&Arc<Providers>> {
        let builtin = self
            .builtin
            .iter()
            .find(|(prefix, _)| key.starts_with(prefix));
        if let Some((_, providers)) = builtin {
            return Some(providers);
        }
        // Custom resources are below their group, and that has a dot.
        let (group, rest) = key.strip_prefix(ROOT)?.split_once('/')?;
        let (resource, _) = rest.split_once('/')?;
        if self.overrides.is_empty() || !group.contains('.') {
            return None;
        }
        self.find(resource, group)
    }

    /// Whether any rule is for the key.
    pub(super) fn concern(&self, key: &str) -> bool {
        self.providers(key).is_some()
    }

    /// The value as it is to be stored; `None`: just as it is.
    pub(super) fn seal(&self, key: &str, plain: &[u8]) -> Result<Option<Bytes>, String> {
        match self.providers(key) {
            Some(providers) => {
                let since = Instant::now();
                let sealed = providers.seal(plain, key);
                let (prefix, ok) = match &sealed {
                    Ok(Some(sealed)) => (prefix(sealed), true),
                    Ok(None) => ("identity", true),
                    Err(_) => ("unknown", false),
                };
                transformed(resource(key), Way::ToStorage, prefix, ok, since);
                sealed
            }
            None => Ok(None),
        }
    }

    pub(super) fn open(&self, key: &str, stored: &[u8]) -> Result<Opened, String> {
        match self.providers(key) {
            Some(providers) => {
                let since = Instant::now();
                let opened = providers.open(stored, key);
                let (prefix, ok) = match &opened {
                    Ok(Opened { plain: None, .. }) => ("identity", true),
                    Ok(_) => (prefix(stored), true),
                    Err(_) => ("unknown", false),
                };
                transformed(resource(key), Way::FromStorage, prefix, ok, since);
                opened
            }
            None if stored.starts_with(MARK) => {
                Err("identity transformer tried to read encrypted data".to_owned())
            }
            None => Ok(Opened {
                plain: None,
                stale: false,
            }),
        }
    }

    /// The keys that Secrets are encrypted with.
    pub(super) fn secret_keys(&self) -> Vec<KeyInfo> {
        let providers = self.find("secrets", "").map(|found| found.0.as_slice());
        let mut infos = Vec::new();
        for (index, provider) in providers.unwrap_or_default().iter().enumerate() {
            let Provider::Keys { method, keys } = &**provider else {
                continue;
            };
            infos.extend(keys.iter().enumerate().map(|(at, key)| KeyInfo {
                kind: method.title(),
                name: key.name.clone(),
                active: index == 0 && at == 0,
            }));
        }
        infos
    }
}

/// What a value begins with that a provider made: `k8s:enc:aescbc:v1:`, for example.
fn prefix(stored: &[u8]) -> &str {
    let colons = stored.iter().enumerate().filter(|(_, byte)| **byte == b':');
    let end = colons.map(|(index, _)| index + 1).nth(3).unwrap_or(0);
    std::str::from_utf8(&stored[..end]).unwrap_or_default()
}

/// The resource of a key, for `/metrics`: its group comes first in the keys of kinds whose group
/// has a dot, which built-in ones have not.
fn resource(key: &str) -> &str {
    let mut parts = key.strip_prefix(ROOT).unwrap_or(key).split('/');
    match (parts.next(), parts.next()) {
        (Some(group), Some(resource)) if group.contains('.') => resource,
        (first, _) => first.unwrap_or_default(),
    }
}

fn owned((resource, group): (&str, &str)) -> (String, String) {
    (resource.to_owned(), group.to_owned())
}

fn read(entry: &ProviderEntry) -> Result<Provider, ConfigurationError> {
    if let Some(kms) = &entry.kms {
        let name = kms["name"].as_str().unwrap_or_default();
        return Err(ConfigurationError::Kms(name.to_owned()));
    }
    let Some((method, keys)) = entry.keys() else {
        return Ok(Provider::Identity);
    };
    let keys = keys.keys.iter().filter_map(|key| {
        Some(Key {
            name: key.name.clone(),
            // Validation has looked at the length.
            cipher: Cipher::new(method, &key.bytes()?)?,
        })
    });
    Ok(Provider::Keys {
        method,
        keys: keys.collect(),
    })
}
