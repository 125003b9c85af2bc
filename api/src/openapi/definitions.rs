//! The schemas of the built-in types, unpacked for as long as a document is written.

use std::{collections::BTreeSet, io::Read as _};

use flate2::read::ZlibDecoder;
use memchr::memmem;
use serde_json::Value;

use super::parameters::Parameter;

/// Made by `build/openapi.rs`, which describes the form.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.zz"));

/// How a schema refers to another one.
pub const REFERENCE: &str = "#/components/schemas/";

/// The schemas as text.
pub struct Definitions {
    text: String,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Definitions {
    pub fn unpack() -> std::io::Result<Self> {
        let mut text = String::new();
        ZlibDecoder::new(PACKED).read_to_string(&mut text)?;
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        Ok(Definitions { text, ends })
    }

    fn line(&self, index: usize) -> (&str, &str) {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] + 1);
        let line = &self.text[start..self.ends[index]];
        line.split_once('\t').unwrap_or((line, ""))
    }

    /// A schema as JSON, in the form of v3.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let (at, schema) = self.line(middle);
            match at.cmp(name) {
                std::cmp::Ordering::Equal => return Some(schema),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The fields of `meta.v1.ListOptions` and the like as parameters of a query.
    pub fn options(&self, name: &str) -> Vec<Parameter> {
        let json = self.get(&format!("?{name}")).unwrap_or("[]");
        let fields: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
        let text = |field: &Value, name: &str| field[name].as_str().unwrap_or_default().to_owned();
        fields
            .iter()
            .map(|field| {
                let of = text(field, "type");
                Parameter::query(text(field, "name"), of, text(field, "description"))
            })
            .collect()
    }

    /// Adds everything that the named schemas refer to.
    pub fn close(&self, names: &mut BTreeSet<String>) {
        let mut waiting: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = waiting.pop() {
            for found in references(self.get(&name).unwrap_or_default()) {
                if names.insert(found.to_owned()) {
                    waiting.push(found.to_owned());
                }
            }
        }
    }
}

/// The names that a schema in JSON refers to.
pub fn references(json: &str) -> impl Iterator<Item = &str> {
    let pattern = "\"$ref\":\"#/components/schemas/";
    memmem::find_iter(json.as_bytes(), pattern)
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(move |at| json[at + pattern.len()..].split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds, openapi::definition_name};

    #[test]
    fn every_kind_and_its_list_is_defined() {
        let definitions = Definitions::unpack().unwrap();
        for kind in kinds::builtin() {
            let name = definition_name(kind);
            let schema: Value = serde_json::from_str(definitions.get(&name).unwrap()).unwrap();
            let of = &schema["x-kubernetes-group-version-kind"][0];
            assert_eq!(of["group"], kind.group.as_str(), "{name}");
            assert_eq!(of["version"], kind.version.as_str(), "{name}");
            assert_eq!(of["kind"], kind.kind.as_str(), "{name}");
            if kind.verbs.contains(&kinds::Verb::List) {
                assert!(definitions.get(&format!("{name}List")).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn what_is_referred_to_is_defined() {
        let definitions = Definitions::unpack().unwrap();
        for index in 0..definitions.ends.len() {
            let (name, schema) = definitions.line(index);
            for found in references(schema) {
                assert!(definitions.get(found).is_some(), "{name} names {found}");
            }
        }
    }

    #[test]
    fn a_field_says_all_that_upstream_says() {
        let definitions = Definitions::unpack().unwrap();
        let schema = |name: &str| -> Value {
            serde_json::from_str(
                definitions
                    .get(&format!("io.k8s.api.core.v1.{name}"))
                    .unwrap(),
            )
            .unwrap()
        };
        assert_eq!(
            schema("Container")["properties"]["ports"],
            serde_json::json!({
                "description": "List of ports to expose from the container. Not specifying a port here DOES NOT prevent that port from being exposed. Any port which is listening on the default \"0.0.0.0\" address inside a container will be accessible from the network. Modifying this array with strategic merge patch may corrupt the data. For more information See https://github.com/kubernetes/kubernetes/issues/108255. Cannot be updated.",
                "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.ContainerPort"},
                "type": "array",
                "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                "x-kubernetes-list-type": "map",
                "x-kubernetes-patch-merge-key": "containerPort",
                "x-kubernetes-patch-strategy": "merge",
            })
        );
        let port = schema("ContainerPort");
        assert_eq!(port["required"], serde_json::json!(["containerPort"]));
        assert_eq!(port["properties"]["protocol"]["default"], "TCP");
        assert_eq!(port["properties"]["containerPort"]["default"], 0);
        assert_eq!(port["properties"]["containerPort"]["format"], "int32");
        let pod = schema("Pod");
        assert_eq!(pod.get("required"), None);
        assert_eq!(pod["properties"]["spec"]["default"], serde_json::json!({}));
        assert_eq!(
            pod["properties"]["spec"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.PodSpec"
        );
        assert_eq!(
            schema("SecretKeySelector")["x-kubernetes-map-type"],
            "atomic"
        );
        assert_eq!(
            schema("SeccompProfile")["x-kubernetes-unions"],
            serde_json::json!([{
                "discriminator": "type",
                "fields-to-discriminateBy": {"localhostProfile": "LocalhostProfile"},
            }])
        );
        assert_eq!(schema("PodList")["required"], serde_json::json!(["items"]));
    }
}
