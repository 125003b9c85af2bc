//! In which order groups and versions are listed, and which version is preferred.

use std::cmp::{Ordering, Reverse};

/// As in `spec` of an `APIService`: higher comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    pub group: i32,
    pub version: i32,
}

/// Where a group version stands. Custom resources stand behind all that is built in.
pub fn priority(group: &str, version: &str) -> Priority {
    let group = match group {
        "" => {
            return Priority {
                group: 18000,
                version: 1,
            };
        }
        // Upstream lists the group of the lists itself before all others.
        "apiregistration.k8s.io" => 17900,
        "apps" => 17800,
        "events.k8s.io" => 17750,
        "authentication.k8s.io" => 17700,
        "authorization.k8s.io" => 17600,
        "autoscaling" => 17500,
        "batch" => 17400,
        "certificates.k8s.io" => 17300,
        "networking.k8s.io" => 17200,
        "policy" => 17100,
        "rbac.authorization.k8s.io" => 17000,
        "storage.k8s.io" => 16800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16700,
        "scheduling.k8s.io" => 16600,
        "coordination.k8s.io" => 16500,
        "node.k8s.io" => 16300,
        "resource.k8s.io" | "discovery.k8s.io" => 16200,
        "flowcontrol.apiserver.k8s.io" => 16100,
        // Behind everything, as its add-on registers it upstream.
        "metrics.k8s.io" => 100,
        _ => {
            return Priority {
                group: 1000,
                version: 100,
            };
        }
    };
    let version = match version {
        "v2" => 30,
        "v1" => 15,
        _ => 9,
    };
    Priority { group, version }
}

/// The preferred version first.
pub(super) fn versions(group: &str, left: &str, right: &str) -> Ordering {
    let of = |version| Reverse(priority(group, version).version);
    of(left)
        .cmp(&of(right))
        .then_with(|| compare_versions(right, left))
}

/// Orders versions by how settled they are: `v2` above `v1` above `v1beta1` above `v1alpha1`
/// above what is no Kubernetes version, of which the first in the alphabet is the highest.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    match (parse(left), parse(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => right.cmp(left),
    }
}

/// Stability, major and minor number of `v1beta2`.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| {
        let is_number = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let rest = version.strip_prefix('v')?;
    for (stability, name) in [(0, "alpha"), (1, "beta")] {
        if let Some((major, minor)) = rest.split_once(name) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    Some((2, number(rest)?, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_stability() {
        let mut versions = [
            "foo10", "v1alpha2", "v2beta1", "foo1", "v10", "v1", "v2", "v10beta3", "v3beta1", "v01",
        ];
        versions.sort_by(|left, right| compare_versions(right, left));
        assert_eq!(
            versions,
            [
                "v10", "v2", "v1", "v10beta3", "v3beta1", "v2beta1", "v1alpha2", "foo1", "foo10",
                "v01"
            ]
        );
    }
}
