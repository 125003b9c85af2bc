//! Whole documents against what upstream v1.36 serves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::kinds;

/// Every path and definition of upstream's v2 document that belongs to what is served here, with
/// the first digits of the hash of its JSON, whose members are sorted.
static UPSTREAM: &str = include_str!("testdata/v2.tsv");

fn builtin() -> BTreeMap<String, Document> {
    documents(kinds::builtin(), |_, _| None)
}

fn json_of(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> Value {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn v2(documents: &BTreeMap<String, Document>) -> Value {
    json_of(|out| write_v2(documents.values(), "v1", Form::Json, out))
}

fn v3(document: &Document) -> Value {
    json_of(|out| write_v3(document, "v1", Form::Json, out))
}

fn hash(value: &Value) -> String {
    let digest = Sha256::digest(sorted(value).to_string());
    digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().collect();
            let members = members.into_iter();
            members
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        value => value.clone(),
    }
}

#[test]
fn v2_is_upstreams() {
    let document = v2(&builtin());
    let mut served = BTreeMap::new();
    for section in ["paths", "definitions", "parameters"] {
        for (name, value) in document[section].as_object().unwrap() {
            served.insert(name.clone(), hash(value));
        }
    }
    let upstream: BTreeMap<String, String> = UPSTREAM
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, hash)| (name.to_owned(), hash.to_owned()))
        .collect();
    let names = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<BTreeSet<_>>();
    let (ours, theirs) = (names(&served), names(&upstream));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:?}, extra {extra:?}"
    );
    let other: Vec<_> = ours
        .iter()
        .filter(|name| served[*name] != upstream[*name])
        .collect();
    assert!(other.is_empty(), "differ: {other:?}");
}

#[test]
fn a_document_of_v3_holds_all_that_it_refers_to_and_no_more() {
    for (path, document) in builtin() {
        let document = v3(&document);
        let schemas = document["components"]["schemas"].as_object();
        let known: BTreeSet<&str> = schemas
            .into_iter()
            .flatten()
            .map(|(k, _)| k.as_str())
            .collect();
        let text = document.to_string();
        let used: BTreeSet<&str> = definitions::references(&text).collect();
        assert_eq!(known, used, "{path}");
    }
}

#[test]
fn a_document_of_v3_names_its_own_kinds() {
    let documents = builtin();
    let apps = v3(&documents["apis/apps/v1"]);
    let options = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    assert_eq!(
        apps["components"]["schemas"][options]["x-kubernetes-group-version-kind"],
        json!([
            {"group": "", "kind": "DeleteOptions", "version": "v1"},
            {"group": "apps", "kind": "DeleteOptions", "version": "v1"},
        ])
    );
    let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(item["parameters"][0]["name"], "name");
    assert_eq!(
        item["patch"]["operationId"],
        "patchAppsV1NamespacedDeployment"
    );
    let names: Vec<&Value> = item["patch"]["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| &of["name"])
        .collect();
    assert_eq!(
        names,
        ["dryRun", "fieldManager", "fieldValidation", "force"]
    );
    assert_eq!(
        item["patch"]["requestBody"]["content"]["application/merge-patch+json"],
        json!({"schema": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}})
    );
}

/// The lengths in a message, field by field: what a reader needs to get through it.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        assert_eq!(key & 7, 2, "a field with a length");
        let length = usize::try_from(varint(&mut message)).unwrap();
        let (value, rest) = message.split_at(length);
        fields.push((key >> 3, value));
        message = rest;
    }
    fields
}

#[test]
fn protobuf_has_the_entries_of_json() {
    let documents = builtin();
    let mut message = Vec::new();
    write_v2(documents.values(), "v1", Form::Protobuf, &mut message).unwrap();
    let document = v2(&documents);
    let entries = |number: u64, within: u64| {
        let all = fields(&message);
        let (_, section) = all.into_iter().find(|field| field.0 == number).unwrap();
        let names = fields(section).into_iter().map(|(key, entry)| {
            assert_eq!(key, within);
            String::from_utf8(fields(entry)[0].1.to_vec()).unwrap()
        });
        names.collect::<BTreeSet<_>>()
    };
    let names = |section: &str| {
        let members = document[section].as_object().unwrap().keys().cloned();
        members.collect::<BTreeSet<_>>()
    };
    assert_eq!(entries(8, 2), names("paths"));
    assert_eq!(entries(9, 1), names("definitions"));
    assert_eq!(entries(10, 1), names("parameters"));
}

/// The schemas of a custom resource.
struct Widgets;

impl Schemas for Widgets {
    fn definitions(&self) -> BTreeMap<String, Value> {
        let widget = json!({
            "type": "object",
            "properties": {
                "metadata": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
                "size": {"type": "integer", "default": 1, "nullable": true},
                "port": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true},
            },
            "required": ["size", "port"],
        });
        let list = json!({
            "type": "object",
            "properties": {
                "items": {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/com.example.v1.Widget"},
                },
            },
        });
        BTreeMap::from([
            ("com.example.v1.Widget".to_owned(), widget),
            ("com.example.v1.WidgetList".to_owned(), list),
        ])
    }

    fn revision(&self) -> String {
        "1".to_owned()
    }
}

#[test]
fn custom_resources_are_described_by_their_own_schemas() {
    let mut kind = Kind::clone(kinds::find("apps", "v1", "Deployment").unwrap());
    kind.group = "example.com".to_owned();
    kind.kind = "Widget".to_owned();
    kind.resource = "widgets".to_owned();
    let kinds = [Arc::new(kind)];
    assert!(!documents(&kinds, |_, _| None).contains_key("apis/example.com/v1"));
    let documents = documents(&kinds, |_, _| Some(Arc::new(Widgets)));
    let document = v3(&documents["apis/example.com/v1"]);
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["com.example.v1.Widget"]["properties"]["size"]["default"],
        1
    );
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"].is_object());
    let item = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"];
    assert_eq!(
        item["get"]["x-kubernetes-group-version-kind"],
        json!({"group": "example.com", "version": "v1", "kind": "Widget"})
    );
    let widget = &v2(&documents)["definitions"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["size"], json!({}));
    assert_eq!(
        widget["properties"]["port"],
        json!({"x-kubernetes-int-or-string": true})
    );
    assert_eq!(widget["required"], json!(["port"]));
}

#[test]
fn a_hash_changes_with_what_is_described() {
    let documents = builtin();
    let again = builtin();
    let apps = "apis/apps/v1";
    assert_eq!(documents[apps].hash(), again[apps].hash());
    let some: Vec<_> = kinds::builtin().iter().skip(1).cloned().collect();
    let fewer = super::documents(&some, |_, _| None);
    assert_eq!(documents[apps].hash(), fewer[apps].hash());
    assert_ne!(documents["api/v1"].hash(), fewer["api/v1"].hash());
}
