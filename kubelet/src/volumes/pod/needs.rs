//! What a pod's spec says of its volumes: which are used, what they refer to, how large they may be,
//! and whose they are.

use std::collections::BTreeSet;

use coracle_api::{
    core::pod::resources::{is_huge_page, pod_limits},
    quantity::{Amount, ResourceList},
};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, PodSpec, Volume};

use crate::{
    pods::{
        env, security,
        spec::{ephemeral_as_container, ephemeral_containers, main_containers, spec},
    },
    volumes::ownership::Group,
};

/// The group that the pod's volumes are given to.
pub(super) fn group(pod: &Pod) -> Option<Group> {
    let context = spec(pod).security_context.as_ref()?;
    Some(Group {
        id: u32::try_from(context.fs_group?).ok()?,
        only_on_mismatch: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
    })
}

/// The user that every container of the pod runs as, if it is one and said so.
pub(super) fn only_user(pod: &Pod) -> Option<u32> {
    let spec = spec(pod);
    let ephemeral: Vec<_> = ephemeral_containers(spec)
        .iter()
        .map(ephemeral_as_container)
        .collect();
    let mut users = main_containers(spec)
        .map(|(_, container)| container)
        .chain(&ephemeral)
        .map(|container| security::effective(pod, container).run_as_user);
    let first = users.next()??;
    users
        .all(|user| user == Some(first))
        .then(|| u32::try_from(first).ok())
        .flatten()
}

/// The names of the volumes that containers use.
pub(super) fn used_volumes(spec: &PodSpec) -> BTreeSet<&str> {
    let mut used = BTreeSet::new();
    for (_, container) in main_containers(spec) {
        let mounts = container.volume_mounts.iter().flatten();
        used.extend(mounts.map(|mount| mount.name.as_str()));
        let devices = container.volume_devices.iter().flatten();
        used.extend(devices.map(|device| device.name.as_str()));
        let files = container.env.iter().flatten().filter_map(|variable| {
            let from = variable.value_from.as_ref()?;
            Some(from.file_key_ref.as_ref()?.volume_name.as_str())
        });
        used.extend(files);
    }
    for container in ephemeral_containers(spec) {
        let mounts = container.volume_mounts.iter().flatten();
        used.extend(mounts.map(|mount| mount.name.as_str()));
    }
    used
}

/// The ConfigMaps and Secrets that a pod needs.
pub(super) fn references(spec: &PodSpec) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut config_maps = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    let ephemeral: Vec<_> = ephemeral_containers(spec)
        .iter()
        .map(ephemeral_as_container)
        .collect();
    let containers = main_containers(spec).map(|(_, container)| container);
    for container in containers.chain(&ephemeral) {
        let (maps, of_container) = env::references(container);
        config_maps.extend(maps.into_iter().map(str::to_owned));
        secrets.extend(of_container.into_iter().map(str::to_owned));
    }
    let pull = spec.image_pull_secrets.iter().flatten();
    secrets.extend(pull.map(|secret| secret.name.clone()));
    for volume in spec.volumes.iter().flatten() {
        config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        let secret = volume.secret.iter();
        secrets.extend(secret.filter_map(|source| source.secret_name.clone()));
        let projected = volume.projected.iter();
        for source in projected.flat_map(|source| source.sources.iter().flatten()) {
            config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    config_maps.remove("");
    secrets.remove("");
    (config_maps, secrets)
}

/// The most bytes that a volume in memory holds: its own limit, the pod's or the node's.
pub(super) fn memory_size(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    allocatable: &ResourceList,
) -> i64 {
    let own = source.size_limit.as_ref().map(Amount::from);
    let of_pod = pod_limits(spec(pod)).get("memory").copied();
    let of_node = allocatable.get("memory").map(Amount::from);
    [own, of_pod, of_node]
        .into_iter()
        .flatten()
        .map(Amount::value)
        .filter(|&size| size > 0)
        .min()
        .unwrap_or(0)
}

/// The size of the pages of a medium `HugePages` or `HugePages-2Mi`, in bytes.
pub(super) fn huge_page_size(spec: &PodSpec, medium: &str) -> Option<i64> {
    if let Some(size) = medium.strip_prefix("HugePages-") {
        return Amount::parse(size).ok().map(Amount::value);
    }
    let limits = pod_limits(spec);
    let name = limits.keys().find(|name| is_huge_page(name))?;
    let size = name.strip_prefix("hugepages-")?;
    Amount::parse(size).ok().map(Amount::value)
}

/// Runs what may wait for a disk where waiting holds nobody up.
/// What upstream calls the plugin of the volume.
pub(super) fn plugin(volume: &Volume) -> &'static str {
    if volume.empty_dir.is_some() {
        "kubernetes.io/empty-dir"
    } else if volume.host_path.is_some() {
        "kubernetes.io/host-path"
    } else if volume.image.is_some() {
        "kubernetes.io/image"
    } else if volume.nfs.is_some() {
        "kubernetes.io/nfs"
    } else if volume.config_map.is_some() {
        "kubernetes.io/configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io/secret"
    } else if volume.projected.is_some() {
        "kubernetes.io/projected"
    } else if volume.downward_api.is_some() {
        "kubernetes.io/downward-api"
    } else {
        "kubernetes.io/local-volume"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        pod["spec"] = spec;
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn every_object_that_a_pod_needs_is_referred_to() {
        let pod = pod(json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "name": "c",
                "envFrom": [{"configMapRef": {"name": "m1"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}],
            }],
            "volumes": [
                {"name": "a", "configMap": {"name": "m2"}},
                {"name": "b", "secret": {"secretName": "s2"}},
                {"name": "d", "projected": {"sources": [
                    {"configMap": {"name": "m3"}}, {"secret": {"name": "s3"}},
                ]}},
            ],
        }));
        let (config_maps, secrets) = references(spec(&pod));
        let names = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(names(config_maps), "m1 m2 m3");
        assert_eq!(names(secrets), "pull s1 s2 s3");
    }

    #[test]
    fn a_volume_in_memory_is_as_large_as_the_smallest_limit() {
        let allocatable = ResourceList::from([("memory".to_owned(), Quantity("1Gi".to_owned()))]);
        let limited = pod(json!({"containers": [
            {"name": "c", "resources": {"limits": {"memory": "64Mi"}}},
        ]}));
        let free = pod(json!({"containers": [{"name": "c"}]}));
        let source = |size: Option<&str>| EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: size.map(|size| Quantity(size.to_owned())),
        };
        let cases = [
            (&free, None, 1 << 30),
            (&limited, None, 64 << 20),
            (&limited, Some("1Mi"), 1 << 20),
            (&limited, Some("2Gi"), 64 << 20),
        ];
        for (pod, size, expected) in cases {
            assert_eq!(memory_size(pod, &source(size), &allocatable), expected);
        }
    }

    #[test]
    fn a_token_belongs_to_the_user_that_all_containers_run_as() {
        let of = |pod_user: Value, own: Value| {
            only_user(&pod(json!({
                "securityContext": {"runAsUser": pod_user},
                "containers": [
                    {"name": "a", "securityContext": {"runAsUser": own}}, {"name": "b"},
                ],
            })))
        };
        assert_eq!(of(json!(7), json!(null)), Some(7));
        assert_eq!(of(json!(7), json!(8)), None);
        assert_eq!(of(json!(null), json!(8)), None);
    }
}
