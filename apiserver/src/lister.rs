//! Typed objects for the server's own plugins, straight from the watch cache.
//!
//! Enter at [`Lister`]. An object is decoded when it is first asked for and shared from then
//! on; nothing is copied and no task runs.

use std::{marker::PhantomData, ops::Deref, sync::Arc};

use coracle_api::{Object, object::Typed};

use crate::{
    cache::{Cache, Entry},
    registry::Registry,
};

/// Reads the objects of one kind. They are as new as the watch cache, which may be a moment
/// behind the store; see [`Registry::fresh`].
pub struct Lister<T> {
    cache: Arc<Cache>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Lister<T> {
    fn clone(&self) -> Self {
        Lister {
            cache: self.cache.clone(),
            kind: PhantomData,
        }
    }
}

/// A shared object.
pub struct Shared<T> {
    object: Arc<dyn Object>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared {
            object: self.object.clone(),
            kind: PhantomData,
        }
    }
}

impl<T: Typed> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        coracle_api::object::expect(&*self.object)
    }
}

impl Registry {
    /// Reads the built-in kind `T`, which must be one that is stored as it is served.
    ///
    /// # Panics
    /// It is not served, or not stored.
    pub fn lister<T: Typed>(&self) -> Lister<T> {
        Lister {
            cache: self.cache::<T>(),
            kind: PhantomData,
        }
    }

    /// The cache of the built-in kind `T`, which must be one that is stored as it is served.
    ///
    /// # Panics
    /// It is not served, or not stored.
    pub fn cache<T: Typed>(&self) -> Arc<Cache> {
        self.find(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT)
            .filter(|resource| resource.conversion.is_none())
            .and_then(|resource| resource.cache.clone())
            .unwrap_or_else(|| panic!("{} is not stored", T::KIND))
    }
}

impl<T: Typed> Lister<T> {
    /// The object; `namespace` is ignored for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Shared<T>> {
        let entry = self.cache.get(&self.cache.key(namespace, name))?;
        self.decode(&entry)
    }

    /// The objects of a namespace, or all when it is empty, in order of their names.
    pub fn list(&self, namespace: &str) -> Vec<Shared<T>> {
        let prefix = self.cache.key_prefix(namespace);
        self.cache
            .below(&prefix)
            .iter()
            .filter_map(|entry| self.decode(entry))
            .collect()
    }

    /// A number that changes whenever an object of the kind does: who derives something from
    /// the objects can see whether it still holds.
    pub fn generation(&self) -> u64 {
        self.cache.generation()
    }

    fn decode(&self, entry: &Entry) -> Option<Shared<T>> {
        entry
            .object(&**self.cache.strategy())
            .inspect_err(|error| tracing::error!(key = %entry.key(), %error, "cannot be decoded"))
            .ok()
            .map(|object| Shared {
                object,
                kind: PhantomData,
            })
    }
}
