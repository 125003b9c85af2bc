//! `patch`: a change described as a difference, in one of three forms, or as a configuration to
//! apply.

use axum::body::Body;
use bytes::Bytes;
use coracle_api::{
    Kind, Object, Subresource, decode as api_decode, patch,
    schema::{self, Type},
};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::update::{Change, Owners, change_object, check_name};
use crate::{
    body,
    decode::{self, Expected},
    error::ApiError,
    options::{FieldValidation, WriteOptions},
    ownership::{ApplyRequest, Ownership, read_config},
    query::Query,
    registry::Resource,
    respond::Output,
    server::{ApiServer, Context},
    strategy,
    yaml::Document,
};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

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
    let manager = &request.options.field_manager;
    let ownership = Ownership::new(server.registry(), context, resource, manager);
    let make = |old: Option<&dyn Object>| {
        let mut new = match (request.configuration(), old) {
            (Some(configuration), _) => {
                let applied = ownership.apply(old, &configuration)?;
                request.check_repeated(context)?;
                applied
            }
            (None, Some(old)) => request.apply(context, &expected, old.to_value())?,
            (None, None) => return Err(ApiError::not_found(&**kind, &context.info.name)),
        };
        let meta = new.meta_mut();
        if old.is_none() {
            refuse_uid(kind, meta)?;
        }
        strategy::match_namespace(meta, kind.namespaced, &context.info.namespace)?;
        check_name(meta, &context.info.name)?;
        Ok(new)
    };
    let is_apply = request.configuration().is_some();
    let change = Change {
        subresource,
        options: &request.options,
        create: is_apply && subresource.is_none(),
        uid: None,
        owners: if is_apply {
            Owners::Made
        } else {
            Owners::Tracked
        },
        make: &make,
    };
    let (written, created) = change_object(server, context, resource, &change).await?;
    let code = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    written.respond(&request.output, code, resource)
}

/// An object that is created cannot be asked to have a certain uid.
fn refuse_uid(kind: &Kind, meta: &ObjectMeta) -> Result<(), ApiError> {
    match meta.uid.as_deref().unwrap_or_default() {
        "" => Ok(()),
        uid => Err(ApiError::conflict(
            kind,
            meta.name.as_deref().unwrap_or_default(),
            format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            ),
        )),
    }
}

/// What the client sent.
pub struct PatchRequest {
    pub output: Output,
    pub options: WriteOptions,
    form: Form,
    body: Bytes,
}

enum Form {
    Json,
    Merge,
    /// With what is known of the lists in the kind.
    Strategic(&'static Type),
    /// The configuration.
    Apply(Document),
}

impl PatchRequest {
    /// Reads the patch of an object of `kind`.
    pub async fn read(context: &Context, kind: &Expected, body: Body) -> Result<Self, ApiError> {
        let schema = schema::of_kind(&kind.group, &kind.version, &kind.kind);
        let media_type = body::media_type(context.headers());
        let is_apply = media_type == APPLY_PATCH;
        let mut form = match (media_type, schema) {
            (JSON_PATCH, _) => Form::Json,
            (MERGE_PATCH, _) => Form::Merge,
            (STRATEGIC_PATCH, Some(schema)) => Form::Strategic(schema),
            (APPLY_PATCH, _) => Form::Apply(Document::default()),
            _ => return Err(ApiError::unsupported_patch_type()),
        };
        let query = Query::parse(context.query());
        let output = Output::negotiate(context.headers(), &query)?;
        let body = body::read(body).await?;
        if let Some(record) = &context.audit {
            record.patch(|| serde_yaml_ng::from_slice(&body).unwrap_or_default());
        }
        let options = WriteOptions::parse(&query, "PatchOptions", Some(is_apply))?;
        if is_apply {
            form = Form::Apply(read_config(&body)?);
        }
        Ok(PatchRequest {
            output,
            options,
            form,
            body,
        })
    }

    /// What is to be applied; `None` for the other forms.
    pub fn configuration(&self) -> Option<ApplyRequest<'_>> {
        match &self.form {
            Form::Apply(document) => Some(ApplyRequest {
                config: &document.value,
                force: self.options.force,
            }),
            _ => None,
        }
    }

    /// Applies it to an object and reads the result.
    pub fn apply(
        &self,
        context: &Context,
        kind: &Expected,
        old: Value,
    ) -> Result<Box<dyn Object>, ApiError> {
        let mut problems = Vec::new();
        let patched = match &self.form {
            Form::Json => patch::apply_json(old, &self.body, &mut problems)?,
            Form::Merge => patch::apply_merge(old, &self.body, &mut problems)?,
            Form::Strategic(schema) => {
                let mut patch = api_decode::untyped(&self.body, &mut problems)
                    .map_err(|error| ApiError::bad_request(error.to_string()))?;
                ignore_type(&mut patch);
                patch::apply_strategic(old, patch, schema)?
            }
            Form::Apply(_) => return Err(ApiError::internal("a configuration is no difference")),
        };
        let json = serde_json::to_vec(&patched).map_err(ApiError::internal)?;
        let validation = self.options.field_validation;
        decode::patched(
            kind,
            &json,
            matches!(self.form, Form::Strategic(_)).then_some(&*self.body),
            problems,
            validation,
            &context.warnings,
        )
    }

    /// Keys that stand twice in a configuration are refused, warned about or ignored.
    fn check_repeated(&self, context: &Context) -> Result<(), ApiError> {
        let Form::Apply(document) = &self.form else {
            return Ok(());
        };
        match (self.options.field_validation, document.strict_error()) {
            (FieldValidation::Strict, Some(error)) => Err(ApiError::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: {error}"
            ))),
            (FieldValidation::Warn, Some(_)) => {
                document
                    .repeated
                    .iter()
                    .for_each(|problem| context.warnings.add(problem.clone()));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A strategic merge patch may name any type: upstream merges it into an object of the URL's, of
/// which the type is then said again. Clients patch a scale with `kind: Deployment`.
fn ignore_type(patch: &mut Value) {
    for member in ["apiVersion", "kind"] {
        if let Some(fields) = patch.as_object_mut()
            && fields.get(member).is_some_and(Value::is_string)
        {
            fields.remove(member);
        }
    }
}
