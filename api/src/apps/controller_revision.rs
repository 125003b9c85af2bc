//! ControllerRevision.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for ControllerRevision {
    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Controller", "string", "Controller of the object"),
            column(
                "Revision",
                "string",
                "Revision indicates the revision of the state represented by Data.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let owners = self.metadata.owner_references.as_ref();
        let controller = owners
            .into_iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        let controller = controller.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let kind = match owner.api_version.split_once('/') {
                    Some((group, _)) => format!("{}.{group}", owner.kind),
                    None => owner.kind.clone(),
                };
                format!("{}/{}", kind.to_lowercase(), owner.name)
            },
        );
        vec![
            name(&self.metadata),
            Value::from(controller),
            Value::from(self.revision),
            age(&self.metadata, now),
        ]
    }
}
