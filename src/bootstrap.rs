//! What a new cluster contains: the manifests under `manifests/bootstrap/`.
//!
//! Everything is looked at again at each start. What is there is left as it is.

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};
use kube::{
    Api, Client, ResourceExt as _,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde::Deserialize as _;
use serde_json::json;

use crate::cli::Disable;

const NAMESPACES: &str = include_str!("../manifests/bootstrap/namespaces.yaml");
const PRIORITY_CLASSES: &str = include_str!("../manifests/bootstrap/priority-classes.yaml");

/// What belongs to a component that can be left out.
const OPTIONAL: &[(Disable, &str)] = &[
    (
        Disable::MetricsServer,
        include_str!("../manifests/bootstrap/metrics-server.yaml"),
    ),
    (
        Disable::LocalStorage,
        include_str!("../manifests/bootstrap/local-storage.yaml"),
    ),
];

/// Puts in place what is missing.
pub async fn run(client: &Client, enabled: impl Fn(Disable) -> bool) -> anyhow::Result<()> {
    namespaces(client).await?;
    create_all(client, PRIORITY_CLASSES).await?;
    for (component, manifest) in OPTIONAL {
        if enabled(*component) {
            create_all(client, manifest).await?;
        }
    }
    create(client, token_tracking()?).await
}

/// The namespaces that there always are.
pub async fn namespaces(client: &Client) -> anyhow::Result<()> {
    create_all(client, NAMESPACES).await
}

async fn create_all(client: &Client, manifest: &str) -> anyhow::Result<()> {
    let objects: Vec<DynamicObject> = serde_yaml_ng::Deserializer::from_str(manifest)
        .map(DynamicObject::deserialize)
        .collect::<Result<_, _>>()
        .context("in a built-in manifest")?;
    for object in objects {
        create(client, object).await?;
    }
    Ok(())
}

/// Since when the use of tokens in Secrets is noted on them.
fn token_tracking() -> anyhow::Result<DynamicObject> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "kube-apiserver-legacy-service-account-token-tracking",
            "namespace": "kube-system",
        },
        "data": {"since": today.to_string()},
    }))?)
}

async fn create(client: &Client, object: DynamicObject) -> anyhow::Result<()> {
    let types = object
        .types
        .clone()
        .context("a built-in manifest names no kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    ignore_existing(api.create(&PostParams::default(), &object).await)
        .with_context(|| format!("cannot create {} {}", kind.kind, object.name_any()))
}

fn ignore_existing<T>(created: Result<T, kube::Error>) -> anyhow::Result<()> {
    match created {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}
