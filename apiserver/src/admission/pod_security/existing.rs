//! Pods that are there already when more is asked of a namespace's pods.

use std::{collections::BTreeMap, ops::Deref, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::{
    checks::{Subject, evaluate, reasons},
    policy::Standard,
};

/// Pods that are looked at.
const MOST: usize = 3000;
/// How long is spent on them.
const TIME: Duration = Duration::from_secs(1);

/// Pods that violate the standard in the same way.
struct Alike<'a> {
    /// The first by its name.
    name: &'a str,
    count: usize,
}

/// What a client is told when the namespace's pods are to keep to `standard` from now on.
pub fn warnings<P: Deref<Target = Pod>>(
    namespace: &str,
    standard: Standard,
    pods: &[P],
) -> Vec<String> {
    let deadline = Instant::now() + TIME;
    let pods = one_of_each_owner_first(pods);
    let mut checked = 0;
    let mut found: BTreeMap<String, Alike<'_>> = BTreeMap::new();
    for pod in pods.iter().take(MOST) {
        checked += 1;
        let Some(spec) = &pod.spec else {
            continue;
        };
        let subject = Subject::new(pod.metadata.annotations.as_ref(), spec);
        let violations = evaluate(standard, &subject);
        if !violations.is_empty() {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let alike = found
                .entry(reasons(&violations))
                .or_insert(Alike { name, count: 0 });
            alike.name = alike.name.min(name);
            alike.count += 1;
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    let mut warnings = Vec::new();
    if checked < pods.len() {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut of_pods: Vec<String> = found
        .iter()
        .map(|(reasons, Alike { name, count })| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            count => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    of_pods.sort_unstable();
    warnings.append(&mut of_pods);
    warnings
}

/// Pods of one owner are alike, so that the second is looked at only when all owners have been.
fn one_of_each_owner_first<P: Deref<Target = Pod>>(pods: &[P]) -> Vec<&Pod> {
    let mut owners = std::collections::HashSet::new();
    let (mut first, second): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().map(Deref::deref).partition(|pod| {
            let mut references = pod.metadata.owner_references.iter().flatten();
            let owner = references.find(|reference| reference.controller == Some(true));
            owner.is_none_or(|owner| owners.insert(owner.uid.as_str()))
        });
    first.extend(second);
    first
}
