//! Watch events as bytes.

use std::sync::Arc;

use bytes::BytesMut;
use coracle_store::Revision;

use crate::{
    cache::{Entry, WatchEvent},
    error::ApiError,
    registry::Resource,
    respond::{self, JSON, Media, Output, Transform},
};

/// Writes events in the negotiated form.
pub struct Encoder {
    output: Output,
    resource: Arc<Resource>,
    /// Whether no object was written yet: the first table names its columns.
    first: bool,
}

/// The type of a stream of events.
pub fn content_type(output: &Output) -> &'static str {
    match output.media {
        Media::Json => JSON,
        Media::Yaml => "application/yaml;stream=watch",
    }
}

impl Encoder {
    pub fn new(output: Output, resource: Arc<Resource>) -> Self {
        Encoder {
            output,
            resource,
            first: true,
        }
    }

    /// Appends an event about an object.
    pub fn event(&mut self, out: &mut BytesMut, event: &WatchEvent) {
        let plain = self.output.transform == Transform::None && self.resource.conversion.is_none();
        if plain {
            open(out, event.event_type.name());
            at_revision(out, &event.entry, event.revision);
            close(out);
            return;
        }
        match self.derived(event) {
            Ok(json) => {
                open(out, event.event_type.name());
                out.extend_from_slice(&json);
                close(out);
            }
            Err(error) => self.error(out, &error),
        }
    }

    fn derived(&mut self, event: &WatchEvent) -> Result<bytes::Bytes, ApiError> {
        let first = std::mem::replace(&mut self.first, false);
        if event.revision == event.entry.revision {
            return respond::transformed(
                self.output.transform,
                &self.resource,
                &event.entry,
                first,
            );
        }
        let entry = event.entry.at_revision(event.revision);
        respond::transformed(self.output.transform, &self.resource, &entry, first)
    }

    /// Appends a bookmark. `initial_end`: it closes the initial events.
    pub fn bookmark(&mut self, out: &mut BytesMut, revision: Revision, initial_end: bool) {
        let (kind, version) = match self.output.transform {
            Transform::None => (
                self.resource.kind.kind.as_str(),
                self.resource.kind.api_version(),
            ),
            Transform::Metadata(version) | Transform::MetadataList(version) => {
                ("PartialObjectMetadata", version.api_version().to_owned())
            }
            Transform::Table { version, .. } => {
                let metadata = bookmark_metadata(revision, initial_end);
                let api_version = version.api_version();
                open(out, "BOOKMARK");
                out.extend_from_slice(
                    format!(
                        r#"{{"kind":"Table","apiVersion":"{api_version}","metadata":{{"resourceVersion":"{revision}"}},"columnDefinitions":[],"rows":[{{"cells":[],"object":{{"kind":"PartialObjectMetadata","apiVersion":"{api_version}","metadata":{metadata}}}}}]}}"#
                    )
                    .as_bytes(),
                );
                close(out);
                return;
            }
        };
        let metadata = bookmark_metadata(revision, initial_end);
        open(out, "BOOKMARK");
        out.extend_from_slice(
            format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata}}}"#)
                .as_bytes(),
        );
        close(out);
    }

    /// Appends an error, after which the stream ends.
    pub fn error(&self, out: &mut BytesMut, error: &ApiError) {
        open(out, "ERROR");
        // A status always serialises.
        let status = serde_json::to_vec(&error.0).unwrap_or_default();
        out.extend_from_slice(&status);
        close(out);
    }
}

fn bookmark_metadata(revision: Revision, initial_end: bool) -> String {
    let annotations = if initial_end {
        r#","annotations":{"k8s.io/initial-events-end":"true"}"#
    } else {
        ""
    };
    format!(r#"{{"resourceVersion":"{revision}","creationTimestamp":null{annotations}}}"#)
}

fn open(out: &mut BytesMut, event_type: &str) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(event_type.as_bytes());
    out.extend_from_slice(br#"","object":"#);
}

fn close(out: &mut BytesMut) {
    out.extend_from_slice(b"}\n");
}

fn at_revision(out: &mut BytesMut, entry: &Entry, revision: Revision) {
    if entry.revision == revision {
        out.extend_from_slice(&entry.bytes);
        return;
    }
    let (before, after) = entry.around_version();
    out.extend_from_slice(before);
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(after);
}
