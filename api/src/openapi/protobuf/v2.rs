//! The messages of `OpenAPIv2.proto`, as far as Kubernetes' documents need them.

use serde_json::Value;

use super::{Section, Shape};

/// The fields that are written whole; the others are sections.
pub static DOCUMENT: Shape = Shape::Message {
    fields: &[
        ("swagger", 1, &Shape::Text),
        ("info", 2, &INFO),
        ("security", 12, &Shape::Repeated(&REQUIREMENT)),
        ("securityDefinitions", 13, &SECURITY_DEFINITIONS),
    ],
    extensions: 16,
};

pub static PATHS: Section = Section {
    name: "paths",
    number: 8,
    of: &Shape::Named {
        number: 2,
        of: &PATH,
        extensions: 1,
        fields: &[],
    },
};

pub static DEFINITIONS: Section = Section {
    name: "definitions",
    number: 9,
    of: &NAMED_SCHEMAS,
};

pub static PARAMETERS: Section = Section {
    name: "parameters",
    number: 10,
    of: &Shape::Named {
        number: 1,
        of: &PARAMETER,
        extensions: 0,
        fields: &[],
    },
};

static INFO: Shape = Shape::Message {
    fields: &[
        ("title", 1, &Shape::Text),
        ("version", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
    ],
    extensions: 7,
};

static REQUIREMENT: Shape = Shape::Named {
    number: 1,
    of: &Shape::Wrapped(1, &Shape::Text),
    extensions: 0,
    fields: &[],
};

static SECURITY_DEFINITIONS: Shape = Shape::Named {
    number: 1,
    of: &Shape::Choice(|_| Some((2, &API_KEY))),
    extensions: 0,
    fields: &[],
};

static API_KEY: Shape = Shape::Message {
    fields: &[
        ("type", 1, &Shape::Text),
        ("name", 2, &Shape::Text),
        ("in", 3, &Shape::Text),
        ("description", 4, &Shape::Text),
    ],
    extensions: 5,
};

static PATH: Shape = Shape::Message {
    fields: &[
        ("get", 2, &OPERATION),
        ("put", 3, &OPERATION),
        ("post", 4, &OPERATION),
        ("delete", 5, &OPERATION),
        ("options", 6, &OPERATION),
        ("head", 7, &OPERATION),
        ("patch", 8, &OPERATION),
        ("parameters", 9, &USED_PARAMETERS),
    ],
    extensions: 10,
};

static OPERATION: Shape = Shape::Message {
    fields: &[
        ("tags", 1, &Shape::Repeated(&Shape::Text)),
        ("summary", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
        ("operationId", 5, &Shape::Text),
        ("produces", 6, &Shape::Repeated(&Shape::Text)),
        ("consumes", 7, &Shape::Repeated(&Shape::Text)),
        ("parameters", 8, &USED_PARAMETERS),
        ("responses", 9, &RESPONSES),
        ("schemes", 10, &Shape::Repeated(&Shape::Text)),
        ("deprecated", 11, &Shape::Flag),
    ],
    extensions: 13,
};

/// A parameter, or where it is found.
static USED_PARAMETERS: Shape = Shape::Repeated(&Shape::Choice(|value| match value.get("$ref") {
    Some(_) => Some((2, &REFERENCE)),
    None => Some((1, &PARAMETER)),
}));

static REFERENCE: Shape = Shape::Message {
    fields: &[("$ref", 1, &Shape::Text), ("description", 2, &Shape::Text)],
    extensions: 0,
};

static PARAMETER: Shape = Shape::Choice(|value| match value["in"].as_str() {
    Some("body") => Some((1, &BODY)),
    _ => Some((2, &NON_BODY)),
});

static BODY: Shape = Shape::Message {
    fields: &[
        ("description", 1, &Shape::Text),
        ("name", 2, &Shape::Text),
        ("in", 3, &Shape::Text),
        ("required", 4, &Shape::Flag),
        ("schema", 5, &SCHEMA),
    ],
    extensions: 6,
};

static NON_BODY: Shape = Shape::Choice(|value| match value["in"].as_str() {
    Some("path") => Some((4, &PATH_PARAMETER)),
    _ => Some((3, &QUERY_PARAMETER)),
});

static QUERY_PARAMETER: Shape = Shape::Message {
    fields: &[
        ("required", 1, &Shape::Flag),
        ("in", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
        ("name", 4, &Shape::Text),
        ("type", 6, &Shape::Text),
        ("format", 7, &Shape::Text),
        ("uniqueItems", 20, &Shape::Flag),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Shape = Shape::Message {
    fields: &[
        ("required", 1, &Shape::Flag),
        ("in", 2, &Shape::Text),
        ("description", 3, &Shape::Text),
        ("name", 4, &Shape::Text),
        ("type", 5, &Shape::Text),
        ("format", 6, &Shape::Text),
        ("uniqueItems", 19, &Shape::Flag),
    ],
    extensions: 22,
};

static RESPONSES: Shape = Shape::Named {
    number: 1,
    of: &Shape::Choice(|_| Some((1, &RESPONSE))),
    extensions: 2,
    fields: &[],
};

static RESPONSE: Shape = Shape::Message {
    fields: &[
        ("description", 1, &Shape::Text),
        ("schema", 2, &Shape::Choice(|_| Some((1, &SCHEMA)))),
    ],
    extensions: 5,
};

static NAMED_SCHEMAS: Shape = Shape::Named {
    number: 1,
    of: &SCHEMA,
    extensions: 0,
    fields: &[],
};

static SCHEMA: Shape = Shape::Message {
    fields: &[
        ("$ref", 1, &Shape::Text),
        ("format", 2, &Shape::Text),
        ("title", 3, &Shape::Text),
        ("description", 4, &Shape::Text),
        ("default", 5, &Shape::Any),
        ("multipleOf", 6, &Shape::Double),
        ("maximum", 7, &Shape::Double),
        ("exclusiveMaximum", 8, &Shape::Flag),
        ("minimum", 9, &Shape::Double),
        ("exclusiveMinimum", 10, &Shape::Flag),
        ("maxLength", 11, &Shape::Integer),
        ("minLength", 12, &Shape::Integer),
        ("pattern", 13, &Shape::Text),
        ("maxItems", 14, &Shape::Integer),
        ("minItems", 15, &Shape::Integer),
        ("uniqueItems", 16, &Shape::Flag),
        ("maxProperties", 17, &Shape::Integer),
        ("minProperties", 18, &Shape::Integer),
        ("required", 19, &Shape::Repeated(&Shape::Text)),
        ("enum", 20, &Shape::Repeated(&Shape::Any)),
        ("additionalProperties", 21, &ADDITIONAL),
        ("type", 22, &Shape::Wrapped(1, &Shape::Text)),
        ("items", 23, &Shape::Wrapped(1, &SCHEMA)),
        ("allOf", 24, &Shape::Repeated(&SCHEMA)),
        ("properties", 25, &NAMED_SCHEMAS),
        ("readOnly", 27, &Shape::Flag),
        ("example", 30, &Shape::Any),
    ],
    extensions: 31,
};

static ADDITIONAL: Shape = Shape::Choice(|value| match value {
    Value::Bool(_) => Some((2, &Shape::Flag)),
    _ => Some((1, &SCHEMA)),
});
