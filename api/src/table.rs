//! What the columns of many kinds share.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Span, Timestamp};
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::Value;

use crate::{quantity::ResourceList, strategy::Column, zero::text};

/// The first column of every kind.
pub const NAME: Column = Column {
    name: "Name",
    column_type: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

/// The column of [`age`].
pub const AGE: Column = column(
    "Age",
    "string",
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

/// A column that is always shown.
pub const fn column(
    name: &'static str,
    column_type: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        column_type,
        format: "",
        description,
        priority: 0,
    }
}

/// A column of text that is shown with `-o wide`.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name, "string", description)
    }
}

/// The object's name.
pub fn name(metadata: &ObjectMeta) -> Value {
    Value::from(text(&metadata.name))
}

/// Labels as `a=b,c=d`, or `<none>`.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> Value {
    let pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Value::from(if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    })
}

/// Access modes in their short form and upstream's order: `RWO,ROX`.
pub fn access_modes(modes: &[String]) -> String {
    let short: Vec<&str> = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(long, _)| modes.iter().any(|mode| mode == long))
    .map(|(_, short)| short)
    .collect();
    short.join(",")
}

/// The `storage` of a list of resources.
pub fn storage_of(resources: Option<&ResourceList>) -> String {
    resources
        .and_then(|resources| resources.get("storage"))
        .map_or_else(|| "0".to_owned(), |storage| storage.0.clone())
}

/// The class of a volume or a claim: the annotation of old comes before the field.
pub fn storage_class(metadata: &ObjectMeta, field: Option<&str>) -> String {
    metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get("volume.beta.kubernetes.io/storage-class"))
        .map(String::as_str)
        .or(field)
        .unwrap_or("")
        .to_owned()
}

/// The pod that a template makes.
pub fn template_pod(template: Option<&PodTemplateSpec>) -> Option<&PodSpec> {
    template.and_then(|template| template.spec.as_ref())
}

/// How long ago the object was created.
pub fn age(metadata: &ObjectMeta, now: Timestamp) -> Value {
    Value::from(since(metadata.creation_timestamp.as_ref(), now))
}

/// How long ago a time was.
pub fn since(time: Option<&Time>, now: Timestamp) -> String {
    match time {
        Some(Time(time)) => human_duration(now - *time),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in at most two units, coarser the longer it is; the forms of upstream's
/// `HumanDuration`. Up to two seconds in the future count as now.
pub fn human_duration(duration: Span) -> String {
    let duration =
        SignedDuration::try_from(duration).expect("a span of two timestamps has no calendar units");
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = minutes / 60;
    let days = hours / 24;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    if seconds < -1 {
        "<invalid>".to_owned()
    } else if seconds < 0 {
        "0s".to_owned()
    } else if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else if days < 365 * 8 {
        two(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

/// The cells `Containers` and `Images` of a kind with a pod template.
pub fn container_cells(pod: Option<&PodSpec>) -> [Value; 2] {
    let containers = pod.map_or(&[][..], |pod| &pod.containers);
    let join = |part: fn(&Container) -> &str| {
        let parts: Vec<&str> = containers.iter().map(part).collect();
        Value::from(parts.join(","))
    };
    [
        join(|container| &container.name),
        join(|container| text(&container.image)),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::human_duration;

    #[test]
    fn durations_get_coarser_as_they_grow() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (8 * 3600, "8h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86_400, "8d"),
            (730 * 86_400, "2y"),
            (731 * 86_400, "2y1d"),
            (365 * 8 * 86_400, "8y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(human_duration(seconds.seconds()), expected, "{seconds}");
        }
    }
}
