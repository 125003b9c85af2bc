//! ComponentStatus.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{NAME, column, name},
    zero::{list, text},
};

impl Behaviour for ComponentStatus {
    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Status", "string", "Status of the component conditions"),
            column("Message", "string", "Message of the component conditions"),
            column("Error", "string", "Error of the component conditions"),
        ];
        COLUMNS
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let healthy = list(&self.conditions)
            .iter()
            .find(|condition| condition.type_ == "Healthy");
        let status = match healthy.map(|condition| condition.status.as_str()) {
            None => "Unknown",
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
        };
        vec![
            name(&self.metadata),
            Value::from(status),
            Value::from(healthy.map_or("", |condition| text(&condition.message))),
            Value::from(healthy.map_or("", |condition| text(&condition.error))),
        ]
    }
}
