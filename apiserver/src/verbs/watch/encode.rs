//! Watch events as bytes.

use std::sync::Arc;

use bytes::BytesMut;
use coracle_api::codec::protobuf;
use coracle_store::Revision;

use crate::{
    cache::WatchEvent,
    error::ApiError,
    metrics::watches::Events,
    registry::Resource,
    respond::{self, JSON, Media, Output, Transform},
};

/// Writes events in the negotiated form.
pub struct Encoder {
    output: Output,
    resource: Arc<Resource>,
    /// Whether no object was written yet: the first table names its columns.
    first: bool,
    events: Events,
}

impl Encoder {
    pub fn new(mut output: Output, resource: Arc<Resource>, events: Events) -> Self {
        let kind = &resource.kind;
        if output.media == Media::Protobuf
            && !protobuf::is_supported(&kind.api_version(), &kind.kind)
        {
            output.media = Media::Json;
        }
        Encoder {
            output,
            resource,
            first: true,
            events,
        }
    }

    /// The type of the stream.
    pub fn content_type(&self) -> &'static str {
        match self.output.media {
            Media::Json | Media::Yaml => JSON,
            Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    /// Appends an event about an object.
    pub fn event(&mut self, out: &mut BytesMut, event: &WatchEvent) {
        let before = out.len();
        self.encode(out, event);
        self.events.sent(out.len() - before);
    }

    fn encode(&mut self, out: &mut BytesMut, event: &WatchEvent) {
        let plain = self.output.transform == Transform::None && self.resource.conversion.is_none();
        if self.output.media == Media::Protobuf {
            let encoded = if plain && event.revision == event.entry.revision {
                event.entry.protobuf().map_err(ApiError::internal)
            } else {
                self.derived(event).and_then(|json| {
                    let bytes = protobuf::from_json(&json).map_err(ApiError::internal)?;
                    Ok(bytes.into())
                })
            };
            match encoded {
                Ok(object) => {
                    let name = event.event_type.name();
                    out.extend_from_slice(&protobuf::encoded_watch_frame(name, &object));
                }
                Err(error) => self.error(out, &error),
            }
            return;
        }
        if plain {
            open(out, event.event_type.name());
            event.entry.write_json(event.revision, out);
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
        let metadata = bookmark_metadata(revision, initial_end);
        let object = match self.output.transform {
            Transform::None => {
                let (kind, version) = (&self.resource.kind.kind, self.resource.kind.api_version());
                format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata}}}"#)
            }
            Transform::Metadata(version) | Transform::MetadataList(version) => format!(
                r#"{{"kind":"PartialObjectMetadata","apiVersion":"{}","metadata":{metadata}}}"#,
                version.api_version()
            ),
            Transform::Table { version, .. } => {
                let version = version.api_version();
                format!(
                    r#"{{"kind":"Table","apiVersion":"{version}","metadata":{{"resourceVersion":"{revision}"}},"columnDefinitions":[],"rows":[{{"cells":[],"object":{{"kind":"PartialObjectMetadata","apiVersion":"{version}","metadata":{metadata}}}}}]}}"#
                )
            }
        };
        let before = out.len();
        self.object(out, "BOOKMARK", object.as_bytes());
        self.events.sent(out.len() - before);
    }

    /// Appends an error, after which the stream ends.
    pub fn error(&self, out: &mut BytesMut, error: &ApiError) {
        // A status always serialises.
        let status = serde_json::to_vec(&error.0).unwrap_or_default();
        self.object(out, "ERROR", &status);
    }

    /// Appends an event around an object that is JSON.
    fn object(&self, out: &mut BytesMut, event_type: &str, json: &[u8]) {
        if self.output.media == Media::Protobuf {
            match protobuf::watch_frame(event_type, json) {
                Ok(frame) => out.extend_from_slice(&frame),
                Err(error) => tracing::error!(%error, event_type, "cannot be encoded"),
            }
            return;
        }
        open(out, event_type);
        out.extend_from_slice(json);
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
