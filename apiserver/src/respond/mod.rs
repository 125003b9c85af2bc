//! Answers: objects and lists in the representation that the client accepts.
//!
//! Enter at [`object`] and [`list`]; [`Output`] is what was negotiated. JSON is sent as the
//! bytes that the watch cache shares with the store; every other form is derived here.

mod body;
mod computed;
mod negotiate;
mod pretty;
mod table;

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use coracle_api::{
    Object,
    codec::protobuf::{self, ProtobufError},
};
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Serialize;

pub use body::Pieces;
pub use computed::{computed, computed_list};
pub use negotiate::{
    IncludeObject, JSON, MEDIA_TYPES, Media, MetaVersion, Output, PROTOBUF, Transform, YAML,
    accepts_gzip,
};
pub use table::Row;

use body::{Gzip, Piece};

use crate::{cache::Entry, error::ApiError, registry::Resource};

/// Bodies above this size are compressed for clients that take gzip, as upstream.
const GZIP_THRESHOLD: u64 = 128 << 10;

/// What the metadata of a list says.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    pub resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<i64>,
}

/// Answers with one object of a resource, from the cache.
pub fn object(
    output: &Output,
    code: StatusCode,
    resource: &Resource,
    entry: &Entry,
) -> Result<Response<Body>, ApiError> {
    let json = match output.transform {
        Transform::None => resource.json(entry)?,
        _ => transformed(output.transform, resource, entry, true)?,
    };
    send(output, code, Pieces::one(json))
}

/// Answers with an object that a dry run would have stored.
pub fn imagined(
    output: &Output,
    code: StatusCode,
    resource: &Resource,
    object: &dyn Object,
) -> Result<Response<Body>, ApiError> {
    let metadata = || serde_json::to_vec(object.meta()).map_err(ApiError::internal);
    let json = match output.transform {
        Transform::None => return loose_object(output, code, object),
        Transform::Metadata(version) => table::partial(version, &metadata()?),
        Transform::MetadataList(_) => return Err(no_list(resource)),
        Transform::Table { version, include } => {
            let kind = &resource.kind;
            let list = match &object.meta().resource_version {
                Some(revision) => format!(r#"{{"resourceVersion":"{revision}"}}"#),
                None => "{}".to_owned(),
            };
            let mut json = Vec::new();
            if include == IncludeObject::Object {
                object.write_json(&mut json);
            }
            let row = Row {
                object,
                metadata: &metadata()?,
                json: &json,
            };
            let mut out = Vec::new();
            table::write_head(&mut out, kind, version, list.as_bytes(), true);
            table::write_row(&mut out, kind, version, include, &row, Timestamp::now());
            out.extend_from_slice(table::TAIL);
            out.into()
        }
    };
    json_bytes(output, code, json)
}

/// Answers with an object that is not in the cache: the result of a subresource of another kind.
pub fn loose_object(
    output: &Output,
    code: StatusCode,
    object: &dyn Object,
) -> Result<Response<Body>, ApiError> {
    let mut json = Vec::new();
    object.write_json(&mut json);
    json_bytes(output, code, json.into())
}

/// Answers with JSON of which there is no other form than encodings.
pub fn json_bytes(
    output: &Output,
    code: StatusCode,
    json: Bytes,
) -> Result<Response<Body>, ApiError> {
    send(output, code, Pieces::one(json))
}

/// Answers with anything that serialises.
pub fn value(
    output: &Output,
    code: StatusCode,
    value: &impl Serialize,
) -> Result<Response<Body>, ApiError> {
    let json = serde_json::to_vec(value).map_err(ApiError::internal)?;
    json_bytes(output, code, json.into())
}

/// Answers with an object that is made for this answer only. Such have no columns to be shown in.
pub fn review(output: &Output, review: &impl Serialize) -> Result<Response<Body>, ApiError> {
    if matches!(output.transform, Transform::Table { .. }) {
        return Err(ApiError::not_acceptable(&MEDIA_TYPES));
    }
    value(output, StatusCode::CREATED, review)
}

/// Answers with objects of a resource.
pub fn list(
    output: &Output,
    resource: &Resource,
    entries: &[Arc<Entry>],
    meta: &ListMeta,
) -> Result<Response<Body>, ApiError> {
    let metadata = serde_json::to_vec(meta).map_err(ApiError::internal)?;
    let (kind, version) = (resource.kind.list_kind(), resource.kind.api_version());
    let pieces = match output.transform {
        // Object by object: the whole list as parsed JSON would be many times its size.
        Transform::None
            if output.media == Media::Protobuf
                && resource.conversion.is_none()
                && protobuf::is_supported(&version, &kind) =>
        {
            let metadata = serde_json::to_value(meta).map_err(ApiError::internal)?;
            let items = entries.iter().map(|entry| entry.protobuf_once());
            let list = protobuf::list(&version, &kind, &metadata, items);
            let list = Pieces::one(list.map_err(ApiError::internal)?.into());
            return deliver(output, StatusCode::OK, list, output.media.content_type());
        }
        Transform::None => {
            let type_meta = type_meta(resource);
            let items = entries
                .iter()
                .map(|entry| match resource.conversion {
                    None if entry.stored()[1..].starts_with(&type_meta) => {
                        Ok(Piece::Item(entry.clone(), type_meta.len()))
                    }
                    None => Ok(Piece::Item(entry.clone(), 0)),
                    Some(_) => resource.json(entry).map(|json| item(&json, &type_meta)),
                })
                .collect::<Result<_, ApiError>>()?;
            list_pieces(&kind, &version, &metadata, items)
        }
        Transform::MetadataList(version) => {
            let items = entries
                .iter()
                .map(|entry| Piece::Bytes(table::partial(version, &entry.metadata())))
                .collect();
            let api_version = version.api_version();
            list_pieces("PartialObjectMetadataList", api_version, &metadata, items)
        }
        Transform::Metadata(_) => {
            return Err(not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                resource.kind.list_kind()
            )));
        }
        Transform::Table { version, include } => {
            let table = table_of(resource, entries, &metadata, version, include, true)?;
            Pieces::one(table)
        }
    };
    send(output, StatusCode::OK, pieces)
}

/// What the JSON of an object begins with after its brace. Upstream leaves that out of the items
/// of a list, which says it itself.
fn type_meta(resource: &Resource) -> Vec<u8> {
    let (version, kind) = (resource.kind.api_version(), &resource.kind.kind);
    format!("\"apiVersion\":\"{version}\",\"kind\":\"{kind}\",").into_bytes()
}

/// The object as an item of a list.
fn item(json: &[u8], type_meta: &[u8]) -> Piece {
    let mut item = Vec::with_capacity(json.len());
    item.push(b'{');
    let members = &json[1..];
    item.extend_from_slice(members.strip_prefix(type_meta).unwrap_or(members));
    Piece::Bytes(item.into())
}

/// One object in another form than itself. `first`: a table names its columns.
pub fn transformed(
    transform: Transform,
    resource: &Resource,
    entry: &Entry,
    first: bool,
) -> Result<Bytes, ApiError> {
    match transform {
        Transform::None => resource.json(entry),
        Transform::Metadata(version) => Ok(table::partial(version, &entry.metadata())),
        Transform::MetadataList(_) => Err(no_list(resource)),
        Transform::Table { version, include } => {
            let metadata = format!(r#"{{"resourceVersion":"{}"}}"#, entry.revision);
            let entries = std::slice::from_ref(entry);
            table_of(
                resource,
                entries,
                metadata.as_bytes(),
                version,
                include,
                first,
            )
        }
    }
}

fn table_of<E: std::borrow::Borrow<Entry>>(
    resource: &Resource,
    entries: &[E],
    metadata: &[u8],
    version: MetaVersion,
    include: IncludeObject,
    first: bool,
) -> Result<Bytes, ApiError> {
    let now = Timestamp::now();
    let kind = &resource.kind;
    let mut out = Vec::with_capacity(512 + 512 * entries.len());
    table::write_head(&mut out, kind, version, metadata, first);
    for (index, entry) in entries.iter().enumerate() {
        let entry = entry.borrow();
        let object = resource.decode(entry)?;
        let json = match include {
            IncludeObject::Object => resource.json(entry)?,
            IncludeObject::None | IncludeObject::Metadata => Bytes::new(),
        };
        if index > 0 {
            out.push(b',');
        }
        let row = Row {
            object: &*object,
            metadata: &entry.metadata(),
            json: &json,
        };
        table::write_row(&mut out, kind, version, include, &row, now);
    }
    out.extend_from_slice(table::TAIL);
    Ok(out.into())
}

fn list_pieces(kind: &str, api_version: &str, metadata: &[u8], items: Vec<Piece>) -> Pieces {
    let mut head =
        format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":"#).into_bytes();
    head.extend_from_slice(metadata);
    head.extend_from_slice(br#","items":["#);
    Pieces::list(head.into(), items.into_iter(), Bytes::from_static(b"]}"))
}

fn no_list(resource: &Resource) -> ApiError {
    not_acceptable(format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
        resource.kind.kind
    ))
}

fn not_acceptable(message: String) -> ApiError {
    ApiError::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
}

/// Encodes JSON as negotiated.
fn send(output: &Output, code: StatusCode, pieces: Pieces) -> Result<Response<Body>, ApiError> {
    let (pieces, content_type) = encode(output, pieces)?;
    deliver(output, code, pieces, content_type)
}

/// Sends a body as it is, or compressed.
fn deliver(
    output: &Output,
    code: StatusCode,
    pieces: Pieces,
    content_type: &str,
) -> Result<Response<Body>, ApiError> {
    let mut response = Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, content_type);
    let body = if output.gzip && pieces.length() > GZIP_THRESHOLD {
        response = response
            .header(header::CONTENT_ENCODING, "gzip")
            .header(header::VARY, "Accept-Encoding");
        Body::new(Gzip::new(pieces))
    } else {
        Body::from(pieces)
    };
    response.body(body).map_err(ApiError::internal)
}

/// The encoded form, and its type.
fn encode(output: &Output, pieces: Pieces) -> Result<(Pieces, &'static str), ApiError> {
    let encoded = match (output.media, output.pretty) {
        (Media::Json, false) => pieces,
        (Media::Json, true) => Pieces::one(pretty::indent(&pieces.concat())),
        (Media::Yaml, _) => Pieces::one(pretty::yaml(&pieces.concat())?),
        (Media::Protobuf, _) => {
            let json = pieces.concat();
            match protobuf::from_json(&json) {
                Ok(bytes) => Pieces::one(bytes.into()),
                Err(ProtobufError::UnknownKind { .. }) => return Ok((Pieces::one(json), JSON)),
                Err(error) => return Err(ApiError::internal(error)),
            }
        }
    };
    Ok((encoded, output.media.content_type()))
}

/// Answers with the `Status` of a failed request. Never fails itself.
pub fn error(output: &Output, error: &ApiError) -> Response<Body> {
    let mut response = status(output, &error.0).unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(error.to_string()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    let retry_after = error.0.details.as_ref().and_then(|d| d.retry_after_seconds);
    if let Some(seconds) = retry_after.filter(|seconds| *seconds > 0) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Answers with a `Status`, whose code becomes that of the answer.
pub fn status(output: &Output, status: &Status) -> Result<Response<Body>, ApiError> {
    let code = status
        .code
        .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    value(output, code.unwrap_or(StatusCode::OK), status)
}

/// Answers with text.
pub fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}
