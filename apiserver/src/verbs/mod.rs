//! The verbs: one file each, the same for every resource.
//!
//! Enter at [`dispatch`], which chooses by the request's data.

mod create;
mod delete;
mod delete_collection;
mod get;
mod list;
mod patch;
mod update;
mod watch;
mod written;

use std::sync::Arc;

use axum::body::Body;
use http::Response;

use crate::{
    error::ApiError,
    registry::Resource,
    respond,
    server::{ApiServer, Context},
};

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
    let Some(resource) = found else {
        return Ok(respond::text(
            http::StatusCode::NOT_FOUND,
            "404 page not found\n",
        ));
    };
    if info.subresource.is_empty() {
        main_resource(server, context, &resource, body).await
    } else {
        Err(ApiError::unknown_resource())
    }
}

async fn main_resource(
    server: &ApiServer,
    context: &Context,
    resource: &Arc<Resource>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
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
