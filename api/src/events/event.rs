//! Event of `events.k8s.io`, and how it is stored: as an Event of the core group.
//!
//! Upstream: `pkg/apis/events/v1/conversion.go`.

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1 as core, events::v1 as events},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use serde_json::Value;

use crate::{
    core::event,
    field::ErrorList,
    kinds::Conversion,
    object::{Object, expect},
    strategy::{Behaviour, Column},
    zero::text,
};

impl Behaviour for events::Event {
    fn validate(&self) -> ErrorList {
        event::strict(&stored(self))
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        event::strict_update(&stored(self), &stored(old))
    }

    const SELECTABLE_FIELDS: &'static [&'static str] = &[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ];

    fn selectable_fields(&self) -> Vec<String> {
        let no_object = core::ObjectReference::default();
        let object = self.regarding.as_ref().unwrap_or(&no_object);
        [
            text(&object.kind),
            text(&object.namespace),
            text(&object.name),
            text(&object.uid),
            text(&object.api_version),
            text(&object.resource_version),
            text(&object.field_path),
            text(&self.reason),
            text(&self.reporting_controller),
            text(&self.type_),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn columns() -> &'static [Column] {
        core::Event::columns()
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        expect::<core::Event>(&*EventConversion.to_stored(self)).cells(now)
    }
}

/// As it is stored, which is how it is validated.
fn stored(event: &events::Event) -> core::Event {
    expect::<core::Event>(EventConversion.to_stored(event).as_ref()).clone()
}

/// The fields differ in name only.
pub(super) struct EventConversion;

impl Conversion for EventConversion {
    fn to_stored(&self, served: &dyn Object) -> Box<dyn Object> {
        let event = expect::<events::Event>(served).clone();
        Box::new(core::Event {
            metadata: event.metadata,
            involved_object: event.regarding.unwrap_or_default(),
            related: event.related,
            message: event.note,
            source: event.deprecated_source,
            first_timestamp: event.deprecated_first_timestamp,
            last_timestamp: event.deprecated_last_timestamp,
            count: event.deprecated_count,
            event_time: event.event_time,
            series: event.series.map(|series| core::EventSeries {
                count: Some(series.count),
                last_observed_time: Some(series.last_observed_time),
            }),
            reporting_component: event.reporting_controller,
            reporting_instance: event.reporting_instance,
            action: event.action,
            reason: event.reason,
            type_: event.type_,
        })
    }

    fn to_served(&self, stored: &dyn Object) -> Box<dyn Object> {
        let event = expect::<core::Event>(stored).clone();
        Box::new(events::Event {
            metadata: event.metadata,
            regarding: Some(event.involved_object),
            related: event.related,
            note: event.message,
            deprecated_source: event.source,
            deprecated_first_timestamp: event.first_timestamp,
            deprecated_last_timestamp: event.last_timestamp,
            deprecated_count: event.count,
            event_time: event.event_time,
            series: event.series.map(|series| events::EventSeries {
                count: series.count.unwrap_or_default(),
                last_observed_time: series
                    .last_observed_time
                    .unwrap_or(MicroTime(Timestamp::UNIX_EPOCH)),
            }),
            reporting_controller: event.reporting_component.filter(|name| !name.is_empty()),
            reporting_instance: event.reporting_instance.filter(|name| !name.is_empty()),
            action: event.action,
            reason: event.reason,
            type_: event.type_,
        })
    }

    fn stored_field(&self, served: &str) -> String {
        match served {
            "reportingController" => "reportingComponent".to_owned(),
            other => other.replace("regarding.", "involvedObject."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_way_to_the_store_and_back() {
        let json = serde_json::json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "web.1", "namespace": "default"},
            "regarding": {"kind": "Pod", "name": "web"},
            "related": {"kind": "Node", "name": "one"},
            "note": "Started", "reason": "Started", "type": "Normal", "action": "Start",
            "eventTime": "2026-01-02T03:04:05.000006Z",
            "series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:06.000000Z"},
            "reportingController": "kubelet", "reportingInstance": "one",
            "deprecatedSource": {"component": "kubelet"},
            "deprecatedFirstTimestamp": "2026-01-02T03:04:05Z",
            "deprecatedLastTimestamp": "2026-01-02T03:04:06Z",
            "deprecatedCount": 2,
        });
        let event: events::Event = serde_json::from_value(json.clone()).unwrap();
        let stored = EventConversion.to_stored(&event);
        assert_eq!(
            expect::<core::Event>(&*stored).message.as_deref(),
            Some("Started")
        );
        assert_eq!(EventConversion.to_served(&*stored).to_value(), json);
    }

    /// The core group always says who reports, be it nobody.
    #[test]
    fn nobody_reports_is_not_said() {
        let stored: core::Event = crate::decode::empty();
        assert_eq!(stored.reporting_component.as_deref(), Some(""));
        let served = EventConversion.to_served(&stored).to_value();
        assert_eq!(served.get("reportingController"), None);
        assert_eq!(served.get("reportingInstance"), None);
    }

    #[test]
    fn events() {
        crate::testing::run::<events::Event>(include_str!("../../testdata/event_v1.yaml"));
    }
}
