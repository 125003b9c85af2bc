//! `patch`: a change described as a difference, in one of three forms.

use axum::body::Body;
use bytes::Bytes;
use coracle_api::{
    Object, Subresource, decode as api_decode, patch,
    schema::{self, Type},
};
use http::{Response, StatusCode};
use serde_json::Value;

use super::update::{Change, change_object, check_name};
use crate::{
    body,
    decode::{self, Expected},
    error::ApiError,
    options::WriteOptions,
    query::Query,
    registry::Resource,
    respond::Output,
    server::{ApiServer, Context},
    strategy,
};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";

/// Changes the object, or the part that the subresource is, as the body says.
pub async fn patch(
    server: &ApiServer,
    context: &Context,
    resource: &Resource,
    subresource: Option<Subresource>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let kind = &resource.kind;
    let expected = Expected::from(&**kind);
    let request = PatchRequest::read(context, &expected, body).await?;
    let make = |old: Option<&dyn Object>| {
        let old = old.ok_or_else(|| ApiError::not_found(&**kind, &context.info.name))?;
        let mut new = request.apply(context, &expected, old.to_value())?;
        let meta = new.meta_mut();
        strategy::match_namespace(meta, kind.namespaced, &context.info.namespace)?;
        check_name(meta, &context.info.name)?;
        Ok(new)
    };
    let change = Change {
        subresource,
        options: &request.options,
        create: false,
        uid: None,
        make: &make,
    };
    let (written, _) = change_object(server, context, resource, &change).await?;
    written.respond(&request.output, StatusCode::OK, resource)
}

/// What the client sent.
pub struct PatchRequest {
    pub output: Output,
    pub options: WriteOptions,
    form: Form,
    body: Bytes,
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Merge,
    /// With what is known of the lists in the kind.
    Strategic(&'static Type),
}

impl PatchRequest {
    /// Reads the patch of an object of `kind`.
    pub async fn read(context: &Context, kind: &Expected, body: Body) -> Result<Self, ApiError> {
        let schema = schema::of_kind(&kind.group, &kind.version, &kind.kind);
        let form = match (body::media_type(context.headers()), schema) {
            (JSON_PATCH, _) => Form::Json,
            (MERGE_PATCH, _) => Form::Merge,
            (STRATEGIC_PATCH, Some(schema)) => Form::Strategic(schema),
            (_, Some(_)) => {
                let accepted = [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH];
                return Err(ApiError::unsupported_media_type(&accepted));
            }
            (_, None) => {
                return Err(ApiError::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH]));
            }
        };
        let query = Query::parse(context.query());
        Ok(PatchRequest {
            output: Output::negotiate(context.headers(), &query)?,
            body: body::read(body).await?,
            options: WriteOptions::parse(&query, "PatchOptions", Some(false))?,
            form,
        })
    }

    /// Applies it to an object and reads the result.
    pub fn apply(
        &self,
        context: &Context,
        kind: &Expected,
        old: Value,
    ) -> Result<Box<dyn Object>, ApiError> {
        let mut problems = Vec::new();
        let patched = match self.form {
            Form::Json => patch::apply_json(old, &self.body, &mut problems)?,
            Form::Merge => patch::apply_merge(old, &self.body, &mut problems)?,
            Form::Strategic(schema) => {
                let patch = api_decode::untyped(&self.body, &mut problems)
                    .map_err(|error| ApiError::bad_request(error.message))?;
                patch::apply_strategic(old, patch, schema)?
            }
        };
        let json = serde_json::to_vec(&patched).map_err(ApiError::internal)?;
        let validation = self.options.field_validation;
        decode::patched(kind, &json, problems, validation, &context.warnings)
    }
}
