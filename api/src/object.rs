//! An object of some kind, with the type behind a trait: what the generic verbs work on.

use std::any::Any;

use k8s_openapi::{Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
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
        serde_json::to_writer(out, self).expect("a typed object always serialises");
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
