//! What else is written with an object: for Services, what they are given.

use coracle_api::Object;
use coracle_store::Error;
use k8s_openapi::api::core::v1::Service;

use crate::{error::ApiError, server::ApiServer, services::Companions};

/// Whether the object is one that [`create`] and [`update`] change.
pub fn has_any(server: &ApiServer, object: &dyn Object) -> bool {
    server.services().is_some() && object.as_any().is::<Service>()
}

/// Completes a new object.
pub async fn create(server: &ApiServer, object: &mut dyn Object) -> Result<Companions, ApiError> {
    match (server.services(), object.as_any_mut().downcast_mut()) {
        (Some(services), Some(service)) => services.create(service).await,
        _ => Ok(Companions::default()),
    }
}

/// Completes a changed object.
pub async fn update(
    server: &ApiServer,
    new: &mut dyn Object,
    old: &dyn Object,
) -> Result<Companions, ApiError> {
    let old = old.as_any().downcast_ref();
    match (server.services(), new.as_any_mut().downcast_mut(), old) {
        (Some(services), Some(new), Some(old)) => services.update(new, old).await,
        _ => Ok(Companions::default()),
    }
}

/// What goes with an object that ends.
pub async fn delete(server: &ApiServer, object: &dyn Object) -> Result<Companions, Error> {
    match (server.services(), object.as_any().downcast_ref::<Service>()) {
        (Some(services), Some(service)) => services.delete(service).await,
        _ => Ok(Companions::default()),
    }
}
