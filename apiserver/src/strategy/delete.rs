//! What a deletion does to an object: nothing, a change, or the end of it.

use coracle_api::{Kind, Object};
use jiff::SignedDuration;
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Time},
};

use crate::error::{ApiError, GroupResource};

/// The finalizers that the garbage collector takes away.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What is to be done with the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is being deleted already, and the request changes nothing about that.
    Pending,
    /// The changed object is written; someone else ends it.
    Mark,
    /// It goes at once, in one write, also where upstream marks it first: nothing is left halfway
    /// when the process is killed.
    Now,
}

/// What happens to dependents when the client does not say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DefaultPolicy {
    Delete,
    Orphan,
    /// The kind has no dependents, whatever the client says.
    Unsupported,
}

fn default_policy(kind: &Kind) -> DefaultPolicy {
    match (kind.group.as_str(), kind.resource.as_str()) {
        ("", "replicationcontrollers") | ("batch", "jobs") => DefaultPolicy::Orphan,
        ("" | "events.k8s.io", "events") => DefaultPolicy::Unsupported,
        _ => DefaultPolicy::Delete,
    }
}

/// Checks the preconditions of a deletion.
pub fn check_preconditions(
    kind: &Kind,
    meta: &ObjectMeta,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let Some(preconditions) = &options.preconditions else {
        return Ok(());
    };
    let name = meta.name.as_deref().unwrap_or_default();
    // Upstream names the kind here, not the resource.
    let subject = GroupResource {
        group: &kind.group,
        resource: &kind.kind,
    };
    let checks = [
        (
            "UID",
            &preconditions.uid,
            &meta.uid,
            "deleted and then recreated",
        ),
        (
            "ResourceVersion",
            &preconditions.resource_version,
            &meta.resource_version,
            "modified",
        ),
    ];
    for (what, wanted, has, then) in checks {
        let has = has.as_deref().unwrap_or_default();
        let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != has) else {
            continue;
        };
        // Namespaces are checked by their own code.
        return Err(if kind.group.is_empty() && kind.kind == "Namespace" {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {has}"
            );
            ApiError::conflict(kind, name, why)
        } else {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({has}). The object might have been {then}"
            );
            ApiError::conflict(subject, name, why)
        });
    }
    Ok(())
}

/// Decides what a deletion does, and makes `object` what clients are shown of it: what is written
/// for [`Deletion::Mark`], and for [`Deletion::Now`] how upstream would have marked it last.
///
/// The rules are upstream's (`registry/rest/delete.go` and the generic store).
pub fn plan_deletion(
    kind: &Kind,
    object: &mut dyn Object,
    options: &DeleteOptions,
    now: &Time,
) -> Deletion {
    if let Some(namespace) = object.as_any_mut().downcast_mut::<Namespace>()
        && let Some(plan) = plan_namespace(kind, namespace, options, now)
    {
        return plan;
    }
    let graceful = match begin_graceful(kind, object, options, now) {
        Some(Graceful::Pending) => return Deletion::Pending,
        Some(Graceful::Seconds(seconds)) => Some(seconds),
        None => None,
    };
    let finalizers = finalizers_after(kind, object.meta(), options);
    let meta = object.meta_mut();
    let pending = !finalizers.is_empty();
    meta.finalizers = pending.then_some(finalizers);
    match graceful {
        Some(seconds) if seconds > 0 || pending => Deletion::Mark,
        None if pending => {
            mark(meta, now);
            Deletion::Mark
        }
        Some(_) | None => Deletion::Now,
    }
}

/// A namespace ends in two steps: first it is marked, so that the namespace controller empties
/// it and takes away `spec.finalizers`; only then it may go. `None`: it may go.
fn plan_namespace(
    kind: &Kind,
    namespace: &mut Namespace,
    options: &DeleteOptions,
    now: &Time,
) -> Option<Deletion> {
    if namespace.metadata.deletion_timestamp.is_none() {
        let finalizers = finalizers_after(kind, &namespace.metadata, options);
        namespace.metadata.finalizers = (!finalizers.is_empty()).then_some(finalizers);
        namespace.metadata.deletion_timestamp = Some(now.clone());
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        return Some(Deletion::Mark);
    }
    holds_content(namespace).then_some(Deletion::Pending)
}

fn holds_content(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

enum Graceful {
    Pending,
    Seconds(i64),
}

/// The part of a deletion for kinds whose objects take time to end. `None`: not such a kind, or
/// the time is over.
fn begin_graceful(
    kind: &Kind,
    object: &mut dyn Object,
    options: &DeleteOptions,
    now: &Time,
) -> Option<Graceful> {
    let period = kind
        .strategy
        .grace_period_seconds(object, options.grace_period_seconds)?;
    let meta = object.meta_mut();
    if let Some(deadline) = meta.deletion_timestamp.clone() {
        let current = meta.deletion_grace_period_seconds.unwrap_or(0);
        if current == 0 {
            return None;
        }
        // It can only be made shorter.
        let Some(mut wanted) = options.grace_period_seconds.filter(|s| *s < current) else {
            return Some(Graceful::Pending);
        };
        let mut end = Time(deadline.0 - SignedDuration::from_secs(current - wanted));
        if end < *now {
            end = now.clone();
            wanted = wanted.min(1);
        }
        meta.deletion_timestamp = Some(end);
        meta.deletion_grace_period_seconds = Some(wanted);
        return Some(Graceful::Seconds(wanted));
    }
    meta.deletion_timestamp = Some(Time(now.0 + SignedDuration::from_secs(period)));
    meta.deletion_grace_period_seconds = Some(period);
    raise_generation(meta);
    Some(Graceful::Seconds(period))
}

/// Marks an object that waits for its finalizers only.
fn mark(meta: &mut ObjectMeta, now: &Time) {
    if meta.deletion_timestamp.is_none() {
        raise_generation(meta);
    }
    if meta.deletion_timestamp.as_ref().is_none_or(|at| at > now) {
        meta.deletion_timestamp = Some(now.clone());
    }
    meta.deletion_grace_period_seconds = Some(0);
}

fn raise_generation(meta: &mut ObjectMeta) {
    if let Some(generation) = meta
        .generation
        .as_mut()
        .filter(|generation| **generation > 0)
    {
        *generation += 1;
    }
}

/// The object's finalizers with those that the garbage collector acts on set as the options
/// and the kind want.
fn finalizers_after(kind: &Kind, meta: &ObjectMeta, options: &DeleteOptions) -> Vec<String> {
    let current = meta.finalizers.as_deref().unwrap_or_default();
    let has = |name: &str| current.iter().any(|finalizer| finalizer == name);
    let policy = default_policy(kind);
    let wanted = if policy == DefaultPolicy::Unsupported {
        None
    } else if let Some(orphan) = options.orphan_dependents {
        orphan.then_some(ORPHAN)
    } else {
        match options.propagation_policy.as_deref() {
            Some("Orphan") => Some(ORPHAN),
            Some("Foreground") => Some(FOREGROUND),
            Some(_) => None,
            None if has(ORPHAN) => Some(ORPHAN),
            None if has(FOREGROUND) => Some(FOREGROUND),
            None => (policy == DefaultPolicy::Orphan).then_some(ORPHAN),
        }
    };
    let mut finalizers: Vec<String> = current
        .iter()
        .filter(|finalizer| !matches!(finalizer.as_str(), ORPHAN | FOREGROUND))
        .cloned()
        .collect();
    finalizers.extend(wanted.map(str::to_owned));
    finalizers
}

/// Whether an update took away the last thing that kept an object which is being deleted.
pub fn ready_to_go(new: &dyn Object, old: &dyn Object) -> bool {
    let namespace: Option<&Namespace> = new.as_any().downcast_ref();
    let (new, old) = (new.meta(), old.meta());
    namespace.is_none_or(|namespace| !holds_content(namespace))
        && new.finalizers.as_ref().is_none_or(Vec::is_empty)
        && old.deletion_timestamp.is_some()
        && old.deletion_grace_period_seconds.unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use coracle_api::kinds;
    use k8s_openapi::{
        api::core::v1::{ConfigMap, Pod, PodSpec},
        apimachinery::pkg::apis::meta::v1::Preconditions,
    };

    use super::*;

    fn options(policy: Option<&str>, grace: Option<i64>) -> DeleteOptions {
        DeleteOptions {
            propagation_policy: policy.map(str::to_owned),
            grace_period_seconds: grace,
            ..DeleteOptions::default()
        }
    }

    #[test]
    fn objects_without_finalizers_go_at_once() {
        let kind = kinds::find("", "v1", "ConfigMap").unwrap();
        let mut object = ConfigMap::default();
        let now = super::super::now();
        let plan = plan_deletion(kind, &mut object, &options(None, None), &now);
        assert_eq!(plan, Deletion::Now);
        let plan = plan_deletion(kind, &mut object, &options(Some("Foreground"), None), &now);
        assert_eq!(plan, Deletion::Mark);
        assert_eq!(
            object.metadata.finalizers,
            Some(vec![FOREGROUND.to_owned()])
        );
        assert_eq!(object.metadata.deletion_grace_period_seconds, Some(0));
    }

    #[test]
    fn the_policy_of_a_second_deletion_replaces_the_first() {
        let kind = kinds::find("", "v1", "ConfigMap").unwrap();
        let mut object = ConfigMap::default();
        let now = super::super::now();
        plan_deletion(kind, &mut object, &options(Some("Orphan"), None), &now);
        assert_eq!(object.metadata.finalizers, Some(vec![ORPHAN.to_owned()]));
        let plan = plan_deletion(kind, &mut object, &options(Some("Background"), None), &now);
        assert_eq!(plan, Deletion::Now);
    }

    #[test]
    fn a_pod_gets_its_time_which_can_only_be_shortened() {
        let kind = kinds::find("", "v1", "Pod").unwrap();
        let mut pod = Pod {
            spec: Some(PodSpec {
                node_name: Some("n".into()),
                termination_grace_period_seconds: Some(30),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        let now = super::super::now();
        assert_eq!(
            plan_deletion(kind, &mut pod, &options(None, None), &now),
            Deletion::Mark
        );
        assert_eq!(pod.metadata.deletion_grace_period_seconds, Some(30));
        assert_eq!(
            plan_deletion(kind, &mut pod, &options(None, None), &now),
            Deletion::Pending
        );
        assert_eq!(
            plan_deletion(kind, &mut pod, &options(None, Some(60)), &now),
            Deletion::Pending
        );
        assert_eq!(
            plan_deletion(kind, &mut pod, &options(None, Some(5)), &now),
            Deletion::Mark
        );
        assert_eq!(
            pod.metadata.deletion_timestamp,
            Some(Time(now.0 + SignedDuration::from_secs(5)))
        );
        assert_eq!(
            plan_deletion(kind, &mut pod, &options(None, Some(0)), &now),
            Deletion::Now
        );
        assert_eq!(
            plan_deletion(kind, &mut pod, &options(None, Some(0)), &now),
            Deletion::Now
        );
    }

    #[test]
    fn a_pod_without_a_node_goes_at_once_and_shows_a_mark() {
        let kind = kinds::find("", "v1", "Pod").unwrap();
        let mut pod = Pod::default();
        let now = super::super::now();
        let plan = plan_deletion(kind, &mut pod, &options(None, None), &now);
        assert_eq!(plan, Deletion::Now);
        assert_eq!(pod.metadata.deletion_timestamp, Some(now));
        assert_eq!(pod.metadata.deletion_grace_period_seconds, Some(0));
    }

    #[test]
    fn preconditions_are_refused_in_upstreams_words() {
        let meta = ObjectMeta {
            name: Some("a".to_owned()),
            uid: Some("u".to_owned()),
            ..ObjectMeta::default()
        };
        let options = DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some("x".to_owned()),
                resource_version: None,
            }),
            ..DeleteOptions::default()
        };
        for (kind, why) in [
            (
                "ConfigMap",
                "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (x) does not match the UID in record (u). The object might have been deleted and then recreated",
            ),
            (
                "Namespace",
                "Operation cannot be fulfilled on namespaces \"a\": Precondition failed: UID in precondition: x, UID in object meta: u",
            ),
        ] {
            let kind = kinds::find("", "v1", kind).unwrap();
            let error = check_preconditions(kind, &meta, &options).unwrap_err();
            assert_eq!(error.to_string(), why);
        }
    }
}
