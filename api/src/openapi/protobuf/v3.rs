//! The messages of `OpenAPIv3.proto`, as far as Kubernetes' documents need them.

use serde_json::Value;

use super::{Section, Shape};

/// The fields that are written whole; the others are sections.
pub static DOCUMENT: Shape = Shape::Message {
    fields: &[("openapi", 1, &Shape::Text), ("info", 2, &INFO)],
    extensions: 9,
};

pub static PATHS: Section = Section {
    name: "paths",
    number: 4,
    of: &Shape::Named {
        number: 1,
        of: &PATH,
        extensions: 2,
        fields: &[],
    },
};

pub static COMPONENTS: Section = Section {
    name: "components",
    number: 5,
    of: &Shape::Message {
        fields: &[("securitySchemes", 7, &SECURITY_SCHEMES)],
        extensions: 10,
    },
};

/// Within the components.
pub static SCHEMAS: Section = Section {
    name: "schemas",
    number: 1,
    of: &NAMED_SCHEMAS,
};

static INFO: Shape = Shape::Message {
    fields: &[
        ("title", 1, &Shape::Text),
        ("description", 2, &Shape::Text),
        ("version", 6, &Shape::Text),
    ],
    extensions: 7,
};

static SECURITY_SCHEMES: Shape = Shape::Named {
    number: 1,
    of: &Shape::Choice(|_| Some((1, &SECURITY_SCHEME))),
    extensions: 0,
    fields: &[],
};

static SECURITY_SCHEME: Shape = Shape::Message {
    fields: &[
        ("type", 1, &Shape::Text),
        ("description", 2, &Shape::Text),
        ("name", 3, &Shape::Text),
        ("in", 4, &Shape::Text),
        ("scheme", 5, &Shape::Text),
        ("bearerFormat", 6, &Shape::Text),
    ],
    extensions: 9,
};

static PATH: Shape = Shape::Message {
    fields: &[
        ("summary", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
        ("get", 4, &OPERATION),
        ("put", 5, &OPERATION),
        ("post", 6, &OPERATION),
        ("delete", 7, &OPERATION),
        ("options", 8, &OPERATION),
        ("head", 9, &OPERATION),
        ("patch", 10, &OPERATION),
        ("parameters", 13, &PARAMETERS),
    ],
    extensions: 14,
};

static OPERATION: Shape = Shape::Message {
    fields: &[
        ("tags", 1, &Shape::Repeated(&Shape::Text)),
        ("summary", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
        ("operationId", 5, &Shape::Text),
        ("parameters", 6, &PARAMETERS),
        ("requestBody", 7, &Shape::Choice(|_| Some((1, &BODY)))),
        ("responses", 8, &RESPONSES),
        ("deprecated", 10, &Shape::Flag),
    ],
    extensions: 13,
};

static PARAMETERS: Shape = Shape::Repeated(&Shape::Choice(|_| Some((1, &PARAMETER))));

static PARAMETER: Shape = Shape::Message {
    fields: &[
        ("name", 1, &Shape::Text),
        ("in", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
        ("required", 4, &Shape::Flag),
        ("schema", 10, &SCHEMA_OR_REFERENCE),
    ],
    extensions: 14,
};

static BODY: Shape = Shape::Message {
    fields: &[
        ("description", 1, &Shape::Text),
        ("content", 2, &CONTENT),
        ("required", 3, &Shape::Flag),
    ],
    extensions: 4,
};

static RESPONSES: Shape = Shape::Named {
    number: 2,
    of: &RESPONSE,
    extensions: 3,
    fields: &[("default", 1, &RESPONSE)],
};

static RESPONSE: Shape = Shape::Choice(|_| Some((1, &OWN_RESPONSE)));

static OWN_RESPONSE: Shape = Shape::Message {
    fields: &[("description", 1, &Shape::Text), ("content", 3, &CONTENT)],
    extensions: 5,
};

static CONTENT: Shape = Shape::Named {
    number: 1,
    of: &Shape::Message {
        fields: &[("schema", 1, &SCHEMA_OR_REFERENCE)],
        extensions: 5,
    },
    extensions: 0,
    fields: &[],
};

static REFERENCE: Shape = Shape::Message {
    fields: &[
        ("$ref", 1, &Shape::Text),
        ("summary", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
    ],
    extensions: 0,
};

static SCHEMA_OR_REFERENCE: Shape = Shape::Choice(|value| match value.get("$ref") {
    Some(_) => Some((2, &REFERENCE)),
    None => Some((1, &SCHEMA)),
});

static SCHEMAS_OR_REFERENCES: Shape = Shape::Repeated(&SCHEMA_OR_REFERENCE);

static NAMED_SCHEMAS: Shape = Shape::Named {
    number: 1,
    of: &SCHEMA_OR_REFERENCE,
    extensions: 0,
    fields: &[],
};

static SCHEMA: Shape = Shape::Message {
    fields: &[
        ("nullable", 1, &Shape::Flag),
        ("readOnly", 3, &Shape::Flag),
        ("writeOnly", 4, &Shape::Flag),
        ("example", 7, &Shape::Any),
        ("deprecated", 8, &Shape::Flag),
        ("title", 9, &Shape::Text),
        ("multipleOf", 10, &Shape::Double),
        ("maximum", 11, &Shape::Double),
        ("exclusiveMaximum", 12, &Shape::Flag),
        ("minimum", 13, &Shape::Double),
        ("exclusiveMinimum", 14, &Shape::Flag),
        ("maxLength", 15, &Shape::Integer),
        ("minLength", 16, &Shape::Integer),
        ("pattern", 17, &Shape::Text),
        ("maxItems", 18, &Shape::Integer),
        ("minItems", 19, &Shape::Integer),
        ("uniqueItems", 20, &Shape::Flag),
        ("maxProperties", 21, &Shape::Integer),
        ("minProperties", 22, &Shape::Integer),
        ("required", 23, &Shape::Repeated(&Shape::Text)),
        ("enum", 24, &Shape::Repeated(&Shape::Any)),
        ("type", 25, &Shape::Text),
        ("allOf", 26, &SCHEMAS_OR_REFERENCES),
        ("oneOf", 27, &SCHEMAS_OR_REFERENCES),
        ("anyOf", 28, &SCHEMAS_OR_REFERENCES),
        ("not", 29, &SCHEMA),
        ("items", 30, &Shape::Wrapped(1, &SCHEMA_OR_REFERENCE)),
        ("properties", 31, &NAMED_SCHEMAS),
        ("additionalProperties", 32, &ADDITIONAL),
        ("default", 33, &Shape::Choice(default)),
        ("description", 34, &Shape::Text),
        ("format", 35, &Shape::Text),
    ],
    extensions: 36,
};

static ADDITIONAL: Shape = Shape::Choice(|value| match value {
    Value::Bool(_) => Some((2, &Shape::Flag)),
    _ => Some((1, &SCHEMA_OR_REFERENCE)),
});

/// Only scalars can be told; of others, that there is a default.
fn default(value: &Value) -> Option<(u32, &'static Shape)> {
    match value {
        Value::Number(_) => Some((1, &Shape::Double)),
        Value::Bool(_) => Some((2, &Shape::Flag)),
        Value::String(_) => Some((3, &Shape::Text)),
        _ => None,
    }
}
