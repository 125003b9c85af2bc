//! ConfigMap.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    formats,
    strategy::{Behaviour, Column},
};

/// The largest sum of the values of a ConfigMap or Secret.
pub const MAX_BYTES: usize = 1024 * 1024;
pub const IMMUTABLE: &str = "field is immutable when `immutable` is set";

impl Behaviour for ConfigMap {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            let path = Path::new("data").key(key);
            check::each(
                &path,
                key.as_str(),
                formats::config_map_key(key),
                &mut errors,
            );
            if self
                .binary_data
                .as_ref()
                .is_some_and(|data| data.contains_key(key))
            {
                let message = "duplicate of key present in binaryData";
                errors.push(path.invalid(key.as_str(), message));
            }
            bytes += value.len();
        }
        for (key, value) in self.binary_data.iter().flatten() {
            let path = Path::new("binaryData").key(key);
            check::each(
                &path,
                key.as_str(),
                formats::config_map_key(key),
                &mut errors,
            );
            bytes += value.0.len();
        }
        if bytes > MAX_BYTES {
            errors.push(Path::new("").too_long(MAX_BYTES));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        if old.immutable == Some(true) {
            for (field, changed) in [
                ("immutable", self.immutable != Some(true)),
                ("data", self.data != old.data),
                ("binaryData", self.binary_data != old.binary_data),
            ] {
                if changed {
                    errors.push(Path::new(field).forbidden(IMMUTABLE));
                }
            }
        }
        errors.extend(self.validate());
        errors
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_maps() {
        crate::testing::run::<ConfigMap>(include_str!("../../testdata/config_map.yaml"));
    }
}
