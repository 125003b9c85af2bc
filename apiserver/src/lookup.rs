//! Typed reads of the watch caches, for the parts of the server that decide by stored objects:
//! authentication, authorisation, admission, the node proxy.
//!
//! Enter at [`Lookup`]. Nothing is parsed twice: an object is decoded at the first look and
//! kept beside its bytes.

use std::{marker::PhantomData, ops::Deref, sync::Arc};

use coracle_api::{Object, object::Typed};

use crate::{
    cache::{Cache, Entry},
    error::{ApiError, GroupResource},
    registry::Registry,
};

/// A stored object, shared with the cache.
pub struct Stored<T> {
    object: Arc<dyn Object>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Stored {
            object: self.object.clone(),
            kind: PhantomData,
        }
    }
}

impl<T: Typed> Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.object
            .as_any()
            .downcast_ref()
            .expect("the type was checked when the object was found")
    }
}

/// Reads objects of built-in kinds. Cheap to clone.
#[derive(Clone)]
pub struct Lookup(Registry);

impl Lookup {
    pub fn new(registry: Registry) -> Self {
        Lookup(registry)
    }

    /// The object as the cache has it. `namespace` is ignored for cluster-scoped kinds.
    pub fn cached<T: Typed>(&self, namespace: &str, name: &str) -> Option<Stored<T>> {
        let cache = self.cache::<T>()?;
        let entry = cache.get(&cache.key(namespace, name))?;
        typed(&cache, &entry)
    }

    /// The object; when the cache has none, not before the cache has caught up with the store.
    pub async fn get<T: Typed>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored<T>>, ApiError> {
        if let Some(found) = self.cached(namespace, name) {
            return Ok(Some(found));
        }
        self.0.fresh().await?;
        Ok(self.cached(namespace, name))
    }

    /// The object, which must exist.
    ///
    /// # Errors
    /// NotFound, as a client is told that asks for it.
    pub async fn require<T: Typed>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Stored<T>, ApiError> {
        let subject = GroupResource {
            group: T::GROUP,
            resource: T::URL_PATH_SEGMENT,
        };
        let found = self.get(namespace, name).await?;
        found.ok_or_else(|| ApiError::not_found(subject, name))
    }

    /// Every object in a namespace; in all namespaces if it is empty.
    pub fn list<T: Typed>(&self, namespace: &str) -> Vec<Stored<T>> {
        let Some(cache) = self.cache::<T>() else {
            return Vec::new();
        };
        let objects = cache.objects();
        let prefix = cache.key_prefix(namespace);
        objects
            .range::<_, str>(prefix.as_str()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(_, entry)| typed(&cache, entry))
            .collect()
    }

    /// The cache that holds the objects of the type.
    pub fn cache<T: Typed>(&self) -> Option<Arc<Cache>> {
        let resource = self
            .0
            .find(T::GROUP, T::VERSION, <T as k8s_openapi::Resource>::URL_PATH_SEGMENT)?;
        resource.cache.clone()
    }

    pub fn registry(&self) -> &Registry {
        &self.0
    }
}

fn typed<T: Typed>(cache: &Cache, entry: &Entry) -> Option<Stored<T>> {
    let object = entry
        .object(&**cache.strategy())
        .inspect_err(|error| tracing::error!(key = &*entry.key, %error, "cannot be decoded"))
        .ok()?;
    object.as_any().is::<T>().then_some(Stored {
        object,
        kind: PhantomData,
    })
}
