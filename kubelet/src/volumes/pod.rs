//! The volumes of one pod.

mod files;
mod needs;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Instant,
};

use coracle_api::quantity::ResourceList;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, EmptyDirVolumeSource, ImageVolumeSource, NFSVolumeSource, PersistentVolume, Pod,
    Secret, Volume,
};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;

use needs::{group, huge_page_size, memory_size, plugin, references, used_volumes};

use super::{
    Error, Objects, claims, directories, objects::Interested, ownership, teardown, tokens::Tokens,
};
use crate::{
    metrics,
    pods::{env::Addresses, spec::spec},
};

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
