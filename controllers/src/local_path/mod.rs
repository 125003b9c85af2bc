//! Volumes that are folders of a node: what the default class `local-path` makes of claims.
//!
//! Enter at [`run`], which runs on each node and looks after that node's volumes only. The
//! scheduler chooses the node; the folder is made before the volume is told of, and removed before
//! the volume is. Names, events and objects are those of Rancher's local-path-provisioner, which
//! k3s users know, and of upstream's library for provisioners.

mod folder;
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
    let provisioner = Provisioner {
        claims: context.objects(),
        volumes: context.objects(),
        classes: context.informers.get(),
        nodes: context.informers.get(),
        recorder: context.recorder(NAME),
        queue: Queue::named("local_path"),
        folder: Arc::new(Folder::new(local.folder)),
        node_name: local.node_name,
    };
    provisioner.run(shutdown).await
}

struct Provisioner {
    node_name: String,
    folder: Arc<Folder>,
    claims: Objects<PersistentVolumeClaim>,
    volumes: Objects<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    recorder: EventRecorder,
    /// Claims by namespace and name, volumes by name alone.
    queue: Queue<Key>,
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
            Ok(limited) => {
                let message = format!("Successfully provisioned volume {name}");
                let type_ = EventType::Normal;
                self.tell(claim, type_, "ProvisioningSucceeded", message);
                if !limited {
                    let message = "the size of the volume is not enforced: its folder may grow \
                                   until the file system is full";
                    self.tell(claim, type_, "QuotaNotEnforced", message.to_owned());
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
    ) -> Result<bool, String> {
        volume::check(claim)?;
        let node = self.nodes.get("", &self.node_name);
        let hostname = node
            .as_ref()
            .and_then(|node| node.labels().get("kubernetes.io/hostname"));
        let hostname = hostname.map_or(self.node_name.as_str(), String::as_str);
        let folder = self.folder.clone();
        let name = volume::folder_name(claim);
        let made = tokio::task::spawn_blocking(move || folder.make(&name)).await;
        let path = made.map_err(|error| error.to_string())??;
        let place = volume::Place {
            node_name: &self.node_name,
            hostname,
            path: &path,
        };
        let volume = volume::of(claim, class, &place);
        match self.volumes.create(&volume).await {
            Ok(_) => Ok(false),
            Err(error) if error::is_already_exists(&error) => Ok(false),
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
        let folder = self.folder.clone();
        let removed = tokio::task::spawn_blocking(move || folder.remove(&path)).await;
        let removed = removed.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(why) = removed {
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
