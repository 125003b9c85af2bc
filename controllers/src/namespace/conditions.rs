//! What the status of a namespace says of its deletion.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::Left;
use crate::{conditions, discovery::Served};

/// Each condition's type, with the reason and the message for when all is well.
const CONDITIONS: [(&str, &str, &str); 5] = [
    (
        DISCOVERY,
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        CONTENT,
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        REMAINING,
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        FINALIZERS,
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];
const DISCOVERY: &str = "NamespaceDeletionDiscoveryFailure";
const CONTENT: &str = "NamespaceDeletionContentFailure";
const REMAINING: &str = "NamespaceContentRemaining";
const FINALIZERS: &str = "NamespaceFinalizersRemaining";

/// How far one pass over the namespace's content came.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Seconds until what is left may be gone; zero when nothing is left.
    pub estimate: i64,
    failures: Vec<String>,
    /// Of deletions alone.
    content_failures: Vec<String>,
    objects: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    /// Reason and message by type, for the conditions that are true.
    true_conditions: BTreeMap<&'static str, (&'static str, String)>,
}

impl Progress {
    pub fn discovery_failed(&mut self, message: String) {
        self.failures.push(message.clone());
        self.true_conditions
            .insert(DISCOVERY, ("DiscoveryFailed", message));
    }

    pub fn groups_failed(&mut self, groups: &[String]) {
        let message = format!(
            "unable to retrieve the complete list of server APIs: {}",
            groups.join(", ")
        );
        self.failures.push(message.clone());
        let message = format!(
            "Discovery failed for some groups, {} failing: {message}",
            groups.len()
        );
        self.true_conditions
            .insert(DISCOVERY, ("DiscoveryFailed", message));
    }

    /// Notes what is left of a resource. Returns whether anything is.
    pub fn add(&mut self, served: &Served, left: Result<Left, String>) -> bool {
        let left = match left {
            Ok(left) => left,
            Err(message) => {
                self.failures.push(message.clone());
                self.content_failures.push(message);
                return false;
            }
        };
        self.estimate = self.estimate.max(left.estimate);
        if left.count > 0 {
            let name = format!("{}.{}", served.resource.plural, served.resource.group);
            self.objects.insert(name, left.count);
        }
        for finalizer in left.finalizers {
            *self.finalizers.entry(finalizer).or_default() += 1;
        }
        left.count > 0
    }

    /// After every resource has been gone through: says what remains.
    pub fn count(&mut self) {
        let list = |counts: &BTreeMap<String, usize>, word: &str| -> String {
            let counts = counts.iter();
            let texts: Vec<String> = counts
                .map(|(name, count)| format!("{name} {word} {count} resource instances"))
                .collect();
            texts.join(", ")
        };
        if !self.objects.is_empty() {
            let message = format!(
                "Some resources are remaining: {}",
                list(&self.objects, "has")
            );
            self.true_conditions
                .insert(REMAINING, ("SomeResourcesRemain", message));
        }
        if !self.finalizers.is_empty() {
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                list(&self.finalizers, "in")
            );
            self.true_conditions
                .insert(FINALIZERS, ("SomeFinalizersRemain", message));
        }
    }

    /// Why this pass has to be made again.
    pub fn failure(&self) -> Option<String> {
        match &self.failures[..] {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        }
    }

    /// The status to write; `None` when it stands already.
    pub fn status_of(&self, namespace: &Namespace, now: Timestamp) -> Option<NamespaceStatus> {
        let mut status = namespace.status.clone().unwrap_or_default();
        let list = status.conditions.get_or_insert_default();
        let now = Time(conditions::to_seconds(now));
        let mut changed = false;
        for (type_, ok_reason, ok_message) in CONDITIONS {
            let (status, reason, message) = match self.truth(type_) {
                Some((reason, message)) => ("True", reason, message),
                None => ("False", ok_reason, ok_message.to_owned()),
            };
            let known = list.iter_mut().find(|known| known.type_ == type_);
            let next = NamespaceCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: match &known {
                    Some(known) if known.status == status => known.last_transition_time.clone(),
                    _ => Some(now.clone()),
                },
            };
            match known {
                Some(known) if *known == next => {}
                Some(known) => {
                    *known = next;
                    changed = true;
                }
                None => {
                    list.push(next);
                    changed = true;
                }
            }
        }
        changed.then_some(status)
    }

    fn truth(&self, type_: &str) -> Option<(&'static str, String)> {
        if type_ == CONTENT && !self.content_failures.is_empty() {
            let mut messages = self.content_failures.clone();
            messages.sort();
            let message = format!(
                "Failed to delete all resource types, {} remaining: {}",
                messages.len(),
                messages.join(", ")
            );
            return Some(("ContentDeletionFailed", message));
        }
        self.true_conditions.get(type_).cloned()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ApiResource;

    use super::*;

    fn served(group: &str, plural: &str) -> Served {
        Served {
            resource: ApiResource {
                group: group.to_owned(),
                version: "v1".to_owned(),
                api_version: "v1".to_owned(),
                kind: String::new(),
                plural: plural.to_owned(),
            },
            namespaced: true,
            verbs: Default::default(),
            preferred: true,
        }
    }

    fn told(status: &NamespaceStatus) -> Vec<String> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .filter(|condition| condition.status == "True")
            .map(|condition| {
                format!(
                    "{} {}: {}",
                    condition.type_,
                    condition.reason.as_deref().unwrap_or_default(),
                    condition.message.as_deref().unwrap_or_default()
                )
            })
            .collect()
    }

    #[test]
    fn what_remains_is_said_and_unsaid() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let mut progress = Progress::default();
        let left = |count: usize, finalizer: &str| {
            Ok(Left {
                count,
                finalizers: vec![finalizer.to_owned(); count],
                estimate: 15,
            })
        };
        assert!(progress.add(&served("", "configmaps"), left(2, "a/b")));
        assert!(progress.add(&served("apps", "deployments"), left(1, "a/b")));
        assert!(!progress.add(&served("", "secrets"), Err("no".to_owned())));
        progress.count();
        assert_eq!(progress.estimate, 15);
        assert_eq!(progress.failure().as_deref(), Some("no"));
        let mut namespace = Namespace::default();
        let status = progress.status_of(&namespace, now).expect("a change");
        assert_eq!(
            told(&status),
            [
                "NamespaceDeletionContentFailure ContentDeletionFailed: \
                 Failed to delete all resource types, 1 remaining: no",
                "NamespaceContentRemaining SomeResourcesRemain: Some resources are remaining: \
                 configmaps. has 2 resource instances, deployments.apps has 1 resource instances",
                "NamespaceFinalizersRemaining SomeFinalizersRemain: Some content in the namespace \
                 has finalizers remaining: a/b in 3 resource instances",
            ]
        );
        namespace.status = Some(status);
        assert_eq!(progress.status_of(&namespace, now), None);
        let later = "2026-01-01T00:01:00Z".parse().expect("a time");
        let status = Progress::default()
            .status_of(&namespace, later)
            .expect("a change");
        assert!(told(&status).is_empty());
        let conditions = status.conditions.as_deref().expect("conditions");
        assert_eq!(conditions.len(), 5);
        assert_eq!(
            conditions[0].last_transition_time.as_ref().map(|t| t.0),
            Some(now)
        );
        assert_eq!(
            conditions[3].last_transition_time.as_ref().map(|t| t.0),
            Some(later)
        );
    }
}
