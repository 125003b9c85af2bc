//! `delete`: an object ends, at once or after its grace period and finalizers.

use std::sync::Arc;

use axum::body::Body;
use coracle_api::Object;
use coracle_store::Error;
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    DeleteOptions, ListMeta, ObjectMeta, Status, StatusDetails,
};

use super::{
    companions,
    written::{remove, replace},
};
use crate::{
    admission::Operation,
    body,
    cache::Entry,
    error::ApiError,
    options,
    query::Query,
    registry::Resource,
    respond::{self, Output},
    server::{ApiServer, Context},
    services::Companions,
    strategy::{self, Deletion},
    verbs::{
        get::{cache_of, current},
        unsafe_delete,
    },
};

/// Deletes the object that the request names.
pub async fn delete(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(context.query());
    let output = Output::negotiate(context.headers(), &query)?;
    let body = body::read_json(context.headers(), body).await?;
    context.audit_json(&body);
    let options = options::delete_options(&body, &query)?;
    let info = &context.info;
    let is_forced = options.ignore_store_read_error_with_cluster_breaking_potential == Some(true);
    // What can be read is deleted as always: upstream ignores the option by default.
    if is_forced && unsafe_delete::applies(server, context, resource).await? {
        return unsafe_delete::delete(server, context, resource, &options, &output).await;
    }
    warn_of_orphans(context, resource, &options);
    let deleted = delete_object(
        server,
        context,
        resource,
        &info.namespace,
        &info.name,
        &options,
    )
    .await?;
    let code = if deleted.gone {
        StatusCode::OK
    } else {
        accepted(&options)
    };
    match &deleted.shown {
        Some(entry) => respond::object(&output, code, resource, entry),
        None => respond::value(
            &Output {
                transform: respond::Transform::None,
                ..output
            },
            code,
            &success(resource, deleted.object.meta()),
        ),
    }
}

/// The result of a deletion.
pub struct Deleted {
    pub object: Box<dyn Object>,
    /// What the client gets; `None`: a `Status`.
    pub shown: Option<Arc<Entry>>,
    /// Whether the object is gone, or only on its way.
    pub gone: bool,
}

/// Deletes an object, or begins to.
pub async fn delete_object(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    let cache = cache_of(resource)?;
    let key = cache.key(namespace, name);
    let dry_run = options
        .dry_run
        .as_ref()
        .is_some_and(|runs| !runs.is_empty());
    let json = serde_json::to_value(options).map_err(ApiError::internal)?;
    let mut attributes = context.attributes(resource, Operation::Delete, name, dry_run);
    attributes.options = &json;
    attributes.namespace = namespace;
    let mut admitted = false;
    loop {
        server.registry().fresh().await?;
        let Some(entry) = current(server.registry(), cache, &key)? else {
            return Err(ApiError::not_found(&*resource.kind, name));
        };
        let old = resource.decode(&entry)?;
        if !admitted {
            server
                .admission()
                .admit(&attributes, None, Some(&*old))
                .await?;
            admitted = true;
        }
        strategy::check_preconditions(&resource.kind, old.meta(), options)?;
        server
            .admission()
            .validate(&attributes, None, Some(&*old))
            .await?;
        let mut object = old;
        let plan = strategy::plan_deletion(&resource.kind, &mut *object, options, &strategy::now());
        let attempt = carry_out(server, resource, &entry, object, plan, dry_run).await;
        match attempt {
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(deleted) => return Ok(deleted),
        }
    }
}

/// Writes what was planned for the object as it stands in `entry`.
async fn carry_out(
    server: &ApiServer,
    resource: &Resource,
    entry: &Arc<Entry>,
    object: Box<dyn Object>,
    plan: Deletion,
    dry_run: bool,
) -> Result<Deleted, Error> {
    let registry = server.registry();
    let shows = resource.kind.deletion_shows_object();
    let (shown, gone) = match plan {
        Deletion::Pending => (Some(entry.clone()), false),
        Deletion::Mark if dry_run => (imagined(resource, entry, &*object), false),
        Deletion::Mark => {
            let value = strategy::to_bytes(resource, &*object);
            let marked = replace(registry, entry, value, Companions::default(), true).await?;
            (Some(Arc::new(marked)), false)
        }
        Deletion::Now => {
            let last = if dry_run {
                entry.clone()
            } else {
                let companions = companions::delete(server, &*object).await?;
                Arc::new(remove(registry, entry, companions).await?)
            };
            let marked = object.meta().deletion_timestamp.is_some();
            let last = if shows && marked {
                imagined(resource, &last, &*object)
            } else {
                Some(last)
            };
            (last.filter(|_| shows), true)
        }
    };
    Ok(Deleted {
        object,
        shown,
        gone,
    })
}

/// The object at the place of `entry`, not written.
fn imagined(resource: &Resource, entry: &Entry, object: &dyn Object) -> Option<Arc<Entry>> {
    let value = strategy::to_bytes(resource, object);
    let imagined = Entry::unindexed_at(entry.key().clone(), value, entry.revision);
    imagined.ok().map(Arc::new)
}

/// The code for an object that is not gone yet: 202 when the client asked in the old way that its
/// dependents go with it.
fn accepted(options: &DeleteOptions) -> StatusCode {
    if options.orphan_dependents == Some(false) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    }
}

/// Warns whoever deletes Jobs without saying what becomes of their Pods.
pub(super) fn warn_of_orphans(context: &Context, resource: &Resource, options: &DeleteOptions) {
    let kind = &resource.kind;
    let is_said = options.propagation_policy.is_some() || options.orphan_dependents.is_some();
    if !is_said && (kind.group.as_str(), kind.kind.as_str()) == ("batch", "Job") {
        context.warnings.add(
            "child pods are preserved by default when jobs are deleted; set \
             propagationPolicy=Background to remove them or set propagationPolicy=Orphan to \
             suppress this warning",
        );
    }
}

pub(super) fn success(resource: &Resource, meta: &ObjectMeta) -> Status {
    Status {
        details: Some(StatusDetails {
            name: meta.name.clone(),
            group: Some(resource.kind.group.clone()).filter(|group| !group.is_empty()),
            kind: Some(resource.kind.resource.clone()),
            uid: meta.uid.clone(),
            ..StatusDetails::default()
        }),
        metadata: ListMeta::default(),
        status: Some("Success".to_owned()),
        ..Status::default()
    }
}
