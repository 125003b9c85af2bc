//! What `kubectl get` shows of the group's kinds: they come in pairs with the same columns.

use jiff::Timestamp;
use k8s_openapi::{
    api::admissionregistration::v1::{ParamKind, ParamRef},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::Value;

use crate::{
    selector,
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::text,
};

const UNSET: &str = "<unset>";

pub const WEBHOOKS: &[Column] = &[
    NAME,
    column(
        "Webhooks",
        "integer",
        "Webhooks indicates the number of webhooks registered in this configuration",
    ),
    AGE,
];

pub const BINDING: &[Column] = &[
    NAME,
    column(
        "PolicyName",
        "string",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    column(
        "ParamRef",
        "string",
        "ParamRef indicates the param resource which sets the configuration param",
    ),
    AGE,
];

pub const PARAM_KIND: Column = column(
    "ParamKind",
    "string",
    "ParamKind specifies the kind of resources used to parameterize this policy",
);

pub fn webhooks(metadata: &ObjectMeta, count: usize, now: Timestamp) -> Vec<Value> {
    vec![name(metadata), Value::from(count), age(metadata, now)]
}

/// A policy of so many rules.
pub fn policy(
    metadata: &ObjectMeta,
    rules: usize,
    parameters: Option<&ParamKind>,
    now: Timestamp,
) -> Vec<Value> {
    let parameters = parameters.map_or_else(
        || UNSET.to_owned(),
        |kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)),
    );
    vec![
        name(metadata),
        Value::from(rules),
        Value::from(parameters),
        age(metadata, now),
    ]
}

pub fn binding(
    metadata: &ObjectMeta,
    policy: &str,
    parameters: Option<&ParamRef>,
    now: Timestamp,
) -> Vec<Value> {
    vec![
        name(metadata),
        Value::from(policy),
        Value::from(reference(parameters)),
        age(metadata, now),
    ]
}

fn reference(parameters: Option<&ParamRef>) -> String {
    let unset = || UNSET.to_owned();
    let Some(parameters) = parameters else {
        return unset();
    };
    match (text(&parameters.name), text(&parameters.namespace)) {
        ("", _) => parameters
            .selector
            .as_ref()
            .map_or_else(unset, |selector| selector::format_object(Some(selector))),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}
