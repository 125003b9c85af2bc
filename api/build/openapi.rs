//! Puts the tables and what `k8s-openapi` knows together into the definitions of OpenAPI v3.
//!
//! The result is text with a line for each definition: its name, a tab, and its schema as JSON.
//! The lines are sorted. The options of requests come first, as lists of query parameters under
//! names such as `?meta.v1.ListOptions`.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::Path,
};

use serde_json::{Map, Value, json};

use crate::{
    models::{self, Models},
    schema::{Field, Type, Types},
    versions::VERSIONS,
};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Types whose fields are query parameters.
const OPTIONS: [&str; 12] = [
    "core.v1.NodeProxyOptions",
    "core.v1.PodAttachOptions",
    "core.v1.PodExecOptions",
    "core.v1.PodLogOptions",
    "core.v1.PodPortForwardOptions",
    "core.v1.PodProxyOptions",
    "core.v1.ServiceProxyOptions",
    "meta.v1.CreateOptions",
    "meta.v1.DeleteOptions",
    "meta.v1.ListOptions",
    "meta.v1.PatchOptions",
    "meta.v1.UpdateOptions",
];

/// Kinds that upstream registers in every group and version that it knows.
const EVERYWHERE: [&str; 2] = ["DeleteOptions", "WatchEvent"];

/// All definitions.
pub fn definitions(types: &Types, descriptions: &Path) -> Result<String, Box<dyn Error>> {
    let mut models = models::read();
    let builder = Builder {
        schemas: models.schemas(),
        models,
        types,
        descriptions: read_descriptions(&fs::read_to_string(descriptions)?)?,
    };
    let mut lines = BTreeMap::new();
    for name in OPTIONS {
        lines.insert(format!("?{name}"), builder.parameters(name)?);
    }
    let mut known = BTreeSet::new();
    for (name, of) in types {
        if let Some(definition) = builder.definition(name, of)? {
            lines.insert(of.openapi.clone(), definition);
        }
        known.insert(of.openapi.as_str());
    }
    for (name, schema) in &builder.schemas {
        if !known.contains(name.as_str()) {
            lines.insert(name.clone(), special(name, schema));
        }
    }
    lines.insert(format!("{META}Duration"), duration());
    let line = |(name, value)| format!("{name}\t{value}\n");
    Ok(lines.into_iter().map(line).collect())
}

/// The descriptions by `core.v1.PodList` and `core.v1.PodList.items`.
fn read_descriptions(text: &str) -> Result<BTreeMap<String, String>, String> {
    text.lines()
        .map(|line| {
            let (name, text) = line.split_once('\t').ok_or("a line without a tab")?;
            let mut description = String::with_capacity(text.len());
            let mut letters = text.chars();
            while let Some(letter) = letters.next() {
                description.push(match letter {
                    '\\' => match letters.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('\\') => '\\',
                        _ => return Err(format!("{name}: an unknown escape")),
                    },
                    letter => letter,
                });
            }
            Ok((name.to_owned(), description))
        })
        .collect()
}

struct Builder<'a> {
    models: Models,
    schemas: BTreeMap<String, Value>,
    types: &'a Types,
    descriptions: BTreeMap<String, String>,
}

impl Builder<'_> {
    /// `None` for types that stand in no definition.
    fn definition(&self, name: &str, of: &Type) -> Result<Option<Value>, String> {
        let model = self.schemas.get(&of.openapi);
        let described = self.descriptions.get(name);
        if OPTIONS.contains(&name) && model.is_none() || model.is_none() && described.is_none() {
            return Ok(None);
        }
        let mut fields = Vec::new();
        self.flatten(of, &mut fields)?;
        let kinds = self.kinds(of);
        let model = model.unwrap_or(&Value::Null);
        let mut properties = Map::new();
        if !kinds.is_empty() && !of.openapi.ends_with(".WatchEvent") {
            for name in ["apiVersion", "kind"] {
                let pod = &self.schemas["io.k8s.api.core.v1.Pod"];
                properties.insert(name.to_owned(), pod["properties"][name].clone());
            }
        }
        for field in &fields {
            let known = &model["properties"][&field.name];
            let key = format!("{name}.{}", field.name);
            let described = self.descriptions.get(&key).map(String::as_str);
            let description = described.or_else(|| known["description"].as_str());
            properties.insert(field.name.clone(), self.property(field, description)?);
        }
        for (name, known) in model["properties"].as_object().into_iter().flatten() {
            if !properties.contains_key(name) {
                properties.insert(name.clone(), known.clone());
            }
        }
        let mut definition = json!({"type": "object"});
        let description = described.map(String::as_str);
        if let Some(text) = description.or_else(|| model["description"].as_str()) {
            definition["description"] = text.into();
        }
        if !properties.is_empty() {
            definition["properties"] = properties.into();
        }
        let required = required(model, &fields);
        if !required.is_empty() {
            definition["required"] = required.into();
        }
        if !kinds.is_empty() {
            definition["x-kubernetes-group-version-kind"] = kinds.into();
        }
        if of.is_atomic {
            definition["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(union) = &of.union {
            let chosen: Map<String, Value> = union
                .fields
                .iter()
                .map(|field| (field.clone(), capitalised(field).into()))
                .collect();
            let mut of = json!({"fields-to-discriminateBy": chosen});
            if !union.discriminator.is_empty() {
                of["discriminator"] = union.discriminator.as_str().into();
            }
            definition["x-kubernetes-unions"] = json!([of]);
        }
        Ok(Some(definition))
    }

    /// The fields as JSON has them.
    fn flatten<'a>(&'a self, of: &'a Type, fields: &mut Vec<&'a Field>) -> Result<(), String> {
        for field in &of.fields {
            if field.flags.iter().any(|flag| flag == "inline") {
                let inlined = self.types.get(&field.of).ok_or("no inlined type")?;
                self.flatten(inlined, fields)?;
            } else {
                fields.push(field);
            }
        }
        Ok(())
    }

    /// What the type is a kind of: mostly nothing or one.
    fn kinds(&self, of: &Type) -> Vec<Value> {
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "kind": kind, "version": version});
        if let Some((group, version, name)) = self.models.kinds.get(&of.openapi) {
            return vec![kind(group, version, name)];
        }
        let Some((package, name)) = of.openapi.rsplit_once('.') else {
            return Vec::new();
        };
        if EVERYWHERE.contains(&name) {
            return VERSIONS
                .iter()
                .flat_map(|(group, versions)| versions.iter().map(|v| kind(group, v, name)))
                .collect();
        }
        let is_list = of.fields.iter().any(|field| field.of == "meta.v1.ListMeta");
        match self.models.packages.get(package) {
            Some((group, version)) if is_list => vec![kind(group, version, name)],
            _ => Vec::new(),
        }
    }

    fn property(&self, field: &Field, description: Option<&str>) -> Result<Value, String> {
        let item = self.item(&field.of)?;
        let mut property = match field.shape {
            "List" => json!({"type": "array", "items": item}),
            "Map" => json!({"type": "object", "additionalProperties": item}),
            "MapOfLists" => json!({
                "type": "object",
                "additionalProperties": {"type": "array", "items": item},
            }),
            _ => item,
        };
        let mut more = Map::new();
        if let Some(description) = description {
            more.insert("description".to_owned(), description.into());
        }
        if let Some(default) = default(field)? {
            more.insert("default".to_owned(), default);
        }
        for flag in &field.flags {
            extensions(flag, field, &mut more);
        }
        if property.get("$ref").is_some() && !more.is_empty() {
            property = json!({"allOf": [property]});
        }
        if let Value::Object(property) = &mut property {
            property.append(&mut more);
        }
        Ok(property)
    }

    fn item(&self, of: &str) -> Result<Value, String> {
        let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        Ok(match of {
            "string" => json!({"type": "string"}),
            "int32" | "int64" => json!({"type": "integer", "format": of}),
            "bool" => json!({"type": "boolean"}),
            "double" => json!({"type": "number", "format": "double"}),
            "bytes" => json!({"type": "string", "format": "byte"}),
            "Quantity" => reference("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            "IntOrString" => reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            "RawExtension" => reference("io.k8s.apimachinery.pkg.runtime.RawExtension"),
            "Time" | "MicroTime" | "Duration" | "FieldsV1" => reference(&format!("{META}{of}")),
            of if of.starts_with("JSON") => reference(&format!(
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{of}"
            )),
            of => reference(&self.types.get(of).ok_or("an unknown type")?.openapi),
        })
    }

    /// The options as query parameters. What is no scalar or list of scalars cannot be one.
    fn parameters(&self, name: &str) -> Result<Value, String> {
        let of = self.types.get(name).ok_or("no such options")?;
        let known = self.schemas.get(&of.openapi).unwrap_or(&Value::Null);
        let mut fields = Vec::new();
        self.flatten(of, &mut fields)?;
        let parameters = fields.iter().filter_map(|field| {
            let of = match field.of.as_str() {
                "string" => "string",
                "bool" => "boolean",
                "int32" | "int64" => "integer",
                _ => return None,
            };
            let description = self.descriptions.get(&format!("{name}.{}", field.name));
            let known = known["properties"][&field.name]["description"].as_str();
            Some(json!({
                "name": field.name,
                "in": "query",
                "description": description.map(String::as_str).or(known),
                "type": of,
            }))
        });
        Ok(parameters.collect())
    }
}

/// In the order of the fields. A type that is unknown to `k8s-openapi` requires what it always
/// encodes. `k8s-openapi` also requires metadata, and what has a default.
fn required(model: &Value, fields: &[&Field]) -> Vec<Value> {
    let by_model = model["required"].as_array();
    let mut required = Vec::new();
    for field in fields {
        let has = |name: &str| field.flags.iter().any(|flag| flag.starts_with(name));
        let named = |names: &Vec<Value>| names.iter().any(|name| name == field.name.as_str());
        let known = match by_model {
            Some(names) => named(names) && field.name != "metadata" && !has("default="),
            None => model.is_null() && has("required"),
        };
        if known || has("mandatory") {
            required.push(field.name.as_str().into());
        }
    }
    let has_field = |name: &&Value| fields.iter().any(|field| *name == field.name.as_str());
    let others = by_model
        .into_iter()
        .flatten()
        .filter(|name| !has_field(name));
    required.extend(others.cloned());
    required
}

/// Fields that are always there have a default: their zero value.
fn default(field: &Field) -> Result<Option<Value>, String> {
    for flag in &field.flags {
        if let Some(default) = flag.strip_prefix("default=") {
            let default = serde_json::from_str(default);
            return default
                .map(Some)
                .map_err(|error| format!("{}: {error}", field.name));
        }
    }
    let has = |name: &str| field.flags.iter().any(|flag| flag == name);
    Ok(match (field.shape, field.of.as_str()) {
        ("One", "string") if has("required") => Some("".into()),
        ("One", "int32" | "int64") if has("required") => Some(0.into()),
        ("One", "bool") if has("required") => Some(false.into()),
        ("One", of) if has("value") && of.contains('.') => Some(json!({})),
        _ => None,
    })
}

/// How the field merges.
fn extensions(flag: &str, field: &Field, into: &mut Map<String, Value>) {
    let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
    let mut put = |name: &str, value: Value| {
        into.insert(format!("x-kubernetes-{name}"), value);
    };
    // For upstream, bytes are a list too.
    let is_list = field.shape == "List" || field.of == "bytes";
    match (name, is_list) {
        ("atomic" | "set", true) => put("list-type", name.into()),
        ("map", true) => {
            put("list-type", "map".into());
            put("list-map-keys", value.split(',').collect());
        }
        ("atomic" | "granular", _) => put("map-type", name.into()),
        ("patch", _) => {
            let (strategies, key) = value.split_once(':').unwrap_or((value, ""));
            put("patch-strategy", strategies.replace('+', ",").into());
            if !key.is_empty() {
                put("patch-merge-key", key.into());
            }
        }
        _ => {}
    }
}

/// No type of a stable group has one, so `k8s-openapi` does not know it.
fn duration() -> Value {
    json!({
        "description": "Duration is a wrapper around time.Duration which supports correct \
                        marshaling to YAML and JSON. In particular, it marshals into strings, \
                        which can be used as map keys in json.",
        "type": "string",
    })
}

/// What is no object, or in no table.
fn special(name: &str, schema: &Value) -> Value {
    let mut made = schema.clone();
    let Value::Object(made) = &mut made else {
        return made;
    };
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => {
            made.insert(
                "oneOf".to_owned(),
                json!([{"type": "string"}, {"type": "number"}]),
            );
        }
        "IntOrString" => {
            made.insert("format".to_owned(), "int-or-string".into());
            made.insert(
                "oneOf".to_owned(),
                json!([{"type": "integer"}, {"type": "string"}]),
            );
        }
        "JSON"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrStringArray" => {
            made.retain(|name, _| name == "description");
        }
        "Info" => {
            // In upstream's order.
            let names = "major minor gitVersion gitCommit gitTreeState buildDate goVersion \
                         compiler platform";
            made.insert("required".to_owned(), names.split(' ').collect());
        }
        "RawExtension" | "FieldsV1" | "Patch" => {
            made.insert("type".to_owned(), "object".into());
        }
        _ => {}
    }
    made.retain(|name, _| !name.starts_with("x-"));
    let required = made.get("required").cloned().unwrap_or_default();
    let has = |name: &String| {
        required
            .as_array()
            .is_some_and(|all| all.iter().any(|n| n == name))
    };
    if let Some(Value::Object(properties)) = made.get_mut("properties") {
        for (name, property) in properties {
            if has(name) && property["type"] == "string" {
                property["default"] = "".into();
            }
        }
    }
    Value::Object(std::mem::take(made))
}

fn capitalised(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_uppercase() + rest
}
