//! One object in all the versions that are served of it.

use std::sync::Arc;

use coracle_api::{
    Kind,
    apply::{Model, Versions},
    schema,
};
use serde_json::Value;

use crate::registry::{Registry, Resource};

/// The versions of the objects of a resource.
pub struct Served<'s> {
    pub registry: &'s Registry,
    pub resource: &'s Resource,
}

impl Served<'_> {
    /// The resource whose objects are these objects in another version.
    fn version(&self, version: &str) -> Option<Arc<Resource>> {
        let stored = self.resource.kind.stored_as();
        let table = self.registry.table();
        let mut kinds = table.kinds().iter();
        let kind =
            kinds.find(|kind| kind.api_version() == version && kind.stored_as() == stored)?;
        table
            .find(&kind.group, &kind.version, &kind.resource)
            .cloned()
    }
}

impl Versions for Served<'_> {
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.version(from)?, self.version(to)?);
        let decoded = from
            .kind
            .strategy
            .decode_value(object, &mut Vec::new())
            .ok()?;
        Some(to.to_served(from.to_stored(decoded)).to_value())
    }

    fn model(&self, version: &str) -> Option<Model> {
        self.version(version)
            .map(|resource| model_of(&resource.kind))
    }
}

/// What the schema says of the objects of a kind.
pub fn model_of(kind: &Kind) -> Model {
    schema::of_kind(&kind.group, &kind.version, &kind.kind)
        .map_or_else(Model::deduced, Model::of_type)
}
