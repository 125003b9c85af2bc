//! Event, as it is stored and as both groups validate it.

mod table;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSeries, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use crate::{
    check,
    field::{ErrorList, Path},
    internal,
    object::is_zero_time,
    strategy::{Behaviour, Column},
    zero::text,
};

const MAX_LENGTH: usize = 128;
const MAX_NOTE_LENGTH: usize = 1024;

impl Behaviour for Event {
    fn validate(&self) -> ErrorList {
        common(self, "reportingComponent")
    }

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
        let object = &self.involved_object;
        let reporter = text(&self.reporting_component);
        let source = self
            .source
            .as_ref()
            .map_or("", |source| text(&source.component));
        [
            text(&object.kind),
            text(&object.namespace),
            text(&object.name),
            text(&object.uid),
            text(&object.api_version),
            text(&object.resource_version),
            text(&object.field_path),
            text(&self.reason),
            reporter,
            if source.is_empty() { reporter } else { source },
            text(&self.type_),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

/// What is wrong with an Event of any age. `reporter` is the field's name in the group.
pub fn common(event: &Event, reporter: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let namespace = text(&event.metadata.namespace);
    let object_namespace = text(&event.involved_object.namespace);
    let may_be_elsewhere = if object_namespace.is_empty() {
        // What is in no namespace has its Events in the default one.
        matches!(namespace, "" | "default")
            || (event.event_time.is_some() && namespace == "kube-system")
    } else {
        namespace == object_namespace || event.event_time.is_some()
    };
    if !may_be_elsewhere {
        errors.push(
            Path::new("involvedObject.namespace")
                .invalid(object_namespace, "does not match event.namespace"),
        );
    }
    if event.event_time.is_some() {
        of_new_api(event, reporter, &mut errors);
    }
    check::subdomain(namespace, &Path::new("namespace"), &mut errors);
    errors
}

/// Events with a time of their own say who reports what.
fn of_new_api(event: &Event, reporter: &str, errors: &mut ErrorList) {
    let reporter_path = Path::new(reporter);
    let controller = text(&event.reporting_component);
    check::required(controller, &reporter_path, errors);
    check::qualified_name(controller, &reporter_path, errors);
    for (field, value) in [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ] {
        let (path, value) = (Path::new(field), text(value));
        check::required(value, &path, errors);
        if value.len() > MAX_LENGTH {
            errors.push(path.invalid("", format!("can have at most {MAX_LENGTH} characters")));
        }
    }
    if text(&event.message).len() > MAX_NOTE_LENGTH {
        errors.push(
            Path::new("message")
                .invalid("", format!("can have at most {MAX_NOTE_LENGTH} characters")),
        );
    }
}

/// What else is wrong with a new Event of `events.k8s.io`.
pub fn strict(event: &Event) -> ErrorList {
    let mut errors = common(event, "reportingController");
    series(event.series.as_ref(), &mut errors);
    if event.event_time.is_none() {
        errors.push(Path::new("eventTime").required(""));
    }
    let event_type = text(&event.type_);
    if !matches!(event_type, "Normal" | "Warning") {
        errors.push(Path::new("type").invalid("", format!("has invalid value: {event_type}")));
    }
    let source = event.source.as_ref();
    for (field, is_set) in [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.unwrap_or(0) != 0),
        (
            "source",
            source.is_some_and(|source| *source != EventSource::default()),
        ),
    ] {
        if is_set {
            errors.push(Path::new(field).invalid("", "needs to be unset"));
        }
    }
    errors
}

fn series(series: Option<&EventSeries>, errors: &mut ErrorList) {
    let Some(series) = series else { return };
    if series.count.unwrap_or(0) < 2 {
        errors.push(Path::new("series.count").invalid("", "should be at least 2"));
    }
    let observed = series.last_observed_time.as_ref();
    if observed.is_none_or(|time| is_zero_time(&Time(time.0))) {
        errors.push(Path::new("series.lastObservedTime").required(""));
    }
}

/// What is wrong with a change of an Event of `events.k8s.io`: only the series grows.
pub fn strict_update(new: &Event, old: &Event) -> ErrorList {
    let mut errors = common(new, "reportingController");
    let errors = &mut errors;
    if new.series != old.series {
        series(new.series.as_ref(), errors);
    }
    let (involved, old_involved) = (&new.involved_object, &old.involved_object);
    let path = Path::new("involvedObject");
    internal::immutable("ObjectReference", involved, old_involved, &path, errors);
    texts(&[("reason", &new.reason, &old.reason)], errors);
    texts(&[("message", &new.message, &old.message)], errors);
    check::immutable(&new.source, &old.source, &Path::new("source"), errors);
    for (field, new, old) in [
        ("firstTimestamp", &new.first_timestamp, &old.first_timestamp),
        ("lastTimestamp", &new.last_timestamp, &old.last_timestamp),
    ] {
        check::immutable(new, old, &Path::new(field), errors);
    }
    check::immutable(&new.count, &old.count, &Path::new("count"), errors);
    // Upstream says it twice.
    texts(&[("reason", &new.reason, &old.reason)], errors);
    texts(&[("type", &new.type_, &old.type_)], errors);
    check::immutable(
        &new.event_time,
        &old.event_time,
        &Path::new("eventTime"),
        errors,
    );
    texts(&[("action", &new.action, &old.action)], errors);
    let related: [&Option<ObjectReference>; 2] = [&new.related, &old.related];
    let path = Path::new("related");
    internal::immutable("ObjectReference", related[0], related[1], &path, errors);
    texts(
        &[
            (
                "reportingController",
                &new.reporting_component,
                &old.reporting_component,
            ),
            (
                "reportingInstance",
                &new.reporting_instance,
                &old.reporting_instance,
            ),
        ],
        errors,
    );
    std::mem::take(errors)
}

fn texts(fields: &[(&str, &Option<String>, &Option<String>)], errors: &mut ErrorList) {
    for (field, new, old) in fields {
        check::immutable(&text(new), &text(old), &Path::new(field), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        crate::testing::run::<Event>(include_str!("../../testdata/event.yaml"));
    }
}
