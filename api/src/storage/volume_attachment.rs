//! VolumeAttachment.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::text,
};

impl Behaviour for VolumeAttachment {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column {
                format: "name",
                ..column(
                    "Attacher",
                    "string",
                    "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned by GetPluginName().",
                )
            },
            column(
                "PV",
                "string",
                "persistentVolumeName represents the name of the persistent volume to attach.",
            ),
            column(
                "Node",
                "string",
                "nodeName represents the node that the volume should be attached to.",
            ),
            column(
                "Attached",
                "boolean",
                "attached indicates the volume is successfully attached. This field must only be set by the entity completing the attach operation, i.e. the external-attacher.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(self.spec.attacher.clone()),
            Value::from(text(&self.spec.source.persistent_volume_name)),
            Value::from(self.spec.node_name.clone()),
            Value::from(self.status.as_ref().is_some_and(|status| status.attached)),
            age(&self.metadata, now),
        ]
    }
}
