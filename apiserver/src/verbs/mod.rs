//! The verbs: one file each, the same for every resource.
//!
//! Enter at [`dispatch`], which chooses by the request's data.

mod binding;
mod companions;
mod create;
mod delete;
mod delete_collection;
mod eviction;
mod get;
mod list;
mod patch;
mod rewrite;
mod scale;
mod unsafe_delete;
mod update;
mod watch;
mod written;

use std::sync::Arc;

use axum::body::Body;
use coracle_api::{Object, Subresource, Verb, kinds};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use crate::{
    body,
    decode::{self, Expected},
    error::ApiError,
    handler::Call,
    metrics::requests,
    options::WriteOptions,
    registry::Resource,
    request_info::RequestInfo,
    respond::{self, Output},
    server::{ApiServer, Context},
};

pub(crate) use rewrite::rewrite;

/// Answers a request for a resource.
pub async fn dispatch(
    server: &ApiServer,
    context: &Context,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let info = &context.info;
    let found = server
        .registry()
        .find(&info.group, &info.version, &info.resource);
    let resource = found.ok_or_else(ApiError::unknown_resource)?;
    let subresource = info.subresource.as_str();
    let verbs = match resource.kind.subresource(subresource) {
        _ if subresource.is_empty() => &resource.kind.verbs,
        Some(subresource) => &subresource.verbs,
        None => return Err(ApiError::unknown_resource()),
    };
    if !resource.kind.namespaced && !info.namespace.is_empty() && info.resource != "namespaces" {
        return Err(ApiError::unknown_resource());
    }
    // A proxy passes on every method, also one that stands for no verb.
    let any_method = subresource == "proxy" && info.verb.is_empty();
    if !any_method && !verbs.iter().any(|verb| serves(*verb, &info.verb)) {
        return Err(ApiError::method_not_allowed());
    }
    if subresource.is_empty() && !is_complete(info, resource.kind.namespaced) {
        return Err(ApiError::method_not_allowed());
    }
    if let Some(warning) = kinds::deprecation(&info.group, &info.version, &info.resource) {
        context.warnings.add(warning.to_owned());
        requests::deprecated(info, subresource);
    }
    let handler = server
        .handlers()
        .find(&info.group, &info.resource, subresource);
    if let Some(handler) = handler {
        let call = Call {
            server,
            context,
            resource: &resource,
            body,
        };
        return handler.handle(call).await;
    }
    match subresource {
        "" => main_resource(server, context, &resource, body).await,
        "status" => part(server, context, &resource, Subresource::Status, body).await,
        "resize" => part(server, context, &resource, Subresource::Resize, body).await,
        "finalize" => part(server, context, &resource, Subresource::Finalize, body).await,
        "approval" => part(server, context, &resource, Subresource::Approval, body).await,
        "ephemeralcontainers" => {
            let part_of = Subresource::EphemeralContainers;
            part(server, context, &resource, part_of, body).await
        }
        "scale" => match info.verb.as_str() {
            "get" => scale::get(server, context, &resource).await,
            "patch" => scale::patch(server, context, &resource, body).await,
            _ => scale::update(server, context, &resource, body).await,
        },
        "binding" => binding::create(server, context, &resource, body).await,
        "eviction" => eviction::create(server, context, &resource, body).await,
        _ => Err(ApiError::unknown_resource()),
    }
}

async fn main_resource(
    server: &ApiServer,
    context: &Context,
    resource: &Arc<Resource>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    if resource.kind.kind == "Binding" {
        return binding::create(server, context, resource, body).await;
    }
    match context.info.verb.as_str() {
        "get" => get::get(server, context, resource).await,
        "list" => list::list(server, context, resource).await,
        "watch" => watch::watch(server, context, resource).await,
        "create" => create::create(server, context, resource, body).await,
        "update" => update::update(server, context, resource, None, body).await,
        "patch" => patch::patch(server, context, resource, None, body).await,
        "deletecollection" => {
            delete_collection::delete_collection(server, context, resource, body).await
        }
        "delete" => delete::delete(server, context, resource, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// A subresource that is a part of the object and has its form.
async fn part(
    server: &ApiServer,
    context: &Context,
    resource: &Arc<Resource>,
    part: Subresource,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    match context.info.verb.as_str() {
        "get" => get::get(server, context, resource).await,
        "patch" => patch::patch(server, context, resource, Some(part), body).await,
        _ => update::update(server, context, resource, Some(part), body).await,
    }
}

/// Whether a verb of the table covers a verb of a request.
fn serves(verb: Verb, requested: &str) -> bool {
    verb.name() == requested
}

/// Whether the path names what the verb is about: one object, or a place for them.
fn is_complete(info: &RequestInfo, namespaced: bool) -> bool {
    let is_placed = !namespaced || !info.namespace.is_empty();
    match info.verb.as_str() {
        "create" => info.name.is_empty() && is_placed,
        "deletecollection" => is_placed,
        "update" | "patch" | "delete" => !info.name.is_empty() && is_placed,
        _ => true,
    }
}

/// Reads a body of a kind that is not the resource's: group, version and kind.
async fn read_foreign(
    context: &Context,
    (group, version, kind): (&str, &str, &str),
    options: &WriteOptions,
    body: Body,
) -> Result<Box<dyn Object>, ApiError> {
    let kind = Expected::body(group, version, kind)?;
    let sent = body::read_sent(context.headers(), body).await?;
    let validation = options.field_validation;
    let object = decode::object(&kind, &sent, validation, &context.warnings)?;
    context.audit_request(|| object.to_value());
    Ok(object)
}

/// Answers that something was done that leaves no object to show.
fn success(output: &Output, code: StatusCode) -> Result<Response<Body>, ApiError> {
    let status = Status {
        code: Some(i32::from(code.as_u16())),
        status: Some("Success".to_owned()),
        ..Status::default()
    };
    respond::status(output, &status)
}
