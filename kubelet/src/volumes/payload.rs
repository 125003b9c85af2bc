//! The files that volumes are made of: from ConfigMaps, Secrets and the downward API.

use std::collections::BTreeMap;

use coracle_api::quantity::ResourceList;
use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::{
    Error,
    atomic::{File, Payload},
};
use crate::pods::env::{Addresses, fields};

/// Which keys become which files, with which modes.
pub struct Selection<'a> {
    /// Every key under its own name when empty.
    pub items: &'a [KeyToPath],
    pub default_mode: u32,
    /// Whether missing keys are left out.
    pub optional: bool,
}

impl Selection<'_> {
    fn select<'v>(
        &self,
        all: &BTreeMap<&'v str, &'v [u8]>,
        missing: impl Fn(&str) -> String,
    ) -> Result<Payload, Error> {
        let file = |content: &[u8], mode: u32| File {
            content: content.to_vec(),
            mode,
            user: None,
        };
        let mut payload = Payload::new();
        if self.items.is_empty() {
            for (name, content) in all {
                payload.insert((*name).to_owned(), file(content, self.default_mode));
            }
            return Ok(payload);
        }
        for item in self.items {
            match all.get(item.key.as_str()) {
                Some(content) => {
                    let mode = mode(item.mode, self.default_mode);
                    payload.insert(item.path.clone(), file(content, mode));
                }
                None if self.optional => {}
                None => return Err(Error::Source(missing(&item.key))),
            }
        }
        Ok(payload)
    }
}

/// A mode of the API as the file system takes it.
pub fn mode(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(default)
}

/// The files of a ConfigMap; of none when it is absent.
pub fn config_map(object: Option<&ConfigMap>, selection: &Selection<'_>) -> Result<Payload, Error> {
    let mut all: BTreeMap<&str, &[u8]> = BTreeMap::new();
    if let Some(object) = object {
        for (name, content) in object.data.iter().flatten() {
            all.insert(name, content.as_bytes());
        }
        for (name, content) in object.binary_data.iter().flatten() {
            all.insert(name, &content.0);
        }
    }
    selection.select(&all, |key| {
        format!("configmap references non-existent config key: {key}")
    })
}

/// The files of a Secret; of none when it is absent.
pub fn secret(object: Option<&Secret>, selection: &Selection<'_>) -> Result<Payload, Error> {
    let data = object.and_then(|object| object.data.as_ref());
    let all = data
        .into_iter()
        .flatten()
        .map(|(name, content)| (name.as_str(), content.0.as_slice()))
        .collect();
    selection.select(&all, |key| {
        format!("references non-existent secret key: {key}")
    })
}

/// The files of the downward API.
pub fn downward(
    items: &[DownwardAPIVolumeFile],
    pod: &Pod,
    default_mode: u32,
    addresses: &Addresses,
    allocatable: &ResourceList,
) -> Result<Payload, Error> {
    let mut payload = Payload::new();
    for item in items {
        let value = if let Some(selector) = &item.field_ref {
            fields::field(selector, pod, addresses)
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(selector, pod, None, allocatable)
        } else {
            Ok(String::new())
        };
        let file = File {
            content: value.map_err(Error::Source)?.into_bytes(),
            mode: mode(item.mode, default_mode),
            user: None,
        };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_selected_renamed_and_given_modes() {
        let object: ConfigMap = serde_json::from_value(json!({
            "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="},
        }))
        .expect("a config map");
        let all = Selection {
            items: &[],
            default_mode: 0o644,
            optional: false,
        };
        let payload = config_map(Some(&object), &all).expect("all is there");
        let names: Vec<_> = payload.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(payload["c"].content, [0, 1]);
        let item = |key: &str| KeyToPath {
            key: key.to_owned(),
            mode: Some(0o400),
            path: format!("x/{key}"),
        };
        let some = Selection {
            items: &[item("a")],
            ..all
        };
        let payload = config_map(Some(&object), &some).expect("it is there");
        assert_eq!(payload["x/a"].mode, 0o400);
        for (optional, found) in [(true, Ok(0)), (false, Err("k"))] {
            let missing = Selection {
                items: &[item("k")],
                default_mode: 0o644,
                optional,
            };
            let result = config_map(Some(&object), &missing).map(|payload| payload.len());
            assert_eq!(result.is_ok(), found.is_ok());
        }
    }
}
