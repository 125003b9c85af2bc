//! `update`: an object, or a part of it, becomes what the client sent; and the way that every
//! change of a stored object takes.

use std::sync::Arc;

use axum::body::Body;
use coracle_api::{Kind, Object, Subresource};
use coracle_store::Error;
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    companions,
    create::create_object,
    written::{Written, remove, replace},
};
use crate::{
    admission::Operation,
    authz::Attributes,
    body,
    cache::Entry,
    decode,
    error::{ApiError, MODIFIED},
    metrics::requests,
    options::WriteOptions,
    ownership::{self, Ownership},
    query::Query,
    registry::Resource,
    respond::Output,
    server::{ApiServer, Context},
    services::Companions,
    strategy,
    verbs::get::{cache_of, current},
};

/// Replaces the object, or the part that the subresource is, by the one in the body.
pub async fn update(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    subresource: Option<Subresource>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(context.headers(), &query)?;
    let options = WriteOptions::parse(&query, "UpdateOptions", None)?;
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
    strategy::match_namespace(object.meta_mut(), kind.namespaced, &context.info.namespace)?;
    check_name(object.meta(), &context.info.name)?;
    strategy::drop_duplicate_owners(object.meta_mut(), false, &context.warnings);
    let change = Change {
        subresource,
        options: &options,
        create: kind.create_on_update && subresource.is_none(),
        uid: object.meta().uid.clone(),
        owners: Owners::Tracked,
        make: &|_| Ok(object.clone_object()),
    };
    let (written, created) = change_object(server, context, resource, &change).await?;
    let code = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    written.respond(&output, code, resource)
}

/// Checks that the object has the name of the URL.
pub fn check_name(meta: &ObjectMeta, name: &str) -> Result<(), ApiError> {
    match meta.name.as_deref().unwrap_or_default() {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        given if given == name => Ok(()),
        given => Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
    }
}

/// Makes the new object from the stored one, or from nothing.
pub type Make<'a> =
    &'a (dyn Fn(Option<&dyn Object>) -> Result<Box<dyn Object>, ApiError> + Send + Sync);

/// A change of the object that the request names.
pub struct Change<'a> {
    pub subresource: Option<Subresource>,
    pub options: &'a WriteOptions,
    /// Whether an object that does not exist is created.
    pub create: bool,
    /// The uid that the object must have.
    pub uid: Option<String>,
    pub owners: Owners,
    /// Called again when someone else was faster.
    pub make: Make<'a>,
}

/// Where it is said who owns what of a changed object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever makes the request owns what it changes.
    Tracked,
    /// [`Change::make`] says it.
    Made,
}

/// Carries a change out: reads, makes, admits, validates, writes, and begins again when the
/// object was written meanwhile. Says whether the object was created.
pub async fn change_object(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    change: &Change<'_>,
) -> Result<(Written, bool), ApiError> {
    let cache = cache_of(resource)?;
    let info = &context.info;
    let key = cache.key(&info.namespace, &info.name);
    loop {
        server.registry().fresh().await?;
        let Some(entry) = current(server.registry(), cache, &key)? else {
            let created = create_instead(server, context, resource, change).await?;
            return Ok((created, true));
        };
        match change_entry(server, context, resource, change, &entry).await? {
            Ok(written) => return Ok((written, false)),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// One attempt at a change of the object as it stands in `entry`. The inner error is the
/// store's.
async fn change_entry(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    change: &Change<'_>,
    entry: &Arc<Entry>,
) -> Result<Result<Written, Error>, ApiError> {
    let kind = &resource.kind;
    let name = &context.info.name;
    let mut old = resource.decode(entry)?;
    check_uid(resource, entry, change.uid.as_deref(), old.meta())?;
    let mut new = (change.make)(Some(&*old))?;
    if change.owners == Owners::Tracked {
        ownership(server, context, resource, change).of_changed(&mut *old, &mut *new);
    }
    let dry_run = change.options.dry_run;
    let json = change.options.to_json("UpdateOptions");
    let mut attributes = context.attributes(resource, Operation::Update, name, dry_run);
    attributes.options = &json;
    let admission = server.admission();
    admission
        .admit(&attributes, Some(&mut *new), Some(&*old))
        .await?;
    strategy::drop_duplicate_owners(new.meta_mut(), true, &context.warnings);
    check_version(resource, &mut *new, &*old)?;
    let companions = match change.subresource {
        None => companions::update(server, &mut *new, &*old).await?,
        Some(_) => Companions::default(),
    };
    strategy::prepare_for_update(kind, &mut *new, &*old, change.subresource);
    strategy::validate_update(kind, &*new, &*old, change.subresource, &context.warnings)?;
    admission
        .validate(&attributes, Some(&*new), Some(&*old))
        .await?;
    let ends = strategy::ready_to_go(&*new, &*old);
    if dry_run {
        return Ok(Ok(Written::Imagined(new)));
    }
    ownership::keep_times(&*old, &mut *new, |new| {
        strategy::is_stored_as(resource, new, entry)
    });
    let leaves = new.meta().deletion_timestamp.is_some();
    let value = strategy::into_bytes(resource, new);
    if ends {
        // The last write of an object is seen only in its deletion.
        let last = Entry::unindexed_at(entry.key().clone(), value, entry.revision);
        let last = last.map_err(ApiError::internal)?;
        let gone = companions::delete(server, &*old).await?;
        return Ok(remove(server.registry(), entry, gone)
            .await
            .map(|gone| Written::Stored(last.at_revision(gone.revision).into())));
    }
    if entry.is_stored_as(&value) && !server.registry().store().is_stale(entry.key()).await? {
        return Ok(Ok(Written::Stored(entry.clone())));
    }
    let replaced = replace(server.registry(), entry, value, companions, leaves).await;
    Ok(replaced.map(|entry| Written::Stored(entry.into())))
}

fn ownership<'c>(
    server: &'c ApiServer,
    context: &'c Context,
    resource: &'c Resource,
    change: &Change<'_>,
) -> Ownership<'c> {
    let manager = &change.options.field_manager;
    Ownership::new(server.registry(), context, resource, manager)
}

/// The uid in an object that is sent is a precondition.
fn check_uid(
    resource: &Resource,
    entry: &Entry,
    wanted: Option<&str>,
    meta: &ObjectMeta,
) -> Result<(), ApiError> {
    let uid = meta.uid.as_deref().unwrap_or_default();
    match wanted {
        None | Some("") => Ok(()),
        Some(wanted) if wanted == uid => Ok(()),
        Some(wanted) => Err(invalid_object(
            resource,
            meta.name.as_deref().unwrap_or_default(),
            entry.key(),
            wanted,
            uid,
        )),
    }
}

fn invalid_object(resource: &Resource, name: &str, key: &str, wanted: &str, uid: &str) -> ApiError {
    let why = not_the_one(key, "UID", wanted, uid);
    ApiError::conflict(&*resource.kind, name, why)
}

/// What upstream's store says of an object that is another one than was meant. It knows keys
/// without their common root.
pub fn not_the_one(key: &str, what: &str, wanted: &str, has: &str) -> String {
    let key = key.strip_prefix("/registry").unwrap_or(key);
    format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {has}"
    )
}

/// The resourceVersion in an object that is sent must be the stored one; where the kind allows
/// it, it may be missing.
fn check_version(
    resource: &Resource,
    new: &mut dyn Object,
    old: &dyn Object,
) -> Result<(), ApiError> {
    let kind = &resource.kind;
    let current = &old.meta().resource_version;
    let name = old.meta().name.clone().unwrap_or_default();
    let given = new.meta().resource_version.clone().unwrap_or_default();
    match given.as_str() {
        "" | "0" if kind.unconditional_update => {
            new.meta_mut().resource_version.clone_from(current);
            Ok(())
        }
        "" | "0" => {
            let path = coracle_api::field::Path::new("metadata").child("resourceVersion");
            let errors = vec![path.invalid(0, "must be specified for an update")];
            Err(ApiError::invalid(
                &kind.group,
                &kind.resource,
                &name,
                &errors,
            ))
        }
        given if Some(given) == current.as_deref() => Ok(()),
        // Upstream has no reason for it.
        given => Err(other_version(kind, &name, given)),
    }
}

/// Why a resourceVersion that is not that of the object is refused.
pub(super) fn other_version(kind: &Kind, name: &str, given: &str) -> ApiError {
    if given.parse::<u64>().is_ok() {
        return ApiError::conflict(kind, name, MODIFIED);
    }
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "",
        format!("strconv.ParseUint: parsing {given:?}: invalid syntax"),
    )
}

/// Creates the object that an update did not find, where that is allowed.
async fn create_instead(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    change: &Change<'_>,
) -> Result<Written, ApiError> {
    let name = &context.info.name;
    if !change.create {
        return Err(ApiError::not_found(&*resource.kind, name));
    }
    if let Some(uid) = change.uid.as_deref().filter(|uid| !uid.is_empty()) {
        let key = cache_of(resource)?.key(&context.info.namespace, name);
        return Err(invalid_object(resource, name, &key, uid, ""));
    }
    let mut info = context.info.clone();
    info.verb = "create".to_owned();
    let attributes = Attributes::of_request(&context.user, &info);
    server.allow(&attributes).await?;
    let mut object = (change.make)(None)?;
    let meta = object.meta_mut();
    strategy::wipe_system_fields(meta);
    strategy::match_namespace(meta, resource.kind.namespaced, &context.info.namespace)?;
    if change.owners == Owners::Tracked {
        ownership(server, context, resource, change).of_created(&mut *object);
    }
    create_object(server, context, resource, object, change.options).await
}
