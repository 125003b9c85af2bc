//! Mount points inside volumes: a container that mounts one volume below another needs a
//! directory there, which it could not make in a read-only volume.

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::PodSpec;

use crate::pods::spec::{ephemeral_as_container, ephemeral_containers, main_containers};

/// The directories, relative to the volume, on which other volumes are mounted.
pub fn mount_points(spec: &PodSpec, volume: &str) -> Vec<PathBuf> {
    let ephemeral: Vec<_> = ephemeral_containers(spec)
        .iter()
        .map(ephemeral_as_container)
        .collect();
    let containers = main_containers(spec).map(|(_, container)| container);
    let mut points = Vec::new();
    for container in containers.chain(&ephemeral) {
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        let own = mounts.iter().filter(|mount| mount.name == volume);
        for own in own.map(|mount| clean(&mount.mount_path)) {
            let mut below: Vec<PathBuf> = mounts
                .iter()
                .filter_map(|mount| {
                    let path = clean(&mount.mount_path);
                    let inner = path.strip_prefix(&own).ok()?;
                    (inner.components().next().is_some()).then(|| inner.to_owned())
                })
                .collect();
            below.sort();
            // What is mounted still further in is made by the volume in between.
            let mut outermost: Vec<PathBuf> = Vec::new();
            for path in below {
                if !outermost.iter().any(|outer| path.starts_with(outer)) {
                    outermost.push(path);
                }
            }
            points.extend(outermost);
        }
    }
    points.sort();
    points.dedup();
    points
}

fn clean(path: &str) -> PathBuf {
    Path::new(path)
        .components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::RootDir))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_outermost_mount_points_are_made() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{
            "name": "c", "volumeMounts": [
                {"name": "v", "mountPath": "/dir/"},
                {"name": "a", "mountPath": "/dir/nested"},
                {"name": "b", "mountPath": "/dir/nested/double"},
                {"name": "c", "mountPath": "/dir/nested-vol"},
                {"name": "d", "mountPath": "/directory"},
            ],
        }]}))
        .expect("a specification");
        assert_eq!(
            mount_points(&spec, "v"),
            [PathBuf::from("nested"), PathBuf::from("nested-vol")]
        );
        assert_eq!(mount_points(&spec, "a"), [PathBuf::from("double")]);
    }
}
