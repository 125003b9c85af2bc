//! APIService.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
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

impl Behaviour for APIService {
    const SHAPE: Shape<Self> = shape!(status);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Service",
                "string",
                "The reference to the service that hosts this API endpoint.",
            ),
            column("Available", "string", "Whether this service is available."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let service = spec.and_then(|spec| spec.service.as_ref()).map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", text(&service.namespace), text(&service.name)),
        );
        let conditions = self
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let available = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "Available");
        let available = available.map_or_else(
            || "Unknown".to_owned(),
            |condition| match text(&condition.reason) {
                reason if condition.status != "True" && !reason.is_empty() => {
                    format!("{} ({reason})", condition.status)
                }
                _ => condition.status.clone(),
            },
        );
        vec![
            name(&self.metadata),
            Value::from(service),
            Value::from(available),
            age(&self.metadata, now),
        ]
    }
}
