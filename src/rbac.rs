//! Puts upstream's roles and bindings in place, and back in place at each start.

use std::{collections::HashMap, fmt::Debug};

use anyhow::Context as _;
use coracle_apiserver::authz::bootstrap::{
    Reconciled, manifests, reconciled_cluster_role, reconciled_cluster_role_binding,
    reconciled_role, reconciled_role_binding,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinSet;

/// What a role or binding is to the API client.
trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
}

impl<T> Object for T where
    T: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// Creates what is missing and mends what differs. The namespaces must exist.
pub async fn reconcile(client: &Client) -> anyhow::Result<()> {
    let wanted = manifests();
    let mut writes = JoinSet::new();
    plan(
        Api::all(client.clone()),
        wanted.cluster_roles.iter().collect(),
        reconciled_cluster_role,
        &mut writes,
    )
    .await?;
    plan(
        Api::all(client.clone()),
        wanted.cluster_role_bindings.iter().collect(),
        reconciled_cluster_role_binding,
        &mut writes,
    )
    .await?;
    for (namespace, roles) in by_namespace(&wanted.roles) {
        let api = Api::namespaced(client.clone(), &namespace);
        plan(api, roles, reconciled_role, &mut writes).await?;
    }
    for (namespace, bindings) in by_namespace(&wanted.role_bindings) {
        let api = Api::namespaced(client.clone(), &namespace);
        plan(api, bindings, reconciled_role_binding, &mut writes).await?;
    }
    // All at once, so that the store commits them in groups.
    while let Some(written) = writes.join_next().await {
        written.context("a role was not written")??;
    }
    Ok(())
}

fn by_namespace<K: Object>(objects: &[K]) -> HashMap<String, Vec<&K>> {
    let mut grouped: HashMap<String, Vec<&K>> = HashMap::new();
    for object in objects {
        let namespace = object.namespace().unwrap_or_default();
        grouped.entry(namespace).or_default().push(object);
    }
    grouped
}

/// Starts the writes that make what there is into what is wanted.
async fn plan<K: Object>(
    api: Api<K>,
    wanted: Vec<&K>,
    reconciled: fn(&K, &K) -> Reconciled<K>,
    writes: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let kind = K::kind(&());
    let existing = api.list(&ListParams::default()).await;
    let existing = existing.with_context(|| format!("cannot list the objects of kind {kind}"))?;
    let found: HashMap<String, K> = existing
        .into_iter()
        .map(|object| (object.name_any(), object))
        .collect();
    for wanted in wanted {
        let name = wanted.name_any();
        let action = match found.get(&name) {
            None => Reconciled::Recreate(wanted.clone()),
            Some(found) => reconciled(wanted, found),
        };
        let exists = found.contains_key(&name);
        let api = api.clone();
        writes.spawn(async move {
            write(&api, &name, action, exists)
                .await
                .with_context(|| format!("cannot write the {} {name}", K::kind(&())))
        });
    }
    Ok(())
}

async fn write<K: Object>(
    api: &Api<K>,
    name: &str,
    action: Reconciled<K>,
    exists: bool,
) -> Result<(), kube::Error> {
    let params = PostParams::default();
    let written = match action {
        Reconciled::Keep => return Ok(()),
        Reconciled::Update(object) => api.replace(name, &params, &object).await,
        Reconciled::Recreate(object) => {
            if exists {
                api.delete(name, &DeleteParams::default()).await?;
            }
            api.create(&params, &object).await
        }
    };
    match written {
        // Another server of the same cluster was quicker.
        Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_conflict() => {
            Ok(())
        }
        other => other.map(|_| ()),
    }
}
