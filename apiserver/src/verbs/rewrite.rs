//! Changes that the server makes itself: of a binding to its pod, of an eviction to a budget.
//! Neither admission nor the kind's strategy is asked.

use std::sync::Arc;

use coracle_api::Object;
use coracle_store::Error;

use super::{
    get::{cache_of, current},
    written::replace,
};
use crate::{
    cache::Entry,
    error::ApiError,
    registry::{Registry, Resource},
    services::Companions,
    strategy,
};

/// Changes an object as it stands, again when someone else was faster. A dry run only finds out
/// whether `change` agrees.
pub async fn rewrite(
    registry: &Registry,
    resource: &Resource,
    namespace: &str,
    name: &str,
    dry_run: bool,
    change: impl Fn(&mut dyn Object) -> Result<(), ApiError>,
) -> Result<Arc<Entry>, ApiError> {
    let cache = cache_of(resource)?;
    let key = cache.key(namespace, name);
    loop {
        registry.fresh().await?;
        let Some(entry) = current(registry, cache, &key)? else {
            return Err(ApiError::not_found(&*resource.kind, name));
        };
        let mut object = resource.decode(&entry)?;
        change(&mut *object)?;
        let leaves = object.meta().deletion_timestamp.is_some();
        let value = strategy::into_bytes(resource, object);
        let same = entry.is_stored_as(&value);
        if dry_run || same && !registry.store().is_stale(&key).await? {
            return Ok(entry);
        }
        match replace(registry, &entry, value, Companions::default(), leaves).await {
            Ok(entry) => return Ok(entry.into()),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
