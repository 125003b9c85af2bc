//! Secret.

mod table;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::{Map, Value};

use super::config_map::{IMMUTABLE, MAX_BYTES};
use crate::{
    check,
    field::{ErrorList, Path},
    formats,
    strategy::{Behaviour, Column},
    zero::{default_text, text},
};

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

impl Behaviour for Secret {
    /// `stringData` is only written: it goes into `data`.
    fn default_fields(&mut self) {
        for (key, value) in self.string_data.take().into_iter().flatten() {
            let data = self.data.get_or_insert_default();
            data.insert(key, ByteString(value.into_bytes()));
        }
        default_text(&mut self.type_, "Opaque");
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("data");
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            let messages = formats::config_map_key(key);
            check::each(&path.key(key), key.as_str(), messages, &mut errors);
            bytes += value.0.len();
        }
        if bytes > MAX_BYTES {
            errors.push(path.too_long(MAX_BYTES));
        }
        keys_of_type(self, &path, &mut errors);
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        check::immutable(
            &text(&self.type_),
            &text(&old.type_),
            &Path::new("type"),
            &mut errors,
        );
        if old.immutable == Some(true) {
            for (field, changed) in [
                ("immutable", self.immutable != Some(true)),
                ("data", self.data != old.data),
            ] {
                if changed {
                    errors.push(Path::new(field).forbidden(IMMUTABLE));
                }
            }
        }
        errors.extend(self.validate());
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        if text(&self.type_) != "kubernetes.io/tls" {
            return Vec::new();
        }
        let has_pem = |key: &str| {
            let value = self.data.as_ref().and_then(|data| data.get(key));
            value.is_some_and(|value| memchr::memmem::find(&value.0, b"-----BEGIN ").is_some())
        };
        for (key, what) in [("tls.crt", "certificate"), ("tls.key", "key")] {
            if !has_pem(key) {
                return vec![format!("tls: failed to find any PEM data in {what} input")];
            }
        }
        Vec::new()
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &["type"];

    fn selectable_fields(&self) -> Vec<String> {
        vec![text(&self.type_).to_owned()]
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

/// The keys that Secrets of a type must have.
fn keys_of_type(secret: &Secret, path: &Path, errors: &mut ErrorList) {
    let get = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let mut require = |keys: &[&str]| {
        for key in keys.iter().filter(|key| get(key).is_none()) {
            errors.push(path.key(key).required(""));
        }
    };
    match text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            let name = annotations.and_then(|a| a.get(SERVICE_ACCOUNT_NAME));
            if name.is_none_or(String::is_empty) {
                let path = Path::new("metadata.annotations").key(SERVICE_ACCOUNT_NAME);
                errors.push(path.required(""));
            }
        }
        "kubernetes.io/dockercfg" => json_key(secret, ".dockercfg", path, errors),
        "kubernetes.io/dockerconfigjson" => json_key(secret, ".dockerconfigjson", path, errors),
        "kubernetes.io/basic-auth" if get("username").is_none() && get("password").is_none() => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if get("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
            errors.push(path.key("ssh-privatekey").required(""));
        }
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

/// A key that holds an object in JSON. Errors do not show what it holds.
fn json_key(secret: &Secret, key: &str, path: &Path, errors: &mut ErrorList) {
    let path = path.key(key);
    match secret.data.as_ref().and_then(|data| data.get(key)) {
        None => errors.push(path.required("")),
        Some(value) => {
            if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&value.0) {
                let message =
                    crate::decode::go::syntax_error(&value.0).unwrap_or_else(|| error.to_string());
                errors.push(path.invalid("<secret contents redacted>", message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        crate::testing::run::<Secret>(include_str!("../../testdata/secret.yaml"));
    }
}
