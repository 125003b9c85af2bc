//! Which labels a kubelet may give its node: not those by which others decide what runs there.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

const RESERVED: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' own that kubelets set.
const OWN: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The labels that are not the same in both.
pub fn changed<'a>(one: Option<&'a Labels>, other: Option<&'a Labels>) -> BTreeSet<&'a str> {
    let value = |labels: Option<&'a Labels>, key| labels.and_then(|labels| labels.get(key));
    let keys = [one, other].into_iter().flatten().flat_map(Labels::keys);
    keys.filter(|key| value(one, *key) != value(other, *key))
        .map(String::as_str)
        .collect()
}

/// Those that a kubelet may not set.
pub fn forbidden<'a>(labels: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let labels = labels.iter().copied();
    labels.filter(|label| is_forbidden(label)).collect()
}

fn is_forbidden(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |suffix: &str| {
        let rest = namespace.strip_suffix(suffix);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let of_kubernetes = within("kubernetes.io") || within("k8s.io");
    let own = OWN.contains(&label) || OWN_NAMESPACES.into_iter().any(within);
    within(RESERVED) || (of_kubernetes && !own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_keep_off_labels_that_others_decide_by() {
        for (label, wanted) in [
            ("example.com/x", false),
            ("x", false),
            ("kubernetes.io/hostname", false),
            ("kubernetes.io/other", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("node.kubernetes.io/x", false),
            ("a.node.kubernetes.io/x", false),
            ("kubelet.kubernetes.io/x", false),
            ("my.k8s.io/x", true),
            ("notk8s.io/x", false),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
        ] {
            assert_eq!(is_forbidden(label), wanted, "{label}");
        }
    }
}
