//! The pod of a daemon set on one node.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{
        Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
        PodTemplateSpec, Toleration,
    },
};

use crate::{
    history::POD_LABEL,
    node::taints::{self, NO_EXECUTE, NO_SCHEDULE},
    node_fit, owner, pods,
};

/// Deprecated by the hash, still written as upstream does.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
const NAME_FIELD: &str = "metadata.name";

/// What is wrong with a node that daemons live with.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", NO_SCHEDULE);

/// Whether a daemon belongs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Run,
    /// None is started, but one that is there may stay.
    Stay,
    No,
}

/// The template's tolerations and those that every daemon has.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let host = (spec.host_network == Some(true)).then_some(&NETWORK_UNAVAILABLE);
    for (key, effect) in TOLERATED.iter().chain(host) {
        let toleration = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        let same = |known: &Toleration| {
            known.key == toleration.key
                && known.operator == toleration.operator
                && known.effect == toleration.effect
                && known.value.as_deref().unwrap_or_default().is_empty()
        };
        match all.iter_mut().find(|known| same(known)) {
            Some(known) => *known = toleration,
            None => all.push(toleration),
        }
    }
    all
}

pub(super) fn fit(spec: &PodSpec, tolerations: &[Toleration], node: &Node) -> Fit {
    let elsewhere = spec
        .node_name
        .as_deref()
        .is_some_and(|name| !name.is_empty() && node.metadata.name.as_deref() != Some(name));
    if elsewhere || !node_fit::selects(spec, node) {
        return Fit::No;
    }
    let bars = |effects: &[&str]| {
        taints::list(node).iter().any(|taint| {
            effects.contains(&taint.effect.as_str())
                && !tolerations
                    .iter()
                    .any(|toleration| taints::tolerates(toleration, taint))
        })
    };
    if !bars(&[NO_SCHEDULE, NO_EXECUTE]) {
        Fit::Run
    } else if bars(&[NO_EXECUTE]) {
        Fit::No
    } else {
        Fit::Stay
    }
}

/// The node that a pod is on, or is meant for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let terms = required.node_selector_terms.iter();
    let mut fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == NAME_FIELD && field.operator == "In")?;
    match field.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}

fn generation(set: &DaemonSet) -> Option<&str> {
    let annotations = set.metadata.annotations.as_ref()?;
    let generation = annotations.get(GENERATION_ANNOTATION)?;
    generation.parse::<i64>().ok().map(|_| generation.as_str())
}

/// Whether the pod is of the current template.
pub(super) fn is_updated(pod: &Pod, set: &DaemonSet, hash: &str) -> bool {
    let label = |key| {
        let labels = pod.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    (!hash.is_empty() && label(POD_LABEL) == Some(hash))
        || generation(set).is_some_and(|generation| label(GENERATION_LABEL) == Some(generation))
}

/// The pod to create, but for its node.
pub(super) fn new(set: &DaemonSet, template: &PodTemplateSpec, hash: &str) -> Pod {
    let mut pod = pods::from_template(template, &set.metadata, owner::controller_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    labels.insert(POD_LABEL.to_owned(), hash.to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.tolerations = Some(tolerations(spec));
    }
    pod
}

/// Lets the scheduler put the pod onto this node only. What the template requires of nodes was
/// looked at already, and gives way.
pub(super) fn pin(pod: &mut Pod, node: &str) {
    let required = NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_expressions: None,
            match_fields: Some(vec![NodeSelectorRequirement {
                key: NAME_FIELD.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
        }],
    };
    let affinity = pod
        .spec
        .get_or_insert_default()
        .affinity
        .get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(required);
}
