//! Volumes on hosts and on NFS servers that nobody but the cluster itself takes back: they are
//! deleted, or emptied by a pod and offered again.
//!
//! Enter at [`deletable`], and at [`recycler`] and [`look`]. Upstream: `pkg/volume/hostpath`,
//! `pkg/volume/nfs` and `pkg/volume/util/recyclerclient`.

use std::{io, path::Path, sync::Arc};

use coracle_api::quantity::amount_in;
use coracle_client::EventType;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Event, PersistentVolume, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{WatchEvent, WatchParams},
};
use serde_json::json;

use super::binding::claim_ref;
use crate::{
    pods,
    volumes::{claim_of, volumes},
};

/// Recyclers run in the namespace `default`.
pub(super) const NAMESPACE: &str = "default";
const PREFIX: &str = "recycler-for-";
const IMAGE: &str = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6";
const SCRUB: &str =
    "test -e /scrub && find /scrub -mindepth 1 -delete && test -z \"$(ls -A /scrub)\" || exit 1";
const GIGABYTE: i64 = 1 << 30;

pub(super) fn recycler_name(volume: &str) -> String {
    format!("{PREFIX}{volume}")
}

/// The volume that the pod empties, if it is a recycler.
pub(super) fn recycled_by(pod: &Pod) -> Option<&str> {
    let here = pod.metadata.namespace.as_deref() == Some(NAMESPACE);
    let name = pod.metadata.name.as_deref().filter(|_| here)?;
    name.strip_prefix(PREFIX)
}

/// The pod that empties the volume; `None` when it is of no kind that can be emptied.
pub(super) fn recycler(volume: &PersistentVolume) -> Option<Pod> {
    let spec = volume.spec.as_ref()?;
    // The least seconds it may take, and those for each whole gigabyte.
    let (source, least, each) = if let Some(host) = &spec.host_path {
        (json!({ "hostPath": { "path": host.path } }), 60, 30)
    } else if let Some(nfs) = &spec.nfs {
        let source = json!({ "nfs": { "server": nfs.server, "path": nfs.path } });
        (source, 300, 30)
    } else {
        return None;
    };
    let size = spec
        .capacity
        .as_ref()
        .map_or(0, |list| amount_in(list, "storage").value());
    let mut volume_source = source;
    volume_source["name"] = "vol".into();
    let pod = json!({
        "metadata": { "name": recycler_name(&volume.name_any()), "namespace": NAMESPACE },
        "spec": {
            "activeDeadlineSeconds": (size / GIGABYTE).saturating_mul(each).max(least),
            "restartPolicy": "Never",
            "volumes": [volume_source],
            "containers": [{
                "name": "pv-recycler",
                "image": IMAGE,
                "command": ["/bin/sh"],
                "args": ["-c", SCRUB],
                "volumeMounts": [{ "name": "vol", "mountPath": "/scrub" }],
            }],
        },
    });
    serde_json::from_value(pod).ok()
}

/// How far the recycling of a volume is.
#[derive(Debug, PartialEq)]
pub(super) enum Recycling {
    /// The recycler is to start.
    Due,
    /// Pods still use the volume.
    Used(Vec<String>),
    Running,
    Done(Arc<Pod>),
    Failed(Arc<Pod>, String),
}

/// `pod` is the volume's recycler, if there is one; `users` the pods that use its claim.
pub(super) fn look(pod: Option<Arc<Pod>>, users: Vec<String>) -> Recycling {
    let Some(pod) = pod else {
        return if users.is_empty() {
            Recycling::Due
        } else {
            Recycling::Used(users)
        };
    };
    // One that is going was another time's.
    if pod.metadata.deletion_timestamp.is_some() {
        return Recycling::Running;
    }
    match pods::phase(&pod) {
        "Succeeded" => Recycling::Done(pod),
        "Failed" => {
            let status = pod.status.as_ref();
            let message = status.and_then(|status| status.message.clone());
            let message = message
                .filter(|message| !message.is_empty())
                .unwrap_or_else(|| "pod failed, pod.Status.Message unknown".to_owned());
            Recycling::Failed(pod, message)
        }
        _ => Recycling::Running,
    }
}

/// The events about an object that there are. The controller may watch events, not list them.
pub(super) async fn events_about(
    events: &Api<Event>,
    uid: &str,
) -> Result<Vec<Event>, kube::Error> {
    let about = WatchParams::default()
        .fields(&format!("involvedObject.uid={uid}"))
        .initial_events();
    let mut seen = Box::pin(Box::pin(events.watch(&about, "")).await?);
    let mut found = Vec::new();
    while let Some(event) = seen.try_next().await? {
        match event {
            WatchEvent::Added(event) => found.push(event),
            // All that there were have come.
            WatchEvent::Bookmark(_) => break,
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            WatchEvent::Modified(_) | WatchEvent::Deleted(_) => {}
        }
    }
    Ok(found)
}

/// An event of the recycler as the volume's.
pub(super) fn forwarded(event: &Event) -> (EventType, String) {
    let type_ = match event.type_.as_deref() {
        Some("Warning") => EventType::Warning,
        _ => EventType::Normal,
    };
    let message = event.message.as_deref().unwrap_or_default();
    (type_, format!("Recycler pod: {message}"))
}

/// The pods that have not ended and use the claim that the volume was bound to, in order.
pub(super) fn users(volume: &PersistentVolume, pods: &[Arc<Pod>]) -> Vec<String> {
    let name = claim_ref(volume).and_then(|reference| reference.name.as_deref());
    let uses = |pod: &&Arc<Pod>| {
        let claims = || volumes(pod).iter().filter_map(|one| claim_of(pod, one));
        !pods::is_terminal(pod) && claims().any(|claim| Some(&*claim) == name)
    };
    let mut users: Vec<String> = pods
        .iter()
        .filter(uses)
        .map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()))
        .collect();
    users.sort();
    users
}

/// The folder to delete with the volume; an error says why it may not be, `None` that the volume is
/// not of that kind.
pub(super) fn deletable(volume: &PersistentVolume) -> Option<Result<&Path, String>> {
    let path = &volume.spec.as_ref()?.host_path.as_ref()?.path;
    let inside = path
        .find("/tmp/")
        .is_some_and(|at| path.len() > at + "/tmp/".len());
    Some(if inside {
        Ok(Path::new(path))
    } else {
        Err(format!(
            "host_path deleter only supports /tmp/.+ but received provided {path}"
        ))
    })
}

/// Deletes the folder, or whatever there is. It may be gone already.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    let deleted = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn volume(source: &Value, size: &str) -> PersistentVolume {
        let mut spec = json!({ "capacity": { "storage": size },
            "claimRef": { "namespace": "ns", "name": "claim", "uid": "u" } });
        for (key, value) in source.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({ "metadata": { "name": "v" }, "spec": spec }))
            .expect("a volume")
    }

    fn host(path: &str) -> Value {
        json!({ "hostPath": { "path": path } })
    }

    #[test]
    fn a_pod_empties_the_volume_in_time() {
        let nfs = || json!({ "nfs": { "server": "s", "path": "/x" } });
        let cases = [
            (host("/data"), "1Gi", 60),
            (host("/data"), "2900Mi", 60),
            (host("/data"), "5Gi", 150),
            (nfs(), "5Gi", 300),
            (nfs(), "20Gi", 600),
        ];
        for (source, size, seconds) in cases {
            let pod = recycler(&volume(&source, size)).expect("a pod");
            let spec = pod.spec.as_ref().expect("a spec");
            assert_eq!(
                spec.active_deadline_seconds,
                Some(seconds),
                "{source} {size}"
            );
            let mut mounted = source;
            mounted["name"] = "vol".into();
            let volumes = serde_json::to_value(&spec.volumes).expect("JSON");
            assert_eq!(volumes, json!([mounted]));
            assert_eq!(recycled_by(&pod), Some("v"));
        }
        assert_eq!(
            recycler(&volume(&json!({ "local": { "path": "/x" } }), "1Gi")),
            None
        );
    }

    #[test]
    fn the_recycler_says_how_far_it_is() {
        let pod = |phase: &str, extra: Value| -> Arc<Pod> {
            let mut pod = json!({ "metadata": { "name": "recycler-for-v", "namespace": "ns" },
                "status": { "phase": phase } });
            for (key, value) in extra.as_object().into_iter().flatten() {
                let (part, field) = key.split_once('.').expect("a path");
                pod[part][field] = value.clone();
            }
            Arc::new(serde_json::from_value(pod).expect("a pod"))
        };
        let none = || json!({});
        assert_eq!(look(None, Vec::new()), Recycling::Due);
        let users = vec!["ns/p".to_owned()];
        assert_eq!(look(None, users.clone()), Recycling::Used(users));
        for phase in ["", "Pending", "Running"] {
            assert_eq!(
                look(Some(pod(phase, none())), Vec::new()),
                Recycling::Running
            );
        }
        let going = json!({ "metadata.deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert_eq!(
            look(Some(pod("Succeeded", going)), Vec::new()),
            Recycling::Running
        );
        let done = pod("Succeeded", none());
        assert_eq!(look(Some(done.clone()), Vec::new()), Recycling::Done(done));
        let failed = |extra: Value| match look(Some(pod("Failed", extra)), Vec::new()) {
            Recycling::Failed(_, why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(none()), "pod failed, pod.Status.Message unknown");
        assert_eq!(failed(json!({ "status.message": "late" })), "late");
    }

    #[test]
    fn events_of_the_recycler_are_the_volumes_too() {
        for (type_, expected) in [
            ("Warning", EventType::Warning),
            ("Normal", EventType::Normal),
        ] {
            let event = Event {
                type_: Some(type_.to_owned()),
                message: Some("no image".to_owned()),
                ..Event::default()
            };
            let message = "Recycler pod: no image".to_owned();
            assert_eq!(forwarded(&event), (expected, message));
        }
    }

    #[test]
    fn pods_that_have_ended_do_not_use_the_volume() {
        let pod = |name: &str, claim: &str, phase: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": { "name": name, "namespace": "ns" },
                    "spec": { "containers": [], "volumes": [
                        { "name": "v", "persistentVolumeClaim": { "claimName": claim } }] },
                    "status": { "phase": phase },
                }))
                .expect("a pod"),
            )
        };
        let pods = [
            pod("b", "claim", "Running"),
            pod("a", "claim", "Pending"),
            pod("c", "claim", "Succeeded"),
            pod("d", "other", "Running"),
        ];
        assert_eq!(users(&volume(&host("/x"), "1Gi"), &pods), ["ns/a", "ns/b"]);
    }

    #[test]
    fn only_what_is_temporary_is_deleted() {
        for (path, deleted) in [
            ("/tmp/a", true),
            ("/var/tmp/a/b", true),
            ("/tmp/", false),
            ("/tmp", false),
            ("/mnt/data", false),
        ] {
            let volume = volume(&host(path), "1Gi");
            let found = deletable(&volume).expect("a path on a host");
            assert_eq!(found.is_ok(), deleted, "{path}");
        }
        assert!(deletable(&volume(&json!({ "local": { "path": "/x" } }), "1Gi")).is_none());
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("volume");
        std::fs::create_dir_all(inner.join("deep")).expect("a folder");
        std::fs::write(inner.join("deep/file"), "x").expect("a file");
        delete(&inner).expect("deleted");
        assert!(!inner.exists());
        delete(&inner).expect("gone is as good");
    }
}
