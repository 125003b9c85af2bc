//! The volumes of one pod.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Instant,
};

use coracle_api::{
    core::pod::resources::{is_huge_page, pod_limits},
    quantity::{Amount, ResourceList},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, EmptyDirVolumeSource, ImageVolumeSource, NFSVolumeSource, PersistentVolume, Pod,
    PodSpec, ProjectedVolumeSource, Secret, Volume,
};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;

use super::{
    Error, Objects, atomic, claims, directories, nested,
    objects::Interested,
    ownership::{self, Group},
    payload::{self, Selection},
    teardown,
    tokens::{Tokens, Wanted},
};
use crate::{
    metrics,
    pods::{
        env::{self, Addresses},
        security,
        spec::{ephemeral_as_container, ephemeral_containers, main_containers, spec},
    },
};

/// The modes of files when a volume does not say; the API server fills them in.
const DEFAULT_MODE: u32 = 0o644;

/// What the volumes of all pods share.
#[derive(Clone)]
pub struct Volumes {
    client: Client,
    root_dir: PathBuf,
    /// By pod and volume.
    mounted: Arc<Mutex<HashMap<String, BTreeMap<String, PathBuf>>>>,
    pub config_maps: Objects<ConfigMap>,
    pub secrets: Objects<Secret>,
}

/// A volume that containers can mount.
#[derive(Clone, Debug, PartialEq)]
pub struct MountedVolume {
    /// On the host.
    pub path: PathBuf,
    /// Whether containers may not write to it, whatever they ask for.
    pub read_only: bool,
    /// Set for a volume that the runtime makes of an image; it has no path.
    pub image: Option<ImageVolumeSource>,
}

/// Why a volume is not set up.
#[derive(Debug)]
pub struct Failure {
    pub volume: String,
    pub error: Error,
    /// Whether it is not even known what to mount.
    pub unresolved: bool,
}

impl Failure {
    /// The message of the event, as upstream's.
    pub fn message(&self) -> String {
        let Failure { volume, error, .. } = self;
        match self.unresolved {
            false => format!("MountVolume.SetUp failed for volume {volume:?} : {error}"),
            true => format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached \
                 volumes=[], failed to process volumes=[{volume}]: {error}"
            ),
        }
    }
}

/// The volumes of one pod.
pub struct PodVolumes {
    node: Volumes,
    uid: String,
    directory: PathBuf,
    interested: Weak<dyn Interested>,
    tokens: Tokens,
    mounted: BTreeMap<String, MountedVolume>,
    up_to_date: bool,
}

/// What files of the downward API may tell.
pub struct Around<'a> {
    pub addresses: &'a Addresses,
    pub allocatable: &'a ResourceList,
}

impl Volumes {
    /// `root_dir` is the kubelet's.
    pub fn new(client: Client, root_dir: &Path) -> Self {
        Volumes {
            config_maps: Objects::new(client.clone()),
            secrets: Objects::new(client.clone()),
            client,
            root_dir: root_dir.to_owned(),
            mounted: Arc::default(),
        }
    }

    /// Where the volumes of every pod are that are set up, by its uid and their names.
    pub fn mounted(&self) -> HashMap<String, BTreeMap<String, PathBuf>> {
        self.mounted.lock().clone()
    }

    /// The volumes of a pod; `interested` is told when they have to be set up again.
    pub fn of_pod(&self, pod_uid: &str, interested: Weak<dyn Interested>) -> PodVolumes {
        PodVolumes {
            node: self.clone(),
            uid: pod_uid.to_owned(),
            directory: self.root_dir.join("pods").join(pod_uid),
            interested,
            tokens: Tokens::default(),
            mounted: BTreeMap::new(),
            up_to_date: false,
        }
    }
}

impl PodVolumes {
    /// The volumes that are set up, by name.
    pub fn mounted(&self) -> &BTreeMap<String, MountedVolume> {
        &self.mounted
    }

    /// What the volumes are made of has changed.
    pub fn mark_changed(&mut self) {
        self.up_to_date = false;
    }

    /// When the volumes have to be set up again although nothing changes.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.tokens.refresh_at()
    }

    /// Makes the pod's objects known; reading them starts now.
    pub fn refer(&self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        let (config_maps, secrets) = references(spec(pod));
        let node = &self.node;
        node.config_maps
            .refer(&self.uid, &namespace, config_maps, &self.interested);
        node.secrets
            .refer(&self.uid, &namespace, secrets, &self.interested);
    }

    /// Sets up every volume that a container mounts.
    ///
    /// # Errors
    /// Tells of each volume that cannot be set up; the others are.
    pub async fn set_up(&mut self, pod: &Pod, around: &Around<'_>) -> Result<(), Vec<Failure>> {
        let now = Timestamp::now();
        let due = self.refresh_at().is_some_and(|at| at <= now);
        if self.up_to_date && !due {
            return Ok(());
        }
        let spec = spec(pod);
        let used = used_volumes(spec);
        let mut failures = Vec::new();
        for volume in spec.volumes.iter().flatten() {
            if !used.contains(volume.name.as_str()) {
                continue;
            }
            let is_new = !self.mounted.contains_key(&volume.name);
            let since = Instant::now();
            let set_up = self.set_up_one(pod, volume, around, now).await;
            if is_new {
                metrics::volume(plugin(volume), since.elapsed(), set_up.is_err());
            }
            match set_up {
                Ok(mounted) => {
                    self.mounted.insert(volume.name.clone(), mounted);
                }
                Err((error, unresolved)) => failures.push(Failure {
                    volume: volume.name.clone(),
                    error,
                    unresolved,
                }),
            }
        }
        let places = self.mounted.iter();
        let places = places.map(|(name, mounted)| (name.clone(), mounted.path.clone()));
        let places: BTreeMap<String, PathBuf> = places
            .filter(|(_, path)| !path.as_os_str().is_empty())
            .collect();
        self.node.mounted.lock().insert(self.uid.clone(), places);
        if failures.is_empty() {
            self.up_to_date = true;
            Ok(())
        } else {
            Err(failures)
        }
    }

    /// Unmounts and removes everything of the pod on the host.
    pub async fn tear_down(&mut self) -> Result<(), Error> {
        self.node.config_maps.forget(&self.uid);
        self.node.secrets.forget(&self.uid);
        self.node.mounted.lock().remove(&self.uid);
        self.mounted.clear();
        self.up_to_date = false;
        let directory = self.directory.clone();
        on_disk(move || teardown::take_down(&directory).map_err(Error::io(&directory))).await
    }

    fn volume_dir(&self, plugin: &str, name: &str) -> PathBuf {
        self.directory
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"))
            .join(name)
    }

    async fn set_up_one(
        &mut self,
        pod: &Pod,
        volume: &Volume,
        around: &Around<'_>,
        now: Timestamp,
    ) -> Result<MountedVolume, (Error, bool)> {
        let set_up = |error| (error, false);
        if let Some(source) = &volume.empty_dir {
            return self
                .empty_dir(pod, volume, source, around)
                .await
                .map_err(set_up);
        }
        if let Some(source) = &volume.host_path {
            let kind = source.type_.as_deref().unwrap_or_default();
            return host_path(&source.path, kind).await.map_err(set_up);
        }
        if let Some(source) = &volume.image {
            return Ok(MountedVolume {
                path: PathBuf::new(),
                read_only: true,
                image: Some(source.clone()),
            });
        }
        if let Some(source) = &volume.nfs {
            let directory = self.volume_dir("nfs", &volume.name);
            return nfs(source, directory, &[]).await.map_err(set_up);
        }
        let generated = || format!("{}-{}", pod.name_any(), volume.name);
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some((claim.claim_name.clone(), claim.read_only == Some(true))),
            (None, Some(_)) => Some((generated(), false)),
            (None, None) => None,
        };
        if let Some((name, read_only)) = claim {
            let volume = claims::resolve(&self.node.client, pod, &name).await;
            let volume = volume.map_err(|error| (error, true))?;
            let mut mounted = self.persistent(pod, &volume).await.map_err(set_up)?;
            mounted.read_only |= read_only;
            return Ok(mounted);
        }
        self.of_files(pod, volume, around, now)
            .await
            .map_err(set_up)
    }

    async fn empty_dir(
        &self,
        pod: &Pod,
        volume: &Volume,
        source: &EmptyDirVolumeSource,
        around: &Around<'_>,
    ) -> Result<MountedVolume, Error> {
        let directory = self.volume_dir("empty-dir", &volume.name);
        let medium = source.medium.clone().unwrap_or_default();
        let size = memory_size(pod, source, around.allocatable);
        let page_size = huge_page_size(spec(pod), &medium);
        let group = group(pod);
        let path = directory.clone();
        let fresh = !self.mounted.contains_key(&volume.name);
        on_disk(move || {
            match medium.as_str() {
                "" => directories::make(&path)?,
                "Memory" => directories::make_in_memory(&path, Some(size))?,
                _ => {
                    let size = page_size.ok_or_else(|| {
                        Error::Source(format!(
                            "medium {medium:?} is not requested by any container"
                        ))
                    })?;
                    directories::make_of_huge_pages(&path, size)?;
                }
            }
            match group.filter(|_| fresh) {
                Some(group) => ownership::give(&path, group, false).map_err(Error::io(&path)),
                None => Ok(()),
            }
        })
        .await?;
        Ok(writable(directory))
    }

    async fn persistent(
        &self,
        pod: &Pod,
        volume: &PersistentVolume,
    ) -> Result<MountedVolume, Error> {
        let empty = Default::default();
        let spec = volume.spec.as_ref().unwrap_or(&empty);
        let name = volume.name_any();
        if let Some(source) = &spec.host_path {
            let kind = source.type_.as_deref().unwrap_or_default();
            return host_path(&source.path, kind).await;
        }
        if let Some(source) = &spec.local {
            let directory = self.volume_dir("local-volume", &name);
            let source = PathBuf::from(&source.path);
            let (target, group) = (directory.clone(), group(pod));
            on_disk(move || {
                if !source.exists() {
                    return Err(Error::Source(format!(
                        "path {:?} does not exist",
                        source.display()
                    )));
                }
                directories::bind(&source, &target)?;
                match group {
                    Some(group) => {
                        ownership::give(&target, group, false).map_err(Error::io(&target))
                    }
                    None => Ok(()),
                }
            })
            .await?;
            return Ok(writable(directory));
        }
        if let Some(source) = &spec.nfs {
            let directory = self.volume_dir("nfs", &name);
            let options = spec.mount_options.clone().unwrap_or_default();
            return nfs(source, directory, &options).await;
        }
        Err(Error::Source("no volume plugin matched".to_owned()))
    }

    /// Volumes that are written from objects of the API.
    async fn of_files(
        &mut self,
        pod: &Pod,
        volume: &Volume,
        around: &Around<'_>,
        now: Timestamp,
    ) -> Result<MountedVolume, Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let mode = |mode| payload::mode(mode, DEFAULT_MODE);
        let (plugin, in_memory, payload) = if let Some(source) = &volume.config_map {
            let selection = Selection {
                items: source.items.as_deref().unwrap_or_default(),
                default_mode: mode(source.default_mode),
                optional: source.optional == Some(true),
            };
            let payload = self
                .config_map(&namespace, &source.name, &selection)
                .await?;
            ("configmap", false, payload)
        } else if let Some(source) = &volume.secret {
            let selection = Selection {
                items: source.items.as_deref().unwrap_or_default(),
                default_mode: mode(source.default_mode),
                optional: source.optional == Some(true),
            };
            let name = source.secret_name.as_deref().unwrap_or_default();
            let payload = self.secret(&namespace, name, &selection).await?;
            ("secret", true, payload)
        } else if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            let default_mode = mode(source.default_mode);
            let payload = payload::downward(
                items,
                pod,
                default_mode,
                around.addresses,
                around.allocatable,
            )?;
            ("downward-api", true, payload)
        } else if let Some(source) = &volume.projected {
            let payload = self.projected(pod, source, around, now).await?;
            ("projected", true, payload)
        } else {
            return Err(Error::Source("no volume plugin matched".to_owned()));
        };
        let directory = self.volume_dir(plugin, &volume.name);
        self.write(pod, volume, &directory, in_memory, payload)
            .await?;
        Ok(MountedVolume {
            path: directory,
            read_only: true,
            image: None,
        })
    }

    async fn write(
        &self,
        pod: &Pod,
        volume: &Volume,
        directory: &Path,
        in_memory: bool,
        payload: atomic::Payload,
    ) -> Result<(), Error> {
        let directory = directory.to_owned();
        let mount_points = nested::mount_points(spec(pod), &volume.name);
        let group = group(pod);
        on_disk(move || {
            if in_memory {
                directories::make_in_memory(&directory, None)?;
            } else {
                directories::make(&directory)?;
            }
            for point in mount_points {
                let point = directory.join(point);
                std::fs::create_dir_all(&point).map_err(Error::io(&point))?;
            }
            atomic::write(&directory, &payload, |_| match group {
                Some(group) => ownership::give(&directory, group, true),
                None => Ok(()),
            })?;
            Ok(())
        })
        .await
    }

    async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        selection: &Selection<'_>,
    ) -> Result<atomic::Payload, Error> {
        let object = self.node.config_maps.get(namespace, name).await;
        let object = object.map_err(Error::Source)?;
        if object.is_none() && !selection.optional {
            return Err(Error::Source(format!("configmap {name:?} not found")));
        }
        payload::config_map(object.as_deref(), selection)
    }

    async fn secret(
        &self,
        namespace: &str,
        name: &str,
        selection: &Selection<'_>,
    ) -> Result<atomic::Payload, Error> {
        let object = self.node.secrets.get(namespace, name).await;
        let object = object.map_err(Error::Source)?;
        if object.is_none() && !selection.optional {
            return Err(Error::Source(format!("secret {name:?} not found")));
        }
        payload::secret(object.as_deref(), selection)
    }

    async fn projected(
        &mut self,
        pod: &Pod,
        source: &ProjectedVolumeSource,
        around: &Around<'_>,
        now: Timestamp,
    ) -> Result<atomic::Payload, Error> {
        let namespace = pod.namespace().unwrap_or_default();
        let default_mode = payload::mode(source.default_mode, DEFAULT_MODE);
        let user = only_user(pod);
        let mut payload = atomic::Payload::new();
        let mut errors = Vec::new();
        for source in source.sources.iter().flatten() {
            let part = if let Some(source) = &source.config_map {
                let selection = Selection {
                    items: source.items.as_deref().unwrap_or_default(),
                    default_mode,
                    optional: source.optional == Some(true),
                };
                self.config_map(&namespace, &source.name, &selection).await
            } else if let Some(source) = &source.secret {
                let selection = Selection {
                    items: source.items.as_deref().unwrap_or_default(),
                    default_mode,
                    optional: source.optional == Some(true),
                };
                self.secret(&namespace, &source.name, &selection).await
            } else if let Some(source) = &source.downward_api {
                let items = source.items.as_deref().unwrap_or_default();
                let (addresses, allocatable) = (around.addresses, around.allocatable);
                payload::downward(items, pod, default_mode, addresses, allocatable)
            } else if let Some(source) = &source.service_account_token {
                let wanted = Wanted::new(source.audience.as_deref(), source.expiration_seconds);
                let token = self.tokens.get(&self.node.client, pod, &wanted, now).await;
                // Only whom the token is for may read it, where that is known.
                let private = user.is_some() || group(pod).is_some();
                token.map(|token| {
                    let file = atomic::File {
                        content: token.into_bytes(),
                        mode: if private { 0o600 } else { default_mode },
                        user,
                    };
                    [(source.path.clone(), file)].into()
                })
            } else {
                Err(Error::Source(
                    "the projected volume has a source of unknown type".to_owned(),
                ))
            };
            match part {
                Ok(part) => payload.extend(part),
                Err(error) => errors.push(error.to_string()),
            }
        }
        match errors.as_slice() {
            [] => Ok(payload),
            [only] => Err(Error::Source(only.clone())),
            several => Err(Error::Source(format!("[{}]", several.join(", ")))),
        }
    }
}

/// Runs what may wait for a disk where waiting holds nobody up.
/// What upstream calls the plugin of the volume.
fn plugin(volume: &Volume) -> &'static str {
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

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Source(error.to_string())),
    }
}

fn writable(path: PathBuf) -> MountedVolume {
    MountedVolume {
        path,
        read_only: false,
        image: None,
    }
}

async fn host_path(path: &str, kind: &str) -> Result<MountedVolume, Error> {
    let (checked, kind) = (path.to_owned(), kind.to_owned());
    on_disk(move || directories::check_host_path(&checked, &kind)).await?;
    Ok(writable(PathBuf::from(path)))
}

async fn nfs(
    source: &NFSVolumeSource,
    directory: PathBuf,
    options: &[String],
) -> Result<MountedVolume, Error> {
    let read_only = source.read_only == Some(true);
    let mounted = || directories::is_mount_point(&directory);
    if !mounted() {
        std::fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
        let mut options = options.to_vec();
        options.extend(read_only.then(|| "ro".to_owned()));
        let mut command = tokio::process::Command::new("mount");
        command.args(["-t", "nfs"]);
        if !options.is_empty() {
            command.arg("-o").arg(options.join(","));
        }
        command
            .arg(format!("{}:{}", source.server, source.path))
            .arg(&directory)
            .kill_on_drop(true);
        let output = command.output().await.map_err(Error::io("mount"))?;
        if !output.status.success() {
            return Err(Error::Source(format!(
                "mount failed: {}\nOutput: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
    }
    Ok(MountedVolume {
        read_only,
        ..writable(directory)
    })
}

/// The group that the pod's volumes are given to.
fn group(pod: &Pod) -> Option<Group> {
    let context = spec(pod).security_context.as_ref()?;
    Some(Group {
        id: u32::try_from(context.fs_group?).ok()?,
        only_on_mismatch: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
    })
}

/// The user that every container of the pod runs as, if it is one and said so.
fn only_user(pod: &Pod) -> Option<u32> {
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
fn used_volumes(spec: &PodSpec) -> BTreeSet<&str> {
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
fn references(spec: &PodSpec) -> (BTreeSet<String>, BTreeSet<String>) {
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
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, allocatable: &ResourceList) -> i64 {
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
fn huge_page_size(spec: &PodSpec, medium: &str) -> Option<i64> {
    if let Some(size) = medium.strip_prefix("HugePages-") {
        return Amount::parse(size).ok().map(Amount::value);
    }
    let limits = pod_limits(spec);
    let name = limits.keys().find(|name| is_huge_page(name))?;
    let size = name.strip_prefix("hugepages-")?;
    Amount::parse(size).ok().map(Amount::value)
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
