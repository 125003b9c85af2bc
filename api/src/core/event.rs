//! Event.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::strategy::Column;

impl Behaviour for Event {
    const SELECTABLE_FIELDS: &'static [&'static str] = &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];

    fn selectable_fields(&self) -> Vec<String> {
        let involved = &self.involved_object;
        let source = self
            .source
            .as_ref()
            .and_then(|source| source.component.clone())
            .filter(|component| !component.is_empty())
            .or_else(|| self.reporting_component.clone());
        [
            &involved.kind,
            &involved.namespace,
            &involved.name,
            &involved.uid,
            &involved.api_version,
            &involved.resource_version,
            &involved.field_path,
            &self.reason,
            &self.reporting_component,
            &source,
            &self.type_,
        ]
        .map(|field| field.clone().unwrap_or_default())
        .to_vec()
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}
