//! The objects of one kind: read from the shared cache, written through the API.
//!
//! A write that went well returns only when the cache shows it, so whoever decides next decides on
//! a world that has it. The requests are boxed: they would make every controller's future large.

use std::sync::Arc;

use coracle_client::{Cached, Informer};
use futures::{FutureExt as _, future::BoxFuture};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::Serialize;
use serde_json::Value;

use crate::error;

/// Where the objects of a kind live: in namespaces or in the cluster.
pub(crate) trait Place: Sized {
    fn api<K: Resource<Scope = Self, DynamicType = ()>>(client: Client, namespace: &str) -> Api<K>;
}

impl Place for NamespaceResourceScope {
    fn api<K: Resource<Scope = Self, DynamicType = ()>>(client: Client, namespace: &str) -> Api<K> {
        Api::namespaced(client, namespace)
    }
}

impl Place for ClusterResourceScope {
    fn api<K: Resource<Scope = Self, DynamicType = ()>>(client: Client, _: &str) -> Api<K> {
        Api::all(client)
    }
}

/// A kind that controllers read and write.
pub(crate) trait Kept: Cached + Serialize + Resource<Scope: Place> {}

impl<K: Cached + Serialize + Resource<Scope: Place>> Kept for K {}

/// The objects of one kind. Cheap to clone.
pub(crate) struct Objects<K> {
    client: Client,
    pub cache: Informer<K>,
}

impl<K> Clone for Objects<K> {
    fn clone(&self) -> Self {
        Objects {
            client: self.client.clone(),
            cache: self.cache.clone(),
        }
    }
}

type Written<'a, K> = BoxFuture<'a, Result<K, kube::Error>>;

impl<K: Kept> Objects<K> {
    pub fn new(client: Client, cache: Informer<K>) -> Self {
        Objects { client, cache }
    }

    pub fn api(&self, namespace: &str) -> Api<K> {
        <K::Scope as Place>::api(self.client.clone(), namespace)
    }

    fn api_of(&self, object: &K) -> Api<K> {
        self.api(object.meta().namespace.as_deref().unwrap_or_default())
    }

    /// Past the cache: what is stored now.
    pub fn read<'a>(&'a self, namespace: &str, name: &'a str) -> Written<'a, Option<K>> {
        let api = self.api(namespace);
        async move { api.get_opt(name).await }.boxed()
    }

    /// Creates the object in the namespace it names.
    pub fn create<'a>(&'a self, object: &'a K) -> Written<'a, K> {
        let api = self.api_of(object);
        async move {
            let created = api.create(&PostParams::default(), object).await?;
            Ok(self.shown(created).await)
        }
        .boxed()
    }

    pub fn replace<'a>(&'a self, object: &'a K) -> Written<'a, K> {
        let api = self.api_of(object);
        async move {
            let name = object.name_any();
            let written = api.replace(&name, &PostParams::default(), object).await?;
            Ok(self.shown(written).await)
        }
        .boxed()
    }

    /// Writes the status. `None` when the object is gone, and with it the need.
    pub fn replace_status<'a>(&'a self, object: &'a K) -> Written<'a, Option<K>> {
        let api = self.api_of(object);
        async move {
            let name = object.name_any();
            let written = api
                .replace_status(&name, &PostParams::default(), object)
                .await;
            match error::optional(written)? {
                Some(written) => Ok(Some(self.shown(written).await)),
                None => Ok(None),
            }
        }
        .boxed()
    }

    /// Writes a part of the object that has a path of its own.
    pub fn replace_subresource<'a>(
        &'a self,
        subresource: &'a str,
        object: &'a K,
    ) -> Written<'a, K> {
        let api = self.api_of(object);
        async move {
            let name = object.name_any();
            let params = PostParams::default();
            let written = api
                .replace_subresource(subresource, &name, &params, object)
                .await?;
            Ok(self.shown(written).await)
        }
        .boxed()
    }

    pub fn patch<'a>(
        &'a self,
        namespace: &str,
        name: &'a str,
        patch: Patch<Value>,
    ) -> Written<'a, K> {
        let api = self.api(namespace);
        async move {
            let written = api.patch(name, &PatchParams::default(), &patch).await?;
            Ok(self.shown(written).await)
        }
        .boxed()
    }

    pub fn patch_status<'a>(
        &'a self,
        namespace: &str,
        name: &'a str,
        patch: Patch<Value>,
    ) -> Written<'a, K> {
        let api = self.api(namespace);
        async move {
            let written = api
                .patch_status(name, &PatchParams::default(), &patch)
                .await?;
            Ok(self.shown(written).await)
        }
        .boxed()
    }

    /// Deletes exactly this object, not a later one of its name. Returns whether it was there.
    pub fn delete<'a>(&'a self, object: &'a K, params: DeleteParams) -> Written<'a, bool> {
        let api = self.api_of(object);
        let version = params
            .preconditions
            .as_ref()
            .and_then(|conditions| conditions.resource_version.clone());
        let params = params.preconditions(Preconditions {
            uid: object.uid(),
            resource_version: version.clone(),
        });
        async move {
            let name = object.name_any();
            let there = match api.delete(&name, &params).await {
                Ok(_) => true,
                Err(error) if error::is_not_found(&error) => false,
                // Another object has the name by now.
                Err(error) if error::is_conflict(&error) && version.is_none() => false,
                Err(error) => return Err(error),
            };
            self.deletion_shown(object).await;
            Ok(there)
        }
        .boxed()
    }

    async fn shown(&self, written: K) -> K {
        if let Some(version) = &written.meta().resource_version {
            self.cache.reached(version).await;
        }
        written
    }

    async fn deletion_shown(&self, object: &K) {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let name = object.name_any();
        self.cache
            .wait_for(|cache| {
                cache.get(&namespace, &name).is_none_or(|cached| {
                    cached.meta().uid != object.meta().uid
                        || cached.meta().deletion_timestamp.is_some()
                })
            })
            .await;
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.cache.get(namespace, name)
    }

    /// The objects of one namespace that have no controller.
    pub fn orphans(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        let mut orphans = self.cache.controlled_by("");
        orphans.retain(|object| object.meta().namespace.as_deref() == namespace);
        orphans
    }
}
