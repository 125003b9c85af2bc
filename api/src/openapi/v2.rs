//! Paths and definitions in the form of v2, which lacks much of v3.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use serde_json::{Map, Value, json};

use super::{
    operations::{Model, Operation, PathItem},
    parameters::{Parameter, Place},
    v3,
};

const REFERENCE: &str = "#/definitions/";

/// Parameters that stand in the document once, by name.
pub type Shared = BTreeMap<String, Value>;

pub fn path(item: &PathItem, shared: &mut Shared) -> Value {
    let mut made = Map::new();
    if !item.parameters.is_empty() {
        let parameters = item.parameters.iter().map(|of| parameter(of, shared));
        made.insert("parameters".to_owned(), parameters.collect());
    }
    for of in &item.operations {
        made.insert(of.method.key().to_owned(), operation(of, shared));
    }
    Value::Object(made)
}

fn operation(of: &Operation, shared: &mut Shared) -> Value {
    let mut made = json!({
        "description": of.description,
        "operationId": of.id,
        "produces": of.produces,
        "responses": {"401": {"description": "Unauthorized"}},
        "schemes": ["https"],
        "tags": [of.tag],
    });
    if !of.consumes.is_empty() {
        made["consumes"] = of.consumes.into();
    }
    for (code, text) in of.responses {
        let schema = match &of.model {
            Model::Definition(name) => json!({"$ref": format!("{REFERENCE}{name}")}),
            Model::Text => json!({"type": "string"}),
        };
        made["responses"][code] = json!({"description": text, "schema": schema});
    }
    let body = of.body.as_ref().map(|body| {
        let mut made = json!({
            "in": "body",
            "name": "body",
            "schema": {"$ref": format!("{REFERENCE}{}", body.definition)},
        });
        if body.required {
            made["required"] = true.into();
        }
        let is_generic = body.definition.starts_with("io.k8s.apimachinery");
        if is_generic {
            share(made, shared)
        } else {
            made
        }
    });
    // The name of the body sorts before all others.
    let parameters: Vec<Value> = body
        .into_iter()
        .chain(of.parameters.iter().map(|of| parameter(of, shared)))
        .collect();
    if !parameters.is_empty() {
        made["parameters"] = parameters.into();
    }
    v3::extend(&mut made, of);
    made
}

fn parameter(of: &Parameter, shared: &mut Shared) -> Value {
    let mut made = json!({
        "description": &*of.description,
        "in": of.place.name(),
        "name": &*of.name,
        "type": &*of.of,
        "uniqueItems": true,
    });
    if of.place == Place::Path {
        made["required"] = true.into();
    }
    // Upstream's kubectl has looked for these two where they are used.
    let stays = matches!(&*of.name, "name" | "fieldValidation" | "dryRun");
    if stays { made } else { share(made, shared) }
}

/// Moves a parameter to where the document keeps those that are used many times.
fn share(parameter: Value, shared: &mut Shared) -> Value {
    let name = shared_name(&parameter);
    let reference = json!({"$ref": format!("#/parameters/{name}")});
    shared.entry(name).or_insert(parameter);
    reference
}

/// Upstream's name: the parameter's, and a hash of its JSON in the order in which Go writes it.
fn shared_name(parameter: &Value) -> String {
    const ORDER: [&str; 7] = [
        "uniqueItems",
        "type",
        "description",
        "name",
        "in",
        "required",
        "schema",
    ];
    let fields: Vec<String> = ORDER
        .iter()
        .filter_map(|&key| Some(format!("{:?}:{}", key, go_json(parameter.get(key)?))))
        .collect();
    let json = format!("{{{}}}", fields.join(","));
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in json.bytes() {
        hash = hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
    }
    let name = parameter["name"].as_str().unwrap_or("param");
    format!("{name}-{}", URL_SAFE.encode(&hash.to_be_bytes()[..6]))
}

/// Go escapes what would be markup in HTML.
fn go_json(value: &Value) -> String {
    let json = value.to_string();
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// A definition of v3 in the form of v2.
pub fn schema(mut schema: Value) -> Value {
    convert(&mut schema);
    schema
}

fn convert(schema: &mut Value) {
    let Value::Object(of) = schema else {
        return;
    };
    of.remove("default");
    if let Some(Value::Array(all)) = of.remove("allOf")
        && let [Value::Object(only)] = &all[..]
        && let Some(reference) = only.get("$ref")
    {
        of.insert("$ref".to_owned(), reference.clone());
    }
    if let Some(Value::String(reference)) = of.get_mut("$ref") {
        *reference = reference.replace(super::definitions::REFERENCE, REFERENCE);
    }
    let one_of = of.remove("oneOf");
    of.remove("anyOf");
    of.remove("not");
    let any_type = |one_of: &Value| {
        one_of
            .as_array()
            .is_some_and(|all| all[0]["type"].is_string())
    };
    if !of.contains_key("type") && one_of.as_ref().is_some_and(any_type) {
        of.insert("type".to_owned(), "string".into());
    }
    make_untyped(of);
    for key in ["properties", "patternProperties"] {
        if let Some(Value::Object(properties)) = of.get_mut(key) {
            properties.values_mut().for_each(convert);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(schema) = of.get_mut(key) {
            convert(schema);
        }
    }
}

/// Clients of v2 stumble over what may be null or hold unknown fields, unless it has no type.
fn make_untyped(of: &mut Map<String, Value>) {
    let is_true = |value: Option<&Value>| value == Some(&Value::Bool(true));
    let nullable = is_true(of.get("nullable"));
    let open = is_true(of.get("x-kubernetes-preserve-unknown-fields"));
    if nullable || open {
        of.remove("items");
        of.remove("properties");
    }
    let is_object = of.get("type").is_some_and(|of| of == "object");
    let is_list = of.get("type").is_some_and(|of| of == "array");
    if nullable || open && is_object || is_list && !of.contains_key("items") {
        of.remove("type");
    }
    of.remove("nullable");
    let Some(Value::Object(properties)) = of.get("properties") else {
        return;
    };
    let nullable: Vec<String> = properties
        .iter()
        .filter(|(_, property)| is_true(property.get("nullable")))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(Value::Array(required)) = of.get_mut("required") {
        required.retain(|name| !nullable.iter().any(|other| name == other.as_str()));
        if required.is_empty() {
            of.remove("required");
        }
    }
}
