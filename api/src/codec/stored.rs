//! What another API server has stored, as this one would have stored it.
//!
//! Enter at [`canonical`]. Upstream keeps built-in objects in protobuf, some of them in an older
//! version than the one that is served, and fills in default values when it reads. Here the store
//! holds the JSON of the served version with its defaults, so all of that is done where a value
//! of upstream's is read.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::protobuf::{self, ProtobufError};
use crate::{
    kinds::{self, Kind, Storage},
    strategy::DecodeError,
};

/// Older versions in which upstream keeps or kept objects: their messages differ from those of
/// the version that is served here in name alone.
const OLDER: &[(&str, &str, &str)] = &[
    ("admissionregistration.k8s.io", "v1alpha1", "v1"),
    ("admissionregistration.k8s.io", "v1beta1", "v1"),
    ("apiregistration.k8s.io", "v1beta1", "v1"),
    ("apps", "v1beta1", "v1"),
    ("apps", "v1beta2", "v1"),
    ("batch", "v1beta1", "v1"),
    ("certificates.k8s.io", "v1beta1", "v1"),
    ("coordination.k8s.io", "v1beta1", "v1"),
    ("flowcontrol.apiserver.k8s.io", "v1beta3", "v1"),
    ("networking.k8s.io", "v1beta1", "v1"),
    ("node.k8s.io", "v1beta1", "v1"),
    ("policy", "v1beta1", "v1"),
    ("rbac.authorization.k8s.io", "v1beta1", "v1"),
    ("resource.k8s.io", "v1beta2", "v1"),
    ("scheduling.k8s.io", "v1beta1", "v1"),
    ("storage.k8s.io", "v1alpha1", "v1"),
    ("storage.k8s.io", "v1beta1", "v1"),
];

/// How JSON begins that upstream has written. What this server writes begins with `apiVersion`.
const UPSTREAMS_JSON: &[u8] = b"{\"kind\":";

/// Why a stored value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// The value as this server would have stored it; `None` when it is so already.
///
/// # Errors
/// When the value is of a kind or a version that is not known, or is damaged.
pub fn canonical(value: &[u8]) -> Result<Option<Vec<u8>>, StoredError> {
    if value.starts_with(&protobuf::MAGIC) {
        let (api_version, kind) = protobuf::kind_of(value)?;
        let current = current(&api_version, &kind);
        let json = protobuf::to_json_as(value, &current, &kind)?;
        return match find(&current, &kind) {
            Some(kind) => of_kind(kind, &json).map(Some),
            None => Ok(Some(json)),
        };
    }
    if !value.starts_with(UPSTREAMS_JSON) {
        return Ok(None);
    }
    let TypeMeta { api_version, kind } = serde_json::from_slice(value)?;
    if (&*api_version, &*kind) == ("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition") {
        let mut definition: Value = serde_json::from_slice(value)?;
        definition_of_v1(&mut definition);
        let json = definition.to_string();
        let kind = find("apiextensions.k8s.io/v1", &kind);
        return kind.map(|kind| of_kind(kind, json.as_bytes())).transpose();
    }
    // Custom resources are JSON in either server.
    let kind = find(&current(&api_version, &kind), &kind);
    kind.map(|kind| of_kind(kind, value)).transpose()
}

#[derive(Deserialize)]
struct TypeMeta {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
}

/// The version that an object of an older one is read as.
fn current(api_version: &str, kind: &str) -> String {
    let older = api_version.split_once('/').and_then(|(group, version)| {
        let same = |line: &&(&str, &str, &str)| (line.0, line.1) == (group, version);
        OLDER.iter().find(same)
    });
    match older {
        // The one message that has other fields.
        Some(("networking.k8s.io", ..)) if kind == "Ingress" => api_version.to_owned(),
        Some((group, _, version)) => kinds::join_group_version(group, version),
        None => api_version.to_owned(),
    }
}

fn find(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    kinds::find(group, version, kind).map(|kind| &**kind)
}

/// The object with its defaults, in the version in which it is stored.
fn of_kind(kind: &Kind, json: &[u8]) -> Result<Vec<u8>, StoredError> {
    let mut object = kind.strategy.decode(json, &mut Vec::new())?;
    kind.strategy.default_fields(&mut *object);
    let mut bytes = Vec::with_capacity(json.len());
    match &kind.storage {
        Storage::Converted { conversion, .. } => {
            conversion.to_stored(&*object).write_json(&mut bytes);
        }
        Storage::Virtual | Storage::Own { .. } => object.write_json(&mut bytes),
    }
    Ok(bytes)
}

/// What `v1beta1` says once for all versions, `v1` says in each of them.
const OF_EACH_VERSION: [(&str, &str); 4] = [
    ("validation", "schema"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// Makes the CustomResourceDefinition one of `v1`, from `v1beta1`: upstream stores that still.
fn definition_of_v1(definition: &mut Value) {
    definition["apiVersion"] = json!("apiextensions.k8s.io/v1");
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let only = spec.remove("version");
    let versions = spec.entry("versions").or_insert_with(|| json!([]));
    if let (Some([]), Some(name)) = (versions.as_array().map(Vec::as_slice), only) {
        *versions = json!([{"name": name, "served": true, "storage": true}]);
    }
    let shared = OF_EACH_VERSION.map(|(once, each)| (spec.remove(once), each));
    let versions = spec.get_mut("versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        for (part, name) in &shared {
            if let Some(part) = part.as_ref().filter(|part| !part.is_null()) {
                version[*name] = part.clone();
            }
        }
        let columns = version.get_mut("additionalPrinterColumns");
        for column in columns.and_then(Value::as_array_mut).into_iter().flatten() {
            rename(column, "JSONPath", "jsonPath");
        }
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        let client = conversion.remove("webhookClientConfig");
        let reviews = conversion.remove("conversionReviewVersions");
        if client.is_some() || reviews.is_some() {
            let mut webhook = Map::new();
            webhook.extend(client.map(|client| ("clientConfig".to_owned(), client)));
            webhook.extend(reviews.map(|reviews| ("conversionReviewVersions".to_owned(), reviews)));
            conversion.insert("webhook".to_owned(), webhook.into());
        }
    }
    // The two versions differ in what absent means.
    let preserves = spec.remove("preserveUnknownFields");
    if preserves.is_none_or(|preserves| preserves != json!(false)) {
        spec.insert("preserveUnknownFields".to_owned(), json!(true));
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(object) = object.as_object_mut()
        && let Some(value) = object.remove(from)
    {
        object.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The object in protobuf, under the version that upstream wrote.
    fn protobuf_of(object: &Value, written_as: &str) -> Vec<u8> {
        let bytes = protobuf::from_json(object.to_string().as_bytes()).unwrap();
        let served = object["apiVersion"].as_str().unwrap();
        let kind = object["kind"].as_str().unwrap();
        // The envelope begins with its length, then the version with its own.
        let rest = &bytes[4 + 2 + 2 + served.len()..];
        let envelope = 4 + written_as.len() + kind.len();
        let mut written = protobuf::MAGIC.to_vec();
        written.extend([0x0a, u8::try_from(envelope).unwrap()]);
        written.extend([0x0a, u8::try_from(written_as.len()).unwrap()]);
        written.extend(written_as.as_bytes());
        written.extend(rest);
        written
    }

    fn read(value: &[u8]) -> Value {
        serde_json::from_slice(&canonical(value).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn an_older_version_is_read_as_the_served_one() {
        let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": "b"},
            "spec": {"policyName": "p"}});
        let written = protobuf_of(&policy, "admissionregistration.k8s.io/v1beta1");
        assert_eq!(read(&written), policy);
        for (group, version, kind, read_as) in [
            (
                "resource.k8s.io",
                "v1beta2",
                "ResourceClaim",
                "resource.k8s.io/v1",
            ),
            (
                "networking.k8s.io",
                "v1beta1",
                "IPAddress",
                "networking.k8s.io/v1",
            ),
            (
                "networking.k8s.io",
                "v1beta1",
                "Ingress",
                "networking.k8s.io/v1beta1",
            ),
            (
                "resource.k8s.io",
                "v1beta1",
                "ResourceClaim",
                "resource.k8s.io/v1beta1",
            ),
            ("example.org", "v1beta1", "Policy", "example.org/v1beta1"),
        ] {
            assert_eq!(current(&format!("{group}/{version}"), kind), read_as);
        }
        assert_eq!(current("v1", "Pod"), "v1");
    }

    /// Versions without an own table of fields are read by that of the served one.
    #[test]
    fn what_an_older_version_is_read_as_is_served() {
        for (group, older, version) in OLDER {
            let of_version = |version| {
                kinds::builtin()
                    .iter()
                    .any(|kind| (&*kind.group, &*kind.version) == (group, version))
            };
            assert!(of_version(version), "{group}/{version}");
            assert!(!of_version(older), "{group}/{older}");
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        for (stored, path, expected) in [
            (
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}}),
                "/status/phase",
                json!("Pending"),
            ),
            (
                json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {
                    "template": {"metadata": {"labels": {"job-name": "j"}}, "spec": {"containers": []}}}}),
                "/metadata/labels",
                json!({"job-name": "j"}),
            ),
            (
                json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {
                    "selector": {}, "serviceName": "", "template": {"spec": {"containers": []}},
                    "volumeClaimTemplates": [{"metadata": {"name": "v"}}]}}),
                "/spec/volumeClaimTemplates/0/kind",
                json!("PersistentVolumeClaim"),
            ),
        ] {
            let bytes = protobuf::from_json(stored.to_string().as_bytes()).unwrap();
            assert_eq!(read(&bytes).pointer(path), Some(&expected), "{path}");
        }
    }

    #[test]
    fn what_this_server_or_a_client_of_custom_resources_wrote_stays() {
        for json in [
            r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"c"}}"#,
            r#"{"kind":"Foo","apiVersion":"example.org/v1","metadata":{"name":"f"}}"#,
        ] {
            assert_eq!(canonical(json.as_bytes()).unwrap(), None);
        }
    }

    #[test]
    fn definitions_of_v1beta1_become_those_of_v1() {
        let stored = json!({"group": "g.io", "version": "v1", "scope": "Cluster",
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true},
                {"name": "v2", "served": false, "storage": false}],
            "validation": {"openAPIV3Schema": {"type": "object"}},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "A", "type": "string", "JSONPath": ".a"}],
            "conversion": {"strategy": "Webhook", "conversionReviewVersions": ["v1"],
                "webhookClientConfig": {"url": "https://h"}},
            "preserveUnknownFields": false});
        let read = read(
            format!(r#"{{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","metadata":{{"name":"foos.g.io"}},"spec":{stored}}}"#)
                .as_bytes(),
        );
        assert_eq!(read["apiVersion"], "apiextensions.k8s.io/v1");
        let spec = &read["spec"];
        for (index, name, on) in [(0, "v1", true), (1, "v2", false)] {
            let expected = json!({"name": name, "served": on, "storage": on,
                "schema": {"openAPIV3Schema": {"type": "object"}}, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a"}]});
            assert_eq!(spec["versions"][index], expected);
        }
        let conversion = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://h"}}});
        assert_eq!(spec["conversion"], conversion);
        for gone in [
            "version",
            "validation",
            "subresources",
            "preserveUnknownFields",
        ] {
            assert_eq!(spec.get(gone), None, "{gone}");
        }
        assert_eq!(spec["names"]["listKind"], "FooList");
        let mut old = json!({"spec": {"version": "v1beta1"}});
        definition_of_v1(&mut old);
        let versions = json!([{"name": "v1beta1", "served": true, "storage": true}]);
        assert_eq!(
            old["spec"],
            json!({"versions": versions, "preserveUnknownFields": true})
        );
    }
}
