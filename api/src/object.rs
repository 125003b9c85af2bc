//! An object of some kind, with the type behind a trait: what the generic verbs work on.

use std::any::Any;

use k8s_openapi::{
    Metadata, Resource,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Any object that the API serves. Every `k8s-openapi` kind is one.
pub trait Object: Any + Send + Sync {
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// Appends the object as JSON; `apiVersion`, `kind` and `metadata` come first, in this order.
    fn write_json(&self, out: &mut Vec<u8>);
    fn to_value(&self) -> Value;
    fn clone_object(&self) -> Box<dyn Object>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// A built-in type that can be an [`Object`].
pub trait Typed:
    Resource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Default
    + PartialEq
    + Send
    + Sync
    + 'static
{
}

impl<T> Typed for T where
    T: Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Default
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// The time that was never set, where upstream has no pointer and the type here no `None`.
pub(crate) const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Whether a time was never set.
pub(crate) fn is_zero_time(time: &Time) -> bool {
    time.0.as_second() == -62_135_596_800
}

/// Upstream writes `null` for such a time. Only conditions have one.
fn write_zero_times_as_null(out: &mut Vec<u8>, start: usize) {
    const ZERO: &[u8] = br#""lastTransitionTime":"0001-01-01T00:00:00Z""#;
    const NULL: &[u8] = br#""lastTransitionTime":null"#;
    let mut from = start;
    while let Some(at) = memchr::memmem::find(&out[from..], ZERO) {
        let at = from + at;
        out.splice(at..at + ZERO.len(), NULL.iter().copied());
        from = at + NULL.len();
    }
}

/// The object as its type.
///
/// # Panics
/// When it is of another kind. Whoever calls has looked the kind up in the table.
pub fn expect<T: Typed>(object: &dyn Object) -> &T {
    object
        .as_any()
        .downcast_ref()
        .unwrap_or_else(|| panic!("the object is no {}", T::KIND))
}

impl<T: Typed> Object for T {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        serde_json::to_writer(&mut *out, self).expect("a typed object always serialises");
        write_zero_times_as_null(out, start);
    }

    fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("a typed object always serialises")
    }

    fn clone_object(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;
    use crate::decode;

    #[test]
    fn a_time_that_was_never_set_is_null() {
        let json = br#"{"metadata":{"name":"s"},"status":{"conditions":[{"type":"A","status":"True","reason":"r","message":"m"}]}}"#;
        let service: Service = decode::from_slice(json, &mut Vec::new()).unwrap();
        let mut out = Vec::new();
        service.write_json(&mut out);
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.contains(r#""lastTransitionTime":null"#), "{text}");
        let again: Service = decode::from_slice(&out, &mut Vec::new()).unwrap();
        assert_eq!(again, service);
        let conditions = again.status.unwrap().conditions.unwrap();
        assert!(is_zero_time(&conditions[0].last_transition_time));
    }
}
