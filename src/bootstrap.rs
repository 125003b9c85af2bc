//! What a new cluster contains: the manifests under `manifests/bootstrap/`, and the `kubernetes`
//! Service with the API server's own address behind it.
//!
//! Everything is looked at again at each start. What is there is left as it is, but for the API
//! server's address, which may have changed.

use std::net::IpAddr;

use anyhow::Context as _;
use coracle_client::ensure;
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::cli::Disable;

const MANIFESTS: &[&str] = &[
    include_str!("../manifests/bootstrap/namespaces.yaml"),
    include_str!("../manifests/bootstrap/priority-classes.yaml"),
];

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

/// Where the API server is reached.
#[derive(Clone, Copy, Debug)]
pub struct ApiAddress {
    /// The address of the `kubernetes` Service: the first of the service range.
    pub service: IpAddr,
    /// What stands behind it.
    pub advertised: IpAddr,
    pub port: u16,
}

/// Puts in place what is missing.
pub async fn run(
    client: &Client,
    api: ApiAddress,
    enabled: impl Fn(Disable) -> bool,
) -> anyhow::Result<()> {
    let optional = OPTIONAL.iter().filter(|(component, _)| enabled(*component));
    let optional = optional.map(|(_, manifest)| manifest);
    for manifest in MANIFESTS.iter().chain(optional) {
        for document in serde_yaml_ng::Deserializer::from_str(manifest) {
            let object = DynamicObject::deserialize(document).context("in a built-in manifest")?;
            create(client, object).await?;
        }
    }
    create(client, token_tracking()?).await?;
    kubernetes_service(client, api).await
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

async fn kubernetes_service(client: &Client, api: ApiAddress) -> anyhow::Result<()> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": api.service,
            "clusterIPs": [api.service],
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": api.port}],
        },
    }))?;
    put(client, service).await?;
    // Upstream's API server keeps these two itself; no controller touches them.
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": api.advertised}],
            "ports": [{"name": "https", "protocol": "TCP", "port": api.port}],
        }],
    }))?;
    put(client, endpoints).await?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if api.advertised.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [api.advertised], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": api.port}],
    }))?;
    put(client, slice).await
}

async fn put<K>(client: &Client, object: K) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    ensure(client, "default", &object)
        .await
        .with_context(|| format!("cannot put the {} kubernetes in place", K::kind(&())))
}
