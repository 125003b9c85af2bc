//! Volumes that are folders of a node: what the default class `local-path` makes of claims.
//!
//! Enter at [`run`], which runs on each node and looks after that node's volumes only. The
//! scheduler chooses the node; the folder is made before the volume is told of, and removed before
//! the volume is. Names, events and objects are those of Rancher's local-path-provisioner, which
//! k3s users know, and of upstream's library for provisioners.

mod folder;
mod quota;
#[cfg(test)]
mod tests;
mod volume;

use std::{path::PathBuf, sync::Arc};

use coracle_api::{
    claims::{self, PROVISIONER, SELECTED_NODE},
    quantity::Amount,
};
use coracle_client::{EventRecorder, EventType, Informer, Queue};
use k8s_openapi::{
    api::{
        core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{ResourceExt as _, api::DeleteParams};
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Seen},
    error,
    objects::Objects,
    work::{self, Done, Key},
};

use folder::Folder;
use quota::{Held, Kernel, Projects, Quotas};

/// The provisioner that classes name.
pub const NAME: &str = "rancher.io/local-path";

const WORKERS: usize = 2;

/// Where a node keeps its volumes.
#[derive(Clone, Debug)]
pub struct LocalPath {
    pub node_name: String,
    /// Each volume is a folder in this one.
    pub folder: PathBuf,
}

/// Makes and removes the node's volumes until `shutdown`.
pub async fn run(
    context: Context,
    local: LocalPath,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let provisioner = Provisioner::new(&context, local, Box::new(Kernel));
    provisioner.run(shutdown).await
}

struct Provisioner {
    node_name: String,
    storage: Arc<Storage>,
    claims: Objects<PersistentVolumeClaim>,
    volumes: Objects<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    recorder: EventRecorder,
    /// Claims by namespace and name, volumes by name alone.
    queue: Queue<Key>,
}

/// What is on the disk of the node. It is asked on threads that may wait for the disk.
struct Storage {
    folder: Folder,
    quotas: Quotas,
}

impl Storage {
    /// Makes a folder that is held to this size, if the file system can.
    fn make(&self, name: &str, size: Amount) -> Result<(PathBuf, Held), String> {
        let path = self.folder.make(name)?;
        let held = self.quotas.hold(&path, bytes(size));
        Ok((path, held))
    }

    fn resize(&self, path: &str, size: Amount) -> Result<(), String> {
        let path = self.folder.find(path)?;
        let resized = self.quotas.resize(&path, bytes(size));
        resized.map_err(|error| format!("cannot set the quota of {}: {error}", path.display()))
    }

    /// `project` is what the volume said to be held by.
    fn remove(&self, path: &str, project: Option<u32>) -> Result<(), String> {
        let known = self.folder.find(path).ok();
        let project = project.or_else(|| self.quotas.project(&known?));
        self.folder.remove(path)?;
        let Some(project) = project else {
            return Ok(());
        };
        let released = self.quotas.release(self.folder.path(), project);
        released.map_err(|error| format!("cannot give the quota of {path} back: {error}"))
    }
}

fn bytes(size: Amount) -> u64 {
    u64::try_from(size.value()).unwrap_or(0)
}

async fn on_disk<T: Send + 'static>(
    storage: &Arc<Storage>,
    work: impl FnOnce(&Storage) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let storage = storage.clone();
    let done = tokio::task::spawn_blocking(move || work(&storage)).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default()
}

impl Provisioner {
    fn new(context: &Context, local: LocalPath, projects: Box<dyn Projects>) -> Self {
        Provisioner {
            claims: context.objects(),
            volumes: context.objects(),
            classes: context.informers.get(),
            nodes: context.informers.get(),
            recorder: context.recorder(NAME),
            queue: Queue::named("local_path"),
            storage: Arc::new(Storage {
                folder: Folder::new(local.folder),
                quotas: Quotas::new(projects),
            }),
            node_name: local.node_name,
        }
    }

    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let claims = changes::each(&self.claims.cache, |seen| {
            if let Seen::Applied { new: claim, .. } = seen {
                self.queue.add(Key::of(&claim.metadata));
            }
        });
        let volumes = changes::each(&self.volumes.cache, |seen| {
            if let Seen::Applied { new: volume, .. } = seen {
                self.queue.add(Key::new("", volume.name_any()));
            }
        });
        let workers = async {
            self.claims.cache.synced().await;
            self.volumes.cache.synced().await;
            self.classes.synced().await;
            self.nodes.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = claims => {}
            () = volumes => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn sync(&self, key: Key) -> Result<Done, Error> {
        if key.namespace.is_empty() {
            if let Some(volume) = self.volumes.get("", &key.name)
                && volume::is_to_be_removed(&volume, &self.node_name)
            {
                self.remove(&volume).await?;
            }
        } else if let Some(claim) = self.claims.get(&key.namespace, &key.name) {
            if volume_name(&claim).is_empty() {
                self.provision(&claim).await?;
            } else {
                self.expand(&claim).await?;
            }
        }
        Ok(Done::Settled)
    }

    /// Makes the volume of a claim whose first pod comes to this node.
    async fn provision(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let ours = annotation(claim, PROVISIONER) == Some(NAME)
            && annotation(claim, SELECTED_NODE) == Some(&self.node_name)
            && claim.metadata.deletion_timestamp.is_none();
        let name = volume::name(claim);
        let class = self.classes.get("", claims::claim_class(claim));
        let Some(class) = class.filter(|class| ours && class.provisioner == NAME) else {
            return Ok(());
        };
        if self.volumes.get("", &name).is_some() {
            // It only has to be bound.
            return Ok(());
        }
        let (namespace, claimed) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let message = format!(
            "External provisioner is provisioning volume for claim \"{namespace}/{claimed}\""
        );
        self.tell(claim, EventType::Normal, "Provisioning", message);
        match self.make(claim, &class).await {
            Ok(held) => {
                let message = format!("Successfully provisioned volume {name}");
                let type_ = EventType::Normal;
                self.tell(claim, type_, "ProvisioningSucceeded", message);
                if let Held::Not(why) = held {
                    let message = format!(
                        "the size of the volume is not enforced: its folder may grow until the \
                         file system is full: {why}"
                    );
                    self.tell(claim, type_, "QuotaNotEnforced", message);
                }
                Ok(())
            }
            Err(why) => {
                let class = class.name_any();
                let message =
                    format!("failed to provision volume with StorageClass {class:?}: {why}");
                let type_ = EventType::Warning;
                self.tell(claim, type_, "ProvisioningFailed", message.clone());
                Err(Error::Refused(message))
            }
        }
    }

    /// Returns whether the file system holds the volume to its size.
    async fn make(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<Held, String> {
        volume::check(claim)?;
        let node = self.nodes.get("", &self.node_name);
        let hostname = node
            .as_ref()
            .and_then(|node| node.labels().get("kubernetes.io/hostname"));
        let hostname = hostname.map_or(self.node_name.as_str(), String::as_str);
        let (name, size) = (volume::folder_name(claim), claims::requested(claim));
        let made = on_disk(&self.storage, move |storage| storage.make(&name, size));
        let (path, held) = made.await?;
        let place = volume::Place {
            node_name: &self.node_name,
            hostname,
            path: &path,
            held: &held,
        };
        let volume = volume::of(claim, class, &place);
        match self.volumes.create(&volume).await {
            Ok(_) => Ok(held),
            Err(error) if error::is_already_exists(&error) => Ok(held),
            Err(error) => Err(error::message(&error)),
        }
    }

    /// Gives a claim that asks for more what it asks for.
    async fn expand(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let Some(volume) = self.volumes.get("", volume_name(claim)) else {
            return Ok(());
        };
        if !volume::is_ours(&volume, &self.node_name) || !claims::is_bound_to(&volume, claim) {
            return Ok(());
        }
        let wanted = claims::requested(claim);
        if wanted > claims::capacity(&volume) {
            let name = volume.name_any();
            let message = format!("External resizer is resizing volume {name}");
            self.tell(claim, EventType::Normal, "Resizing", message);
            let path = volume::path(&volume).unwrap_or_default().to_owned();
            let resized = on_disk(&self.storage, move |storage| storage.resize(&path, wanted));
            if let Err(why) = resized.await {
                let message = format!("resize volume {name:?} failed: {why}");
                let type_ = EventType::Warning;
                self.tell(claim, type_, "VolumeResizeFailed", message);
                return Err(Error::Refused(why));
            }
            let mut next = (*volume).clone();
            let spec = next.spec.get_or_insert_default();
            let capacity = spec.capacity.get_or_insert_default();
            capacity.insert("storage".to_owned(), wanted.to_quantity());
            self.volumes.replace(&next).await?;
        } else if wanted <= given(claim) || claims::capacity(&volume) <= given(claim) {
            return Ok(());
        }
        self.grant(claim, wanted.to_quantity()).await
    }

    async fn grant(&self, claim: &PersistentVolumeClaim, size: Quantity) -> Result<(), Error> {
        let mut next = claim.clone();
        let status = next.status.get_or_insert_default();
        // A claim that is not bound yet gets all that its volume has when it is.
        if status.phase.as_deref() != Some("Bound") {
            return Ok(());
        }
        let capacity = status.capacity.get_or_insert_default();
        capacity.insert("storage".to_owned(), size);
        self.claims.replace_status(&next).await?;
        let message = "Resize volume succeeded".to_owned();
        let reason = "VolumeResizeSuccessful";
        self.tell(claim, EventType::Normal, reason, message);
        Ok(())
    }

    /// Removes the folder, then the volume.
    async fn remove(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let path = volume::path(volume).unwrap_or_default().to_owned();
        let project = volume::project(volume);
        let removed = on_disk(&self.storage, move |storage| storage.remove(&path, project));
        if let Err(why) = removed.await {
            let type_ = EventType::Warning;
            self.recorder
                .on(volume, type_, "VolumeFailedDelete", why.clone());
            return Err(Error::Refused(why));
        }
        self.volumes.delete(volume, DeleteParams::default()).await?;
        Ok(())
    }

    fn tell(&self, claim: &PersistentVolumeClaim, type_: EventType, reason: &str, message: String) {
        self.recorder.on(claim, type_, reason, message);
    }
}

/// What the claim's status says that it has.
fn given(claim: &PersistentVolumeClaim) -> Amount {
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.map(Amount::from).unwrap_or_default()
}
