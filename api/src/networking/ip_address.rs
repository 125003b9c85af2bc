//! IPAddress.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{NAME, column, name},
    zero::text,
};

impl Behaviour for IPAddress {
    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "ParentRef",
                "string",
                "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent object.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let parent = &self.spec.parent_ref;
        let resource = match text(&parent.group) {
            "" => parent.resource.to_lowercase(),
            group => format!("{}.{group}", parent.resource).to_lowercase(),
        };
        let namespace = match text(&parent.namespace) {
            "" => String::new(),
            namespace => format!("/{namespace}"),
        };
        let parent = format!("{resource}{namespace}/{}", parent.name);
        vec![name(&self.metadata), Value::from(parent)]
    }
}
