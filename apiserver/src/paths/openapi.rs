//! `/openapi/v2`, `/openapi/v3` and the documents below it.
//!
//! Tags, hashes, redirections and what is accepted are those of upstream's kube-openapi.

use axum::body::Body;
use bytes::Bytes;
use coracle_api::openapi::Form;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, response};
use jiff::{Timestamp, ToSpan as _, fmt::rfc2822};

use super::not_found;
use crate::{
    error::ApiError,
    openapi::{Wanted, decompressed, relative_url},
    query::Query,
    respond,
    server::{ApiServer, Context},
};

/// The encodings of a version of OpenAPI.
struct Media {
    /// After `application/`; the first that a client accepts is taken.
    accepted: [(&'static str, Form); 3],
    protobuf: &'static str,
}

const V2: Media = Media {
    accepted: [
        ("json", Form::Json),
        (
            "com.github.proto-openapi.spec.v2@v1.0+protobuf",
            Form::Protobuf,
        ),
        (
            "com.github.proto-openapi.spec.v2.v1.0+protobuf",
            Form::Protobuf,
        ),
    ],
    protobuf: "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
};

const V3: Media = Media {
    accepted: [
        ("json", Form::Json),
        (
            "com.github.proto-openapi.spec.v3.v1.0+protobuf",
            Form::Protobuf,
        ),
        (
            "com.github.proto-openapi.spec.v3@v1.0+protobuf",
            Form::Protobuf,
        ),
    ],
    protobuf: "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
};

/// Answers what is below `/openapi/`.
pub async fn answer(
    server: &ApiServer,
    context: &Context,
    parts: &[&str],
) -> Result<Response<Body>, ApiError> {
    match parts {
        ["v2"] => document(server, context, Wanted::V2).await,
        ["v3"] => index(server, context),
        ["v3", path @ ..] => document(server, context, Wanted::V3(path.join("/"))).await,
        _ => Ok(not_found()),
    }
}

fn index(server: &ApiServer, context: &Context) -> Result<Response<Body>, ApiError> {
    let documents = server.openapi().of(&server.registry().table());
    let tag = format!("\"{}\"", documents.index_hash);
    let response = Response::builder().header(header::ETAG, &tag);
    if is_known(context.headers(), &tag) {
        return not_modified(response);
    }
    response
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(documents.index.clone()))
        .map_err(ApiError::internal)
}

async fn document(
    server: &ApiServer,
    context: &Context,
    wanted: Wanted,
) -> Result<Response<Body>, ApiError> {
    let documents = server.openapi().of(&server.registry().table());
    let Some(hash) = documents.hash(&wanted).map(str::to_owned) else {
        return Ok(not_found());
    };
    let media = if wanted == Wanted::V2 { &V2 } else { &V3 };
    let headers = context.headers();
    let Some(form) = media.negotiate(headers) else {
        return Ok(respond::text(StatusCode::NOT_ACCEPTABLE, ""));
    };
    let tag = format!("\"{hash}\"");
    let mut response = Response::builder()
        .header(header::VARY, "Accept")
        .header(header::ETAG, &tag);
    if let Wanted::V3(path) = &wanted
        && let Some(asked) = Query::parse(context.query()).get("hash")
        && !asked.is_empty()
    {
        if asked != hash {
            return moved(&relative_url(path, &hash));
        }
        response = response
            .header(header::CACHE_CONTROL, "public, immutable")
            .header(header::EXPIRES, in_a_year());
    }
    if is_known(headers, &tag) {
        return not_modified(response);
    }
    let content_type = match form {
        Form::Json => "application/json",
        Form::Protobuf => media.protobuf,
    };
    response = response.header(header::CONTENT_TYPE, content_type);
    let gzip = respond::accepts_gzip(headers);
    if gzip {
        response = response
            .header(header::CONTENT_ENCODING, "gzip")
            .header(header::VARY, "Accept-Encoding");
    }
    let server = server.clone();
    let body = tokio::task::spawn_blocking(move || -> std::io::Result<Bytes> {
        let compressed = server.openapi().written(&documents, &wanted, form)?;
        if gzip {
            Ok(compressed)
        } else {
            decompressed(&compressed)
        }
    });
    let body = body.await.map_err(ApiError::internal)?;
    response
        .body(Body::from(body.map_err(ApiError::internal)?))
        .map_err(ApiError::internal)
}

impl Media {
    /// The form that the client prefers; `None` when it takes none.
    fn negotiate(&self, headers: &HeaderMap) -> Option<Form> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .filter(|accept| !accept.is_empty())
            .unwrap_or("*/*");
        let mut clauses: Vec<(f32, &str)> = accept.split(',').map(clause).collect();
        clauses.sort_by(|left, right| right.0.total_cmp(&left.0));
        clauses.iter().find_map(|(_, media_type)| {
            let (of, subtype) = media_type.split_once('/')?;
            let fits = |name| matches!(of, "application" | "*") && matches_name(subtype, name);
            let found = self.accepted.iter().find(|(name, _)| fits(name));
            found.map(|(_, form)| *form)
        })
    }
}

fn matches_name(wanted: &str, name: &str) -> bool {
    wanted == "*" || wanted == name
}

/// The quality of a clause and its media type.
fn clause(clause: &str) -> (f32, &str) {
    let mut parts = clause.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
    (quality.unwrap_or(1.0), media_type)
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH);
    known
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| {
            let is_it =
                |other: &str| other == "*" || other.strip_prefix("W/").unwrap_or(other) == tag;
            tags.split(',').any(|other| is_it(other.trim()))
        })
}

fn not_modified(response: response::Builder) -> Result<Response<Body>, ApiError> {
    response
        .status(StatusCode::NOT_MODIFIED)
        .body(Body::empty())
        .map_err(ApiError::internal)
}

fn moved(url: &str) -> Result<Response<Body>, ApiError> {
    Response::builder()
        .status(StatusCode::MOVED_PERMANENTLY)
        .header(header::VARY, "Accept")
        .header(header::LOCATION, url)
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .body(Body::from(format!(
            "<a href=\"{url}\">Moved Permanently</a>.\n\n"
        )))
        .map_err(ApiError::internal)
}

/// As an HTTP date.
fn in_a_year() -> HeaderValue {
    const HOURS: i64 = 365 * 24;
    let then = Timestamp::now()
        .checked_add(HOURS.hours())
        .unwrap_or(Timestamp::MAX);
    let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&then);
    date.ok()
        .and_then(|date| HeaderValue::from_str(&date).ok())
        .unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(media: &Media, accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        media.negotiate(&headers)
    }

    #[test]
    fn the_form_is_the_first_that_the_client_accepts() {
        let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        assert_eq!(form(&V2, protobuf), Some(Form::Protobuf));
        assert_eq!(form(&V3, protobuf), None);
        assert_eq!(form(&V3, V3.protobuf), Some(Form::Protobuf));
        assert_eq!(form(&V2, "application/json, */*"), Some(Form::Json));
        assert_eq!(form(&V2, "*/*"), Some(Form::Json));
        assert_eq!(form(&V2, ""), Some(Form::Json));
        assert_eq!(form(&V2, "text/plain"), None);
        let mixed = format!("application/json;q=0.5,{protobuf}");
        assert_eq!(form(&V2, &mixed), Some(Form::Protobuf));
    }
}
