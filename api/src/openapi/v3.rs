//! Paths in the form of v3.

use serde_json::{Map, Value, json};

use super::{
    definitions::REFERENCE,
    operations::{Model, Operation, PathItem},
    parameters::{Parameter, Place},
};

pub fn path(item: &PathItem) -> Value {
    let mut made = Map::new();
    if !item.parameters.is_empty() {
        made.insert("parameters".to_owned(), parameters(&item.parameters));
    }
    for of in &item.operations {
        made.insert(of.method.key().to_owned(), operation(of));
    }
    Value::Object(made)
}

fn operation(of: &Operation) -> Value {
    let mut made = json!({
        "description": of.description,
        "operationId": of.id,
        "responses": {"401": {"description": "Unauthorized"}},
        "tags": [of.tag],
    });
    for (code, text) in of.responses {
        let schema = match &of.model {
            Model::Definition(name) => json!({"$ref": format!("{REFERENCE}{name}")}),
            Model::Text => json!({"type": "string"}),
        };
        made["responses"][code] = json!({
            "description": text,
            "content": content(of.produces, &schema),
        });
    }
    if !of.parameters.is_empty() {
        made["parameters"] = parameters(&of.parameters);
    }
    if let Some(body) = &of.body {
        let schema = json!({"$ref": format!("{REFERENCE}{}", body.definition)});
        made["requestBody"] = json!({"content": content(of.consumes, &schema)});
        if body.required {
            made["requestBody"]["required"] = true.into();
        }
    }
    extend(&mut made, of);
    made
}

/// What Kubernetes adds to an operation.
pub fn extend(made: &mut Value, of: &Operation) {
    if let Some(action) = of.action {
        made["x-kubernetes-action"] = action.into();
    }
    if let Some(kind) = &of.kind {
        made["x-kubernetes-group-version-kind"] = json!({
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
        });
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    types
        .iter()
        .map(|&name| (name.to_owned(), json!({"schema": schema})))
        .collect::<Map<_, _>>()
        .into()
}

fn parameters(of: &[Parameter]) -> Value {
    let one = |parameter: &Parameter| {
        let mut made = json!({
            "description": &*parameter.description,
            "in": parameter.place.name(),
            "name": &*parameter.name,
            "schema": {"type": &*parameter.of, "uniqueItems": true},
        });
        if parameter.place == Place::Path {
            made["required"] = true.into();
        }
        made
    };
    of.iter().map(one).collect()
}
