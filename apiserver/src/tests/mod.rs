//! Tests of the whole chain, in process.

mod apply;
mod crud;
mod flood;
mod list;
mod openapi;
mod paths;
mod services;
mod subresources;
mod unparsed;
mod update;
mod watch;

use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": name}},
        "data": data,
    })
}
