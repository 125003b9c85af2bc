//! ResourceSlice.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::text,
};

impl Behaviour for ResourceSlice {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    const SELECTABLE_FIELDS: &'static [&'static str] = &["spec.nodeName", "spec.driver"];

    fn selectable_fields(&self) -> Vec<String> {
        vec![
            self.spec.node_name.clone().unwrap_or_default(),
            self.spec.driver.clone(),
        ]
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Node",
                "string",
                "NodeName identifies the node which provides the resources in this pool. A field selector can be used to list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access from nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new nodes of the same type as some old node might also make new resources available.\n\nExactly one of NodeName, NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
            ),
            column(
                "Driver",
                "string",
                "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end with a DNS domain owned by the vendor of the driver. It should use only lower case characters. This field is immutable.",
            ),
            column(
                "Pool",
                "string",
                "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains separated by slashes. This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(text(&self.spec.node_name)),
            Value::from(self.spec.driver.clone()),
            Value::from(self.spec.pool.name.clone()),
            age(&self.metadata, now),
        ]
    }
}
