//! Objects that a component publishes about itself.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};

/// Makes the object of this namespace say what `object` says, and creates it where there is none.
/// What it says of other things stays.
///
/// # Errors
///
/// The API's, but for the creation by somebody else in between: that is patched too.
pub async fn ensure<K>(client: &Client, namespace: &str, object: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    // The patch comes first: a Service of a fixed address cannot even be tried twice.
    if patch(&api, object).await? {
        return Ok(());
    }
    let Err(error) = api.create(&PostParams::default(), object).await else {
        return Ok(());
    };
    // Another server may have been faster: a Service's address is refused before its name is.
    let raced = matches!(&error, kube::Error::Api(status)
        if status.is_already_exists() || status.is_invalid());
    if raced && patch(&api, object).await? {
        return Ok(());
    }
    Err(error)
}

/// Whether there was an object to patch.
async fn patch<K>(api: &Api<K>, object: &K) -> Result<bool, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let parameters = PatchParams::default();
    match api
        .patch(&object.name_any(), &parameters, &Patch::Merge(object))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        other => other.map(|_| true),
    }
}
