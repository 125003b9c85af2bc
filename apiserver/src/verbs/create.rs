//! `create`: a new object.

use axum::body::Body;
use coracle_api::Object;
use coracle_store::Error;
use http::{Response, StatusCode};

use super::{
    companions,
    written::{Written, insert},
};
use crate::{
    admission::Operation,
    body, decode,
    error::ApiError,
    metrics::requests,
    options::WriteOptions,
    ownership::Ownership,
    query::Query,
    registry::Resource,
    respond::Output,
    server::{ApiServer, Context},
    strategy,
    verbs::get::cache_of,
};

/// How often a name is generated anew when it was taken, as upstream.
const GENERATE_ATTEMPTS: usize = 8;
/// How often another address or port is tried when someone else was faster.
const MAX_ATTEMPTS: usize = 100;

/// Creates the object in the body and answers with it as it was stored.
pub async fn create(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(context.headers(), &query)?;
    let options = WriteOptions::parse(&query, "CreateOptions", None)?;
    let sent = body::read_sent(context.headers(), body).await?;
    requests::sent(&context.info, sent.bytes.len());
    let kind = &resource.kind;
    let mut object = decode::object(
        &(&**kind).into(),
        &sent,
        options.field_validation,
        &context.warnings,
    )?;
    context.audit_request(|| object.to_value());
    let meta = object.meta_mut();
    strategy::wipe_system_fields(meta);
    strategy::match_namespace(meta, kind.namespaced, &context.info.namespace)?;
    strategy::drop_duplicate_owners(meta, false, &context.warnings);
    Ownership::new(server.registry(), context, resource, &options.field_manager)
        .of_created(&mut *object);
    let written = create_object(server, context, resource, object, &options).await?;
    written.respond(&output, StatusCode::CREATED, resource)
}

/// Admits, prepares, validates and stores a decoded object that says who owns what of it.
pub async fn create_object(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    mut object: Box<dyn Object>,
    options: &WriteOptions,
) -> Result<Written, ApiError> {
    let kind = &resource.kind;
    let cache = cache_of(resource)?;
    let given_name = object.meta().name.clone().unwrap_or_default();
    let json = options.to_json("CreateOptions");
    let mut attributes =
        context.attributes(resource, Operation::Create, &given_name, options.dry_run);
    attributes.options = &json;
    let admission = server.admission();
    admission
        .admit(&attributes, Some(&mut *object), None)
        .await?;
    strategy::drop_duplicate_owners(object.meta_mut(), true, &context.warnings);
    let generate = given_name.is_empty() && object.meta().name.is_none();
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    // What is given to an object is chosen anew at each attempt.
    let has_companions = companions::has_any(server, &*object);
    let admitted = has_companions.then(|| object.clone_object());
    for attempt in 1.. {
        if let Some(admitted) = &admitted {
            server.registry().fresh().await?;
            object = admitted.clone_object();
        }
        let companions = companions::create(server, &mut *object).await?;
        strategy::prepare_for_create(kind, &mut *object, generate);
        strategy::validate_create(kind, &*object, &context.warnings)?;
        let name = object.meta().name.clone().unwrap_or_default();
        admission
            .validate(&attributes, Some(&*object), None)
            .await?;
        let key = cache.key(&namespace, &name);
        if options.dry_run {
            server.registry().fresh().await?;
            return match cache.get(&key) {
                Some(_) => Err(ApiError::already_exists(&**kind, &name)),
                None => Ok(Written::Imagined(object)),
            };
        }
        let value = strategy::to_bytes(resource, &*object);
        match insert(server.registry(), key.as_str().into(), value, companions).await {
            Ok(entry) => return Ok(Written::Stored(entry.into())),
            Err(Error::Conflict { key: taken, .. }) if *taken != key && attempt < MAX_ATTEMPTS => {}
            Err(Error::Conflict { .. }) if generate && attempt < GENERATE_ATTEMPTS => {}
            Err(Error::Conflict { .. }) if generate => {
                return Err(ApiError::generate_name_conflict(&**kind, &name));
            }
            Err(Error::Conflict { key: taken, .. }) if *taken != key => {
                return Err(ApiError::internal(format!(
                    "{taken} is taken, again and again"
                )));
            }
            Err(Error::Conflict { .. }) => return Err(ApiError::already_exists(&**kind, &name)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::internal("no name could be generated"))
}
