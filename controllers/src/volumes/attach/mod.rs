//! Attaches the volumes of CSI drivers to the nodes whose pods use them, and detaches them after:
//! writes the VolumeAttachments that drivers follow, and tells nodes what they may mount.
//!
//! Enter at [`run`]. What is to be done with one volume is in [`decide`]. The attachments and the
//! nodes' statuses are the memory: after a restart it goes on from them. Upstream:
//! `pkg/controller/volume/attachdetach`, for what CSI drivers attach; no other plugin is left that
//! needs it.

mod decide;
mod follow;
mod volume;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use coracle_client::{EventRecorder, EventType, Informer, Queue};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSIDriver, VolumeAttachment},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Action, Driver, Failure, Holder, LONGEST_ATTACH, Site, decide},
    volume::{Volume, is_bound, is_shared, needs},
};
use crate::{
    Context, Error, conditions, error,
    node::taints,
    objects::Objects,
    pods,
    work::{self, Done},
};

const NAME: &str = "attachdetach-controller";
const WORKERS: usize = 10;
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// Runs the controller.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let controller = Controller {
        nodes: context.objects(),
        attachments: context.objects(),
        pods: context.informers.get(),
        claims: context.informers.get(),
        volumes: context.informers.get(),
        drivers: context.informers.get(),
        recorder: context.recorder(NAME),
        queue: Queue::named("pvcs"),
        memory: Mutex::default(),
    };
    controller.run(shutdown).await
}

struct Controller {
    nodes: Objects<Node>,
    attachments: Objects<VolumeAttachment>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    recorder: EventRecorder,
    queue: Queue<Volume>,
    memory: Mutex<Memory>,
}

/// What is not written anywhere. Without it things are told once more and waited for anew.
#[derive(Default)]
struct Memory {
    /// Since when a volume has not been wanted on a node that has it.
    unwanted: HashMap<(Volume, String), Instant>,
    /// What the pods on a node were last told of a volume that they wait for.
    told: HashMap<(Volume, String), String>,
    /// What nodes used that are gone.
    lost: HashMap<String, HashSet<String>>,
}

/// A volume and all nodes that it has to do with.
struct Scene {
    volume: Volume,
    /// The PersistentVolume, unless it is gone.
    object: Option<Arc<PersistentVolume>>,
    sites: BTreeMap<String, Site>,
    /// By node.
    users: BTreeMap<String, Vec<Arc<Pod>>>,
}

impl Scene {
    fn about(&self, what: &str, more: &str) -> String {
        let name = self.object.as_ref().map(|object| object.name_any());
        format!("{what} for volume {:?} {more}", name.unwrap_or_default())
    }

    fn users(&self, node: &str) -> &[Arc<Pod>] {
        self.users.get(node).map_or(&[], Vec::as_slice)
    }
}

fn is_reported(node: &Node, unique: &str) -> bool {
    let status = node.status.as_ref();
    let attached = status.and_then(|status| status.volumes_attached.as_ref());
    attached
        .into_iter()
        .flatten()
        .any(|attached| attached.name == unique)
}

fn in_use(node: &Node) -> impl Iterator<Item = &String> {
    let status = node.status.as_ref();
    status
        .and_then(|status| status.volumes_in_use.as_ref())
        .into_iter()
        .flatten()
}

fn is_managed(node: &Node) -> bool {
    node.annotations().contains_key(MANAGED)
}

fn is_healthy(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions::find(conditions, "Ready").is_some_and(|ready| ready.status == "True")
}

fn is_out_of_service(node: &Node) -> bool {
    let mut taints = taints::list(node).iter();
    taints.any(|taint| taint.key == taints::OUT_OF_SERVICE)
}

fn driver(attachment: &VolumeAttachment, now: Timestamp) -> Driver {
    if attachment.metadata.deletion_timestamp.is_some() {
        return Driver::Detaching;
    }
    let status = attachment.status.as_ref();
    if status.is_some_and(|status| status.attached) {
        return Driver::Attached;
    }
    if let Some(error) = status.and_then(|status| status.attach_error.as_ref()) {
        return Driver::Failed(error.message.clone().unwrap_or_default());
    }
    let created = attachment.metadata.creation_timestamp.as_ref();
    let since = created.map(|created| now.duration_since(created.0));
    Driver::Silent(since.map_or_else(Default::default, |since| {
        since.try_into().unwrap_or_default()
    }))
}

/// What pods are told when others on these nodes have the volume that they wait for.
fn refusal(pod: &Pod, others: &[Arc<Pod>]) -> String {
    let (near, far): (Vec<_>, Vec<_>) = others
        .iter()
        .partition(|other| other.metadata.namespace == pod.metadata.namespace);
    let names: Vec<String> = near.iter().map(|other| other.name_any()).collect();
    match (names.join(", "), far.len()) {
        (_, 0) if others.is_empty() => "Volume is already exclusively attached to one node and \
                                        can't be attached to another"
            .to_owned(),
        (names, 0) => format!("Volume is already used by pod(s) {names}"),
        (names, far) if names.is_empty() => {
            format!("Volume is already used by {far} pod(s) in different namespaces")
        }
        (names, far) => format!(
            "Volume is already used by pod(s) {names} and {far} pod(s) in different namespaces"
        ),
    }
}

impl Controller {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let workers = async {
            self.synced().await;
            work::work(NAME, &self.queue, WORKERS, &shutdown, |key| self.sync(key)).await;
        };
        tokio::select! {
            () = self.follow() => {}
            () = workers => {}
            () = shutdown.cancelled() => {}
        }
        Ok(())
    }

    async fn synced(&self) {
        futures::join!(
            self.nodes.cache.synced(),
            self.attachments.cache.synced(),
            self.pods.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.drivers.synced(),
        );
    }

    async fn sync(&self, volume: Volume) -> Result<Done, Error> {
        let scene = self.look(volume);
        // Without the volume nobody uses it, and nothing is attached.
        let shared = scene.object.as_ref().is_none_or(|object| is_shared(object));
        let mut again = None;
        for (node, action) in decide(&scene.sites, shared) {
            if let Action::Wait(rest) = action {
                again = Some(again.map_or(rest, |again| rest.min(again)));
                continue;
            }
            if let Some(rest) = self.carry_out(&scene, &node, action).await? {
                again = Some(again.map_or(rest, |again| rest.min(again)));
            }
        }
        Ok(again.map_or(Done::Settled, Done::Again))
    }

    /// The users of the volume, by node.
    fn find_users(&self, volume: &Volume) -> (Option<Arc<PersistentVolume>>, Vec<Arc<Pod>>) {
        let mut objects = self.volumes.list();
        objects.retain(|object| volume.is(object));
        let attachable = self.drivers.get("", &volume.driver).is_none_or(|driver| {
            // As upstream, also when the driver has not said anything.
            driver.spec.attach_required != Some(false)
        });
        let mut users = Vec::new();
        for object in objects.iter().filter(|_| attachable) {
            let claim = object
                .spec
                .as_ref()
                .and_then(|spec| spec.claim_ref.as_ref());
            let Some((namespace, name)) =
                claim.and_then(|claim| Some((claim.namespace.as_ref()?, claim.name.as_ref()?)))
            else {
                continue;
            };
            let claim = self.claims.get(namespace, name);
            if let Some(claim) = claim.filter(|claim| is_bound(claim, object)) {
                let mut pods = self.pods.list_namespace(namespace);
                pods.retain(|pod| needs(pod, &claim));
                users.extend(pods);
            }
        }
        (objects.into_iter().next(), users)
    }

    fn look(&self, volume: Volume) -> Scene {
        let (object, pods) = self.find_users(&volume);
        let mut users: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods {
            let node = pods::node_name(&pod).to_owned();
            users.entry(node).or_default().push(pod);
        }
        let unique = volume.to_string();
        let mut nodes: BTreeSet<String> = users.keys().cloned().collect();
        let known = self.nodes.cache.list();
        let reporting = known.iter().filter(|node| is_reported(node, &unique));
        nodes.extend(reporting.map(|node| node.name_any()));
        let attachments = self.attachments.cache.list();
        let own = attachments
            .iter()
            .filter(|attachment| volume.has(attachment));
        nodes.extend(own.map(|attachment| attachment.spec.node_name.clone()));
        let mut memory = self.memory.lock();
        memory.keep(&volume, &nodes);
        let now = Timestamp::now();
        let sites = nodes.into_iter().map(|name| {
            let wanted = users.contains_key(&name);
            let node = self.nodes.get("", &name);
            let attachment = self.attachments.get("", &volume.attachment_name(&name));
            let site = Site {
                wanted,
                managed: node.as_ref().is_some_and(|node| is_managed(node)),
                attachment: attachment.map(|attachment| driver(&attachment, now)),
                reported: node.as_ref().is_some_and(|node| is_reported(node, &unique)),
                holder: Holder {
                    in_use: match &node {
                        Some(node) => in_use(node).any(|used| *used == unique),
                        None => memory.had(&name, &unique),
                    },
                    healthy: node.as_ref().is_some_and(|node| is_healthy(node)),
                    out_of_service: node.as_ref().is_some_and(|node| is_out_of_service(node)),
                },
                unwanted: memory.unwanted_for(&volume, &name, wanted),
            };
            (name, site)
        });
        let sites = sites.collect();
        drop(memory);
        Scene {
            volume,
            object,
            sites,
            users,
        }
    }

    /// Returns after how long to look again, if that matters.
    async fn carry_out(
        &self,
        scene: &Scene,
        node: &str,
        action: Action,
    ) -> Result<Option<std::time::Duration>, Error> {
        match action {
            Action::Attach => self.attach(scene, node).await?,
            Action::Report => {
                self.report(&scene.volume, node, true).await?;
                let key = (scene.volume.clone(), node.to_owned());
                self.memory.lock().told.remove(&key);
                let message = scene.about("AttachVolume.Attach succeeded", "");
                for pod in scene.users(node) {
                    let reason = "SuccessfulAttachVolume";
                    self.recorder
                        .on(&**pod, EventType::Normal, reason, &*message);
                }
            }
            Action::Fail(failure) => {
                let (why, again) = match failure {
                    Failure::Told(why) => (why, None),
                    Failure::TimedOut => (
                        format!(
                            "timed out waiting for external-attacher of {} CSI driver to attach \
                             volume {}",
                            scene.volume.driver, scene.volume.handle
                        ),
                        Some(LONGEST_ATTACH),
                    ),
                };
                self.tell_failure(scene, node, &why);
                return Ok(again);
            }
            Action::Refuse(holders) => self.refuse(scene, node, &holders),
            Action::Detach { checked } => self.detach(&scene.volume, node, checked).await?,
            Action::Wait(rest) => return Ok(Some(rest)),
        }
        Ok(None)
    }

    async fn attach(&self, scene: &Scene, node: &str) -> Result<(), Error> {
        let Some(object) = &scene.object else {
            return Ok(());
        };
        let attachment = scene.volume.attachment(&object.name_any(), node);
        match self.attachments.create(&attachment).await {
            Ok(_) => Ok(()),
            // The cache is about to show it.
            Err(error) if error::is_already_exists(&error) => Ok(()),
            Err(error) => {
                let why = error::message(&error);
                let why = format!("kubernetes.io/csi: attacher.Attach failed: {why}");
                self.tell_failure(scene, node, &why);
                Err(Error::doing(format!("attach {} to {node}", scene.volume))(
                    error,
                ))
            }
        }
    }

    async fn detach(&self, volume: &Volume, node: &str, checked: bool) -> Result<(), Error> {
        self.report(volume, node, false).await?;
        if checked
            && let Some(stored) = self.nodes.read("", node).await?
            && in_use(&stored).any(|used| *used == volume.to_string())
        {
            return Err(Error::Refused(
                "volume is still in use by node, according to Node status".to_owned(),
            ));
        }
        let name = volume.attachment_name(node);
        if let Some(attachment) = self.attachments.get("", &name)
            && attachment.metadata.deletion_timestamp.is_none()
        {
            let deleted = self
                .attachments
                .delete(&attachment, DeleteParams::default());
            deleted
                .await
                .map_err(Error::doing(format!("detach {volume} from {node}")))?;
        }
        self.memory.lock().found(node, &volume.to_string());
        Ok(())
    }

    /// Writes whether the node may mount the volume. The list is whole, so that who wrote it in
    /// between makes this fail and try again.
    async fn report(&self, volume: &Volume, name: &str, attached: bool) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", name) else {
            return Ok(());
        };
        let unique = volume.to_string();
        if is_reported(&node, &unique) == attached {
            return Ok(());
        }
        let status = node.status.as_ref();
        let known = status.and_then(|status| status.volumes_attached.as_ref());
        let mut list: Vec<_> = known
            .into_iter()
            .flatten()
            .filter(|known| known.name != unique)
            .map(|known| json!(known))
            .collect();
        if attached {
            list.push(json!({"name": unique, "devicePath": ""}));
        }
        let patch = json!({
            "metadata": {"uid": node.uid(), "resourceVersion": node.resource_version()},
            "status": {"volumesAttached": list},
        });
        let written = self.nodes.patch_status("", name, Patch::Merge(patch));
        error::optional(written.await)?;
        Ok(())
    }

    fn tell_failure(&self, scene: &Scene, node: &str, why: &str) {
        let message = scene.about("AttachVolume.Attach failed", &format!(": {why}"));
        self.tell(scene, node, &message, |_| message.clone());
    }

    fn refuse(&self, scene: &Scene, node: &str, holders: &[String]) {
        let others: Vec<Arc<Pod>> = holders
            .iter()
            .flat_map(|holder| scene.users(holder))
            .cloned()
            .collect();
        let gist = format!("Multi-Attach {}", holders.join(","));
        self.tell(scene, node, &gist, |pod| {
            scene.about("Multi-Attach error", &refusal(pod, &others))
        });
    }

    /// Tells the pods on the node, once for as long as the gist is the same.
    fn tell(&self, scene: &Scene, node: &str, gist: &str, message: impl Fn(&Pod) -> String) {
        let key = (scene.volume.clone(), node.to_owned());
        let before = self.memory.lock().told.insert(key, gist.to_owned());
        if before.as_deref() == Some(gist) {
            return;
        }
        for pod in scene.users(node) {
            let (kind, reason) = (EventType::Warning, "FailedAttachVolume");
            self.recorder.on(&**pod, kind, reason, message(pod));
        }
    }
}

impl Memory {
    /// Forgets nodes that the volume has nothing to do with any more.
    fn keep(&mut self, volume: &Volume, nodes: &BTreeSet<String>) {
        let keeps = |key: &(Volume, String)| key.0 != *volume || nodes.contains(&key.1);
        self.unwanted.retain(|key, _| keeps(key));
        self.told.retain(|key, _| keeps(key));
    }

    /// The volume has been taken from a node that is gone.
    fn found(&mut self, node: &str, unique: &str) {
        if let Some(lost) = self.lost.get_mut(node) {
            lost.remove(unique);
            if lost.is_empty() {
                self.lost.remove(node);
            }
        }
    }

    fn had(&self, node: &str, unique: &str) -> bool {
        self.lost
            .get(node)
            .is_some_and(|lost| lost.contains(unique))
    }

    fn unwanted_for(&mut self, volume: &Volume, node: &str, wanted: bool) -> std::time::Duration {
        let key = (volume.clone(), node.to_owned());
        if wanted {
            self.unwanted.remove(&key);
            return std::time::Duration::ZERO;
        }
        self.unwanted
            .entry(key)
            .or_insert_with(Instant::now)
            .elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": name, "namespace": namespace}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_pod_learns_the_names_of_pods_of_its_own_namespace_only() {
        let (a, b, far) = (pod("ns", "a"), pod("ns", "b"), pod("far", "x"));
        let cases = [
            (
                vec![],
                "Volume is already exclusively attached to one node and can't be attached to \
                 another",
            ),
            (vec![a.clone(), b], "Volume is already used by pod(s) a, b"),
            (
                vec![a, far.clone()],
                "Volume is already used by pod(s) a and 1 pod(s) in different namespaces",
            ),
            (
                vec![far],
                "Volume is already used by 1 pod(s) in different namespaces",
            ),
        ];
        for (others, expected) in cases {
            assert_eq!(refusal(&pod("ns", "p"), &others), expected);
        }
    }

    #[test]
    fn an_attachment_says_how_its_driver_stands() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let created = json!("2026-01-01T00:00:00Z");
        let silent = Driver::Silent(std::time::Duration::from_mins(1));
        let failed = json!({"attached": false, "attachError": {"message": "no"}});
        let cases = [
            (json!({"creationTimestamp": created}), json!(null), silent),
            (json!({}), json!({"attached": true}), Driver::Attached),
            (json!({}), failed, Driver::Failed("no".to_owned())),
            (
                json!({"deletionTimestamp": created}),
                json!({"attached": true}),
                Driver::Detaching,
            ),
        ];
        for (metadata, status, expected) in cases {
            let attachment = json!({"metadata": metadata, "status": status,
                "spec": {"attacher": "d", "nodeName": "n", "source": {}}});
            let attachment = serde_json::from_value(attachment).expect("an attachment");
            assert_eq!(driver(&attachment, now), expected);
        }
    }
}
