//! What the runtime is told of a container (upstream's `generateContainerConfig`).

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount,
    MountPropagation,
};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::{
    env::expand,
    labels, resources,
    resources::Machine,
    security,
    security::{ImageUser, Policy},
    spec::is_host_network,
};
use crate::volumes::{self, MountedVolume, Part};

const HOSTS: &str = "/etc/hosts";

/// What a container is made from beside its specification.
pub struct Ingredients<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub restart_count: i32,
    /// What the runtime calls the image.
    pub image_ref: &'a str,
    pub image_user: &'a ImageUser,
    pub env: &'a BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    pub machine: &'a Machine,
    pub policy: &'a Policy<'a>,
    /// The container that an ephemeral one looks into.
    pub target_id: Option<&'a str>,
}

/// Puts the configuration together.
///
/// # Errors
/// In upstream's words, when the container is not allowed what it asks for.
pub fn config(of: Ingredients<'_>) -> Result<ContainerConfig, String> {
    let container = of.container;
    let lookup = |name: &str| of.env.get(name).map(String::as_str);
    let expanded = |words: &Option<Vec<String>>| {
        let words = words.iter().flatten();
        words.map(|word| expand(word, lookup)).collect::<Vec<_>>()
    };
    let mut context = security::container(of.pod, container, of.image_user, of.policy)?;
    if let Some(target) = of.target_id {
        security::target(&mut context, target);
    }
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: u32::try_from(of.restart_count).unwrap_or(0),
        }),
        image: Some(ImageSpec {
            image: of.image_ref.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: of
            .env
            .iter()
            .map(|(key, value)| KeyValue {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        mounts: of.mounts,
        labels: labels::of_container(of.pod, container),
        annotations: labels::annotations(of.pod, container, of.restart_count),
        log_path: log_path(&container.name, of.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::of_container(of.pod, container, of.machine)),
            security_context: Some(context),
        }),
        ..ContainerConfig::default()
    })
}

/// The log of a container's run, relative to the pod's log directory.
pub fn log_path(container: &str, restart_count: i32) -> String {
    format!("{container}/{restart_count}.log")
}

/// How often a container was started before, by the logs that it has left.
pub fn restart_count_by_logs(directory: &Path) -> i32 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (number, rest) = name.split_once(".log")?;
            let rotated = rest.is_empty() || rest.starts_with('.');
            rotated.then(|| number.parse::<i32>().ok()).flatten()
        })
        .map(|number| number + 1)
        .max()
        .unwrap_or(0)
}

/// Where a container's mounts come from.
pub struct MountSources<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub volumes: &'a BTreeMap<String, MountedVolume>,
    pub env: &'a BTreeMap<String, String>,
    pub pod_dir: &'a Path,
    pub recursive_read_only_mounts: bool,
    /// The content of the pod's `/etc/hosts`; none when the pod has no address.
    pub hosts_file: Option<&'a str>,
    /// What the runtime calls the images of volumes that are made of one.
    pub images: &'a BTreeMap<String, ImageSpec>,
}

/// The mounts of a container. Makes what has to be there on the host.
///
/// # Errors
/// In upstream's words.
pub fn mounts(of: &MountSources<'_>) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    let own = of.container.volume_mounts.as_deref().unwrap_or_default();
    for (index, mount) in own.iter().enumerate() {
        mounts.push(volume_mount(of, mount, index)?);
    }
    let own_hosts = own.iter().any(|mount| mount.mount_path == HOSTS);
    if let Some(content) = of.hosts_file.filter(|_| !own_hosts) {
        let path = of.pod_dir.join("etc-hosts");
        write(&path, content, 0o644).map_err(|error| format!("{}: {error}", path.display()))?;
        mounts.push(host_mount(&path, HOSTS));
    }
    mounts.extend(termination_log(of)?);
    Ok(mounts)
}

/// Whether the pod's `/etc/hosts` is ours to write.
pub fn has_hosts_file(pod: &Pod, ips: &[String]) -> bool {
    !ips.is_empty() || is_host_network(pod)
}

fn write(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    // Running containers have the file mounted: it is written over, not replaced.
    if fs::read_to_string(path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn host_mount(host: &Path, container: &str) -> Mount {
    Mount {
        container_path: absolute(container),
        host_path: host.to_string_lossy().into_owned(),
        ..Mount::default()
    }
}

fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    }
}

fn volume_mount(of: &MountSources<'_>, mount: &VolumeMount, index: usize) -> Result<Mount, String> {
    let name = &mount.name;
    let volume = of.volumes.get(name).ok_or_else(|| {
        format!(
            "cannot find volume {name:?} to mount into container {:?}",
            of.container.name
        )
    })?;
    let mut result = Mount {
        container_path: absolute(&mount.mount_path),
        readonly: mount.read_only == Some(true) || volume.read_only,
        propagation: propagation(mount)?.into(),
        recursive_read_only: recursive_read_only(mount, of.recursive_read_only_mounts)?,
        ..Mount::default()
    };
    if volume.image.is_some() {
        result.image = of.images.get(name).cloned();
        return Ok(result);
    }
    let part = part(of, mount)?;
    let path: PathBuf = match part.as_str() {
        "" => volume.path.clone(),
        part => volumes::prepare_part(&Part {
            pod_dir: of.pod_dir,
            volume: name,
            volume_path: &volume.path,
            container: &of.container.name,
            index,
            path: part,
        })
        .map_err(|error| {
            tracing::warn!(volume = name, %error, "cannot prepare a part of a volume");
            match error {
                volumes::Error::Source(message) => message,
                volumes::Error::Io { .. } => format!(
                    "failed to prepare subPath for volumeMount {name:?} of container {:?}",
                    of.container.name
                ),
            }
        })?,
    };
    result.host_path = path.to_string_lossy().into_owned();
    Ok(result)
}

/// The part of the volume that is mounted; all of it when empty.
fn part(of: &MountSources<'_>, mount: &VolumeMount) -> Result<String, String> {
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    if expression.is_empty() {
        return Ok(mount.sub_path.clone().unwrap_or_default());
    }
    let missing = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let lookup = |name: &str| {
        let value = of.env.get(name).map(String::as_str);
        if value.is_none_or(str::is_empty) {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    };
    let expanded = expand(expression, lookup);
    let missing: Vec<String> = missing.into_inner().into_iter().collect();
    match missing.is_empty() {
        true => Ok(expanded),
        false => Err(format!("missing value for {}", missing.join(", "))),
    }
}

fn propagation(mount: &VolumeMount) -> Result<MountPropagation, String> {
    match mount.mount_propagation.as_deref() {
        None | Some("None") => Ok(MountPropagation::PropagationPrivate),
        Some("HostToContainer") => Ok(MountPropagation::PropagationHostToContainer),
        Some("Bidirectional") => Ok(MountPropagation::PropagationBidirectional),
        Some(other) => Err(format!("invalid MountPropagation mode: {other:?}")),
    }
}

fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, String> {
    let refuse = |why: String| {
        Err(format!(
            "failed to resolve recursive read-only mode: volume {:?} requested recursive \
             read-only mode, but it is {why}",
            mount.name
        ))
    };
    let mode = mount.recursive_read_only.as_deref().unwrap_or("Disabled");
    if mode == "Disabled" {
        return Ok(false);
    }
    if mount.read_only != Some(true) {
        return refuse("not read-only".to_owned());
    }
    if let Some(propagation) = mount
        .mount_propagation
        .as_deref()
        .filter(|&it| it != "None")
    {
        return refuse(format!("not compatible with propagation {propagation:?}"));
    }
    match mode {
        "IfPossible" => Ok(supported),
        "Enabled" if supported => Ok(true),
        "Enabled" => refuse("not supported by the runtime".to_owned()),
        other => Err(format!(
            "failed to resolve recursive read-only mode: unknown recursive read-only mode {other:?}"
        )),
    }
}

/// The file in which the container leaves its last words: a new one for each run.
fn termination_log(of: &MountSources<'_>) -> Result<Option<Mount>, String> {
    let path = of.container.termination_message_path.as_deref();
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let directory = of.pod_dir.join("containers").join(&of.container.name);
    let file = directory.join(format!("{:08x}", u32::from_le_bytes(random())));
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&file, ""))
        .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o666)))
        .map_err(|error| {
            format!(
                "error on creating termination-log file {:?}: {error}",
                file.display()
            )
        })?;
    Ok(Some(host_mount(&file, path)))
}

fn random() -> [u8; 4] {
    let id = uuid::Uuid::new_v4();
    let bytes = id.as_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::spec::spec;
    use serde_json::{Value, json};

    fn pod(container: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        pod["spec"]["containers"] = json!([]);
        pod["spec"]["containers"]
            .as_array_mut()
            .expect("a list")
            .push(container);
        serde_json::from_value(pod).expect("a pod")
    }

    fn of(container: Value) -> Result<Vec<Mount>, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let volume = |name: &str, read_only| {
            let volume = MountedVolume {
                path: PathBuf::from(format!("/host/{name}")),
                read_only,
                image: None,
            };
            (name.to_owned(), volume)
        };
        let pod = pod(container);
        mounts(&MountSources {
            pod: &pod,
            container: &spec(&pod).containers[0],
            volumes: &[volume("data", false), volume("config", true)].into(),
            env: &[("NAME".to_owned(), "x".to_owned())].into(),
            pod_dir: directory.path(),
            recursive_read_only_mounts: false,
            hosts_file: Some("127.0.0.1\tlocalhost\n"),
            images: &BTreeMap::new(),
        })
    }

    #[test]
    fn mounts_follow_the_specification() {
        let mounts = of(json!({
            "name": "c", "terminationMessagePath": "/dev/termination-log",
            "volumeMounts": [
                {"name": "data", "mountPath": "data", "mountPropagation": "HostToContainer"},
                {"name": "config", "mountPath": "/etc/config"},
            ],
        }))
        .expect("all volumes are there");
        let seen: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.container_path.as_str(), mount.readonly))
            .collect();
        let expected = [
            ("/data", false),
            ("/etc/config", true),
            ("/etc/hosts", false),
            ("/dev/termination-log", false),
        ];
        assert_eq!(seen, expected);
        assert_eq!(
            mounts[0].propagation(),
            MountPropagation::PropagationHostToContainer
        );
        assert_eq!(mounts[0].host_path, "/host/data");
    }

    #[test]
    fn what_cannot_be_mounted_is_told_in_upstreams_words() {
        let cases = [
            (
                json!({"name": "none", "mountPath": "/x"}),
                "cannot find volume \"none\" to mount into container \"c\"",
            ),
            (
                json!({"name": "data", "mountPath": "/x", "subPathExpr": "$(NAME)/$(OTHER)"}),
                "missing value for OTHER",
            ),
            (
                json!({"name": "data", "mountPath": "/x", "subPath": "/abs"}),
                "error SubPath `/abs` must not be an absolute path",
            ),
            (
                json!({
                    "name": "data", "mountPath": "/x", "readOnly": true,
                    "recursiveReadOnly": "Enabled",
                }),
                "failed to resolve recursive read-only mode: volume \"data\" requested recursive \
                 read-only mode, but it is not supported by the runtime",
            ),
        ];
        for (mount, expected) in cases {
            let result = of(json!({"name": "c", "volumeMounts": [mount]}));
            assert_eq!(result.err().as_deref(), Some(expected));
        }
    }

    #[test]
    fn restarts_are_counted_by_logs() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(restart_count_by_logs(&directory.path().join("none")), 0);
        for name in ["0.log", "2.log", "2.log.20260101-000000.gz", "x.log"] {
            fs::write(directory.path().join(name), "").expect("it is written");
        }
        assert_eq!(restart_count_by_logs(directory.path()), 3);
    }
}
