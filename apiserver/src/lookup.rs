//! Objects that must be there: for the parts of the server that decide by stored objects.
//!
//! Enter at [`Lookup`]. It reads the watch cache as [`crate::Lister`] does; an object that is
//! not there is looked for again when the cache has caught up with the store.

use coracle_api::object::Typed;

use crate::{
    error::{ApiError, GroupResource},
    lister::Shared,
    registry::Registry,
};

/// Reads objects of built-in kinds. Cheap to clone.
#[derive(Clone)]
pub struct Lookup(Registry);

impl Lookup {
    pub fn new(registry: Registry) -> Self {
        Lookup(registry)
    }

    /// The object, if every write acknowledged before left one.
    pub async fn get<T: Typed>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Shared<T>>, ApiError> {
        let lister = self.0.lister::<T>();
        if let Some(found) = lister.get(namespace, name) {
            return Ok(Some(found));
        }
        self.0.fresh().await?;
        Ok(lister.get(namespace, name))
    }

    /// The object as every write acknowledged before left it; it must exist.
    ///
    /// # Errors
    /// NotFound, as a client is told that asks for it.
    pub async fn require<T: Typed>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Shared<T>, ApiError> {
        let subject = GroupResource {
            group: T::GROUP,
            resource: T::URL_PATH_SEGMENT,
        };
        self.0.fresh().await?;
        let found = self.0.lister::<T>().get(namespace, name);
        found.ok_or_else(|| ApiError::not_found(subject, name))
    }
}
