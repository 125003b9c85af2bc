//! Which representation the client wants, from its `Accept` header and query.

use coracle_api::codec::protobuf;
use http::{HeaderMap, header};

use crate::{error::ApiError, query::Query};

/// What the API speaks, in the order in which it is preferred and listed in errors.
pub const MEDIA_TYPES: [&str; 3] = [JSON, YAML, PROTOBUF];
pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = protobuf::MEDIA_TYPE;

/// An encoding of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    /// Only for what has such a form: custom resources do not, and get JSON.
    Protobuf,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => JSON,
            Media::Yaml => YAML,
            Media::Protobuf => PROTOBUF,
        }
    }
}

/// What the client wants in place of the objects themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    None,
    Table {
        version: MetaVersion,
        include: IncludeObject,
    },
    /// `PartialObjectMetadata`, for single objects and watches.
    Metadata(MetaVersion),
    /// `PartialObjectMetadataList`, for lists.
    MetadataList(MetaVersion),
}

/// The version of `meta.k8s.io` that a transformed answer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What a table row holds beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// How to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub media: Media,
    pub transform: Transform,
    pub pretty: bool,
    /// Whether the client takes gzip.
    pub gzip: bool,
}

impl Output {
    /// For answers that are objects of a resource.
    ///
    /// # Errors
    /// 406 when the client accepts nothing that there is.
    pub fn negotiate(headers: &HeaderMap, query: &Query<'_>) -> Result<Self, ApiError> {
        Output::choose(headers, query, true)
    }

    /// For answers that cannot be transformed, such as a `Status`.
    pub fn negotiate_plain(headers: &HeaderMap, query: &Query<'_>) -> Result<Self, ApiError> {
        Output::choose(headers, query, false)
    }

    /// JSON as it is.
    pub const fn json() -> Self {
        Output {
            media: Media::Json,
            transform: Transform::None,
            pretty: false,
            gzip: false,
        }
    }

    fn choose(headers: &HeaderMap, query: &Query<'_>, transforms: bool) -> Result<Self, ApiError> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mut output = Output {
            gzip: accepts_gzip(headers),
            ..Output::json()
        };
        if !accept.is_empty() {
            let (media, transform, pretty) = clauses(accept)
                .iter()
                .find_map(|clause| clause.accept(transforms))
                .ok_or_else(|| ApiError::not_acceptable(&MEDIA_TYPES))?;
            (output.media, output.transform, output.pretty) = (media, transform, pretty);
        }
        if let Transform::Table { include, .. } = &mut output.transform {
            *include = include_object(query)?;
        }
        output.pretty |= is_pretty(headers, query);
        Ok(output)
    }
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|encodings| encodings.split(',').any(|token| token.trim() == "gzip"))
}

fn include_object(query: &Query<'_>) -> Result<IncludeObject, ApiError> {
    match query.get("includeObject").unwrap_or_default() {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        "None" => Ok(IncludeObject::None),
        other => Err(ApiError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

/// People who look with a browser or curl get indented JSON.
fn is_pretty(headers: &HeaderMap, query: &Query<'_>) -> bool {
    match query.get("pretty") {
        Some(value) if !value.is_empty() => {
            matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
        }
        _ => headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|agent| {
                ["curl", "Wget", "Mozilla/5.0"]
                    .iter()
                    .any(|human| agent.starts_with(human))
            }),
    }
}

/// One alternative of an `Accept` header.
struct Clause<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

/// The alternatives, best first.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let mut parameters: Vec<(&str, &str)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
                .collect();
            let quality = parameters
                .iter()
                .find(|(key, _)| *key == "q")
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(1.0);
            parameters.retain(|(key, _)| *key != "q");
            Clause {
                media_type,
                parameters,
                quality,
            }
        })
        .filter(|clause| !clause.media_type.is_empty())
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

impl Clause<'_> {
    fn accept(&self, transforms: bool) -> Option<(Media, Transform, bool)> {
        let media = match self.media_type {
            JSON | "application/*" | "*/*" => Media::Json,
            YAML => Media::Yaml,
            PROTOBUF => Media::Protobuf,
            _ => return None,
        };
        let parameter = |name| {
            let found = self.parameters.iter().find(|(key, _)| *key == name);
            found.map_or("", |(_, value)| *value)
        };
        if !matches!(parameter("stream"), "" | "watch") || !parameter("sv").is_empty() {
            return None;
        }
        let transform = match (parameter("as"), parameter("g"), parameter("v")) {
            ("", "", "") => Transform::None,
            (kind, "meta.k8s.io", version) if transforms => {
                let version = match version {
                    "v1" => MetaVersion::V1,
                    "v1beta1" => MetaVersion::V1Beta1,
                    _ => return None,
                };
                match kind {
                    // Upstream has no protobuf form of it either.
                    "Table" if media == Media::Protobuf => return None,
                    "Table" => Transform::Table {
                        version,
                        include: IncludeObject::Metadata,
                    },
                    "PartialObjectMetadata" => Transform::Metadata(version),
                    "PartialObjectMetadataList" => Transform::MetadataList(version),
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((media, transform, parameter("pretty") == "1"))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn negotiate(accept: &'static str, query: &str) -> Result<Output, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        Output::negotiate(&headers, &Query::parse(query))
    }

    #[test]
    fn the_first_acceptable_alternative_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(
            negotiate(table, "includeObject=Object").unwrap().transform,
            Transform::Table {
                version: MetaVersion::V1,
                include: IncludeObject::Object
            }
        );
        let plain = negotiate(
            "application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json",
            "",
        );
        assert_eq!(plain.unwrap(), Output::json());
        assert_eq!(
            negotiate("application/json;q=0.1,application/yaml", "")
                .unwrap()
                .media,
            Media::Yaml
        );
        assert!(negotiate("*/*", "pretty=true").unwrap().pretty);
        assert_eq!(negotiate("text/plain", "").unwrap_err().code(), 406);
        assert_eq!(
            negotiate(table, "includeObject=All").unwrap_err().code(),
            400
        );
    }
}
