//! `create`: a new object.

use axum::body::Body;
use coracle_api::Object;
use coracle_store::{Compare, Error, KeyValue, Transaction, Write};
use http::{Response, StatusCode};

use crate::{
    admission::Operation,
    body, decode,
    error::ApiError,
    options::WriteOptions,
    query::Query,
    registry::Resource,
    respond::{self, Output},
    server::{ApiServer, Context},
    strategy,
    verbs::get::cache_of,
};

/// How often a name is generated anew when it was taken, as upstream.
const GENERATE_ATTEMPTS: usize = 8;

/// Creates the object in the body and answers with it as it was stored.
pub async fn create(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(&context.headers, &query)?;
    let options = WriteOptions::parse(&query, "CreateOptions")?;
    let json = body::read_json(&context.headers, body).await?;
    let kind = &resource.kind;
    let mut object = decode::object(kind, &json, options.field_validation, &context.warnings)?;
    let meta = object.meta_mut();
    strategy::wipe_system_fields(meta);
    strategy::match_namespace(meta, kind.namespaced, &context.info.namespace)?;
    create_object(
        server,
        context,
        resource,
        object,
        &options,
        &output,
        StatusCode::CREATED,
    )
    .await
}

/// Admits, prepares, validates and stores a decoded object.
pub async fn create_object(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    mut object: Box<dyn Object>,
    options: &WriteOptions,
    output: &Output,
    code: StatusCode,
) -> Result<Response<Body>, ApiError> {
    let kind = &resource.kind;
    let cache = cache_of(resource)?;
    let given_name = object.meta().name.clone().unwrap_or_default();
    let attributes = context.attributes(resource, Operation::Create, &given_name, options.dry_run);
    let admission = server.admission();
    admission
        .admit(&attributes, Some(&mut *object), None)
        .await?;
    let generated = given_name.is_empty() && object.meta().name.is_none();
    for attempt in 1.. {
        strategy::prepare_for_create(kind, &mut *object, generated);
        strategy::validate_create(kind, &*object, &context.warnings)?;
        let name = object.meta().name.clone().unwrap_or_default();
        admission
            .validate(&attributes, Some(&*object), None)
            .await?;
        if options.dry_run {
            server.registry().fresh().await?;
            if cache
                .get(&cache.key(&context.info.namespace, &name))
                .is_some()
            {
                return Err(ApiError::already_exists(&**kind, &name));
            }
            return respond::loose_object(output, code, &*object);
        }
        match store(server, resource, &*object).await {
            Ok(stored) => {
                return respond::stored(output, code, resource, &stored);
            }
            Err(Error::Conflict { .. }) if generated && attempt < GENERATE_ATTEMPTS => {}
            Err(Error::Conflict { .. }) if generated => {
                return Err(ApiError::generate_name_conflict(&**kind, &name));
            }
            Err(Error::Conflict { .. }) => return Err(ApiError::already_exists(&**kind, &name)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::internal("no name could be generated"))
}

/// Writes a new object.
async fn store(
    server: &ApiServer,
    resource: &Resource,
    object: &dyn Object,
) -> Result<KeyValue, Error> {
    let meta = object.meta();
    let cache = resource.cache.as_ref().ok_or(Error::Closed)?;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let key = cache.key(namespace, meta.name.as_deref().unwrap_or_default());
    let key: std::sync::Arc<str> = key.into();
    let value = strategy::to_bytes(resource, object);
    let revision = server
        .registry()
        .store()
        .commit(Transaction {
            compares: vec![Compare::Absent(key.clone())],
            writes: vec![Write::Put {
                key: key.clone(),
                value: value.clone(),
            }],
        })
        .await?;
    Ok(KeyValue {
        key,
        value,
        create_revision: revision,
        mod_revision: revision,
    })
}
