//! How `kubectl get` shows an Event.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Event,
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use serde_json::Value;

use crate::{
    strategy::Column,
    table::{NAME, column, name, since, wide},
    zero::text,
};

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    column(
        "Last Seen",
        "string",
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    column(
        "Type",
        "string",
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    column(
        "Reason",
        "string",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    column("Object", "string", "The object that this event is about."),
    wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    wide(
        "Source",
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    column(
        "Message",
        "string",
        "A human-readable description of the status of this operation.",
    ),
    wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    wide("Count", "The number of times this event has occurred."),
    Column {
        priority: 1,
        ..NAME
    },
];

/// The cells.
pub(super) fn cells(event: &Event, now: Timestamp) -> Vec<Value> {
    let micro = |time: Option<&MicroTime>| since(time.map(|time| Time(time.0)).as_ref(), now);
    let first = match &event.first_timestamp {
        Some(time) => since(Some(time), now),
        None => micro(event.event_time.as_ref()),
    };
    let (last, count) = match (&event.series, &event.last_timestamp) {
        (Some(series), _) => (
            micro(series.last_observed_time.as_ref()),
            series.count.unwrap_or_default(),
        ),
        (None, Some(time)) => (
            since(Some(time), now),
            event.count.unwrap_or_default().max(1),
        ),
        (None, None) => (first.clone(), event.count.unwrap_or_default().max(1)),
    };
    let involved = &event.involved_object;
    let kind = text(&involved.kind).to_lowercase();
    let object = match text(&involved.name) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        Value::from(last),
        Value::from(text(&event.type_)),
        Value::from(text(&event.reason)),
        Value::from(object),
        Value::from(text(&involved.field_path)),
        Value::from(source(event)),
        Value::from(text(&event.message).trim()),
        Value::from(first),
        Value::from(count),
        name(&event.metadata),
    ]
}

/// Who reported it: the component, and its instance where that is known.
fn source(event: &Event) -> String {
    let first = |first: &Option<String>, second: &Option<String>| match text(first) {
        "" => text(second).to_owned(),
        first => first.to_owned(),
    };
    let source = event.source.clone().unwrap_or_default();
    let component = first(&source.component, &event.reporting_component);
    match first(&source.host, &event.reporting_instance) {
        host if host.is_empty() => component,
        host => format!("{component}, {host}"),
    }
}
