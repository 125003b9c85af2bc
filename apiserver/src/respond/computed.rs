//! Answers with objects that are in no cache: they were computed for this answer.

use axum::body::Body;
use bytes::Bytes;
use coracle_api::Object;
use http::{Response, StatusCode};
use jiff::Timestamp;

use super::{
    IncludeObject, MetaVersion, Output, Piece, Pieces, Row, Transform, item, list_pieces,
    not_acceptable, send, table, type_meta,
};
use crate::{error::ApiError, registry::Resource};

const NO_METADATA: &[u8] = b"{}";

/// Answers with one object.
pub fn computed(
    output: &Output,
    resource: &Resource,
    object: &dyn Object,
) -> Result<Response<Body>, ApiError> {
    let bytes = match output.transform {
        Transform::None => json(object),
        Transform::Metadata(version) => table::partial(version, &metadata(object)?),
        Transform::MetadataList(_) => {
            return Err(not_acceptable(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                resource.kind.kind
            )));
        }
        Transform::Table { version, include } => table_of(resource, &[object], version, include)?,
    };
    send(output, StatusCode::OK, Pieces::one(bytes))
}

/// Answers with a list of objects.
pub fn computed_list(
    output: &Output,
    resource: &Resource,
    objects: &[Box<dyn Object>],
) -> Result<Response<Body>, ApiError> {
    let objects = || objects.iter().map(|object| &**object);
    let (kind, version) = (resource.kind.list_kind(), resource.kind.api_version());
    let pieces = match output.transform {
        Transform::None => list_pieces(
            &kind,
            &version,
            NO_METADATA,
            objects()
                .map(|object| item(&json(object), &type_meta(resource)))
                .collect(),
        ),
        Transform::MetadataList(version) => {
            let partial = |object| Ok(Piece::Bytes(table::partial(version, &metadata(object)?)));
            let items: Vec<Piece> = objects().map(partial).collect::<Result<_, ApiError>>()?;
            let api_version = version.api_version();
            list_pieces("PartialObjectMetadataList", api_version, NO_METADATA, items)
        }
        Transform::Metadata(_) => {
            return Err(not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({kind})"
            )));
        }
        Transform::Table { version, include } => {
            let objects: Vec<&dyn Object> = objects().collect();
            let table = table_of(resource, &objects, version, include)?;
            Pieces::one(table)
        }
    };
    send(output, StatusCode::OK, pieces)
}

fn json(object: &dyn Object) -> Bytes {
    let mut json = Vec::new();
    object.write_json(&mut json);
    json.into()
}

fn metadata(object: &dyn Object) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(object.meta()).map_err(ApiError::internal)
}

fn table_of(
    resource: &Resource,
    objects: &[&dyn Object],
    version: MetaVersion,
    include: IncludeObject,
) -> Result<Bytes, ApiError> {
    let (now, kind) = (Timestamp::now(), &resource.kind);
    let mut out = Vec::new();
    table::write_head(&mut out, kind, version, NO_METADATA, true);
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let row = Row {
            object: *object,
            metadata: &metadata(*object)?,
            json: &json(*object),
        };
        table::write_row(&mut out, kind, version, include, &row, now);
    }
    out.extend_from_slice(table::TAIL);
    Ok(out.into())
}
