//! `delete` with `ignoreStoreReadErrorWithClusterBreakingPotential`: removes an object whose
//! value the store cannot make out, and that therefore nobody can look at any more.
//!
//! Nothing that would have to read the object happens: no preconditions, finalizers, graceful
//! deletion or admission.

use axum::body::Body;
use coracle_api::{field::Path, meta};
use coracle_store::{Compare, Error, Transaction, Write};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta};

use super::{
    delete::success,
    get::{cache_of, unreadable},
};
use crate::{
    authz::Attributes,
    error::ApiError,
    registry::Resource,
    respond::{self, Output},
    server::{ApiServer, Context},
};

/// Besides `delete`, the user needs this.
const VERB: &str = "unsafe-delete-ignore-read-errors";
const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// Whether what the request names is there and cannot be read.
pub async fn applies(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
) -> Result<bool, ApiError> {
    let key = cache_of(resource)?.key(&context.info.namespace, &context.info.name);
    server.registry().fresh().await?;
    Ok(unreadable(server.registry(), &key).is_some())
}

/// Removes the key that the request names.
///
/// # Errors
/// An option was given that would have to read the object. The object can be read, or there is
/// none: there is nothing to be forced.
pub async fn delete(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    options: &DeleteOptions,
    output: &Output,
) -> Result<Response<Body>, ApiError> {
    let errors = meta::validate_forced_delete_options(options);
    if !errors.is_empty() {
        return Err(ApiError::invalid(
            "meta.k8s.io",
            "DeleteOptions",
            "",
            &errors,
        ));
    }
    let mut info = context.info.clone();
    info.verb = VERB.to_owned();
    server
        .allow(&Attributes::of_request(&context.user, &info))
        .await?;
    let cache = cache_of(resource)?;
    let key = cache.key(&info.namespace, &info.name);
    let registry = server.registry();
    loop {
        registry.fresh().await?;
        let Some(found) = unreadable(registry, &key) else {
            return Err(readable(resource, &info.name));
        };
        let transaction = Transaction {
            compares: vec![Compare::ModRevision(found.key.clone(), found.mod_revision)],
            writes: vec![Write::Delete { key: found.key }],
            ..Transaction::default()
        };
        match registry.store().commit(transaction).await {
            Ok(_) => break,
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    tracing::warn!(
        key,
        user = context.user.user,
        "an unreadable object was removed"
    );
    let meta = ObjectMeta {
        name: Some(info.name),
        ..ObjectMeta::default()
    };
    let output = Output {
        transform: respond::Transform::None,
        ..*output
    };
    respond::value(&output, StatusCode::OK, &success(resource, &meta))
}

fn readable(resource: &Resource, name: &str) -> ApiError {
    let error = Path::new(OPTION).invalid(
        true,
        "is exclusively used to delete corrupt object(s), try again by removing this option",
    );
    let kind = &resource.kind;
    ApiError::invalid(&kind.group, &kind.resource, name, &vec![error])
}
