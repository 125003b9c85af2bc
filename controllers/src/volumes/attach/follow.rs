//! Which volumes to look at when something changes.

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, Pod},
    storage::v1::VolumeAttachment,
};
use kube::ResourceExt as _;

use super::{Controller, volume::Volume};
use crate::{
    changes::{self, Seen},
    pods,
    volumes::{claim_of, volumes},
};

fn reported(node: &Node) -> impl Iterator<Item = Volume> {
    let status = node.status.as_ref();
    let attached = status.and_then(|status| status.volumes_attached.as_ref());
    let attached = attached.into_iter().flatten().map(|volume| &volume.name);
    attached
        .chain(super::in_use(node))
        .filter_map(|unique| Volume::named(unique))
}

/// What of a node matters here, its volumes aside.
fn standing(node: &Node) -> (bool, bool, bool) {
    (
        super::is_managed(node),
        super::is_healthy(node),
        super::is_out_of_service(node),
    )
}

fn lists(node: &Node) -> Option<(Option<&Vec<String>>, usize)> {
    let status = node.status.as_ref()?;
    let attached = status.volumes_attached.as_ref().map_or(0, Vec::len);
    Some((status.volumes_in_use.as_ref(), attached))
}

impl Controller {
    pub(super) async fn follow(&self) {
        let pods = changes::each(&self.pods, |seen| match seen {
            Seen::Applied { new: pod, .. } | Seen::Deleted(pod) => self.pod_seen(&pod),
            Seen::Lagged => self.look_at_everything(),
        });
        let nodes = changes::each(&self.nodes.cache, |seen| match seen {
            Seen::Applied { old, new: node } => self.node_seen(old.as_deref(), &node),
            Seen::Deleted(node) => self.node_lost(&node),
            Seen::Lagged => self.look_at_everything(),
        });
        let volumes = changes::each(&self.volumes, |seen| match seen {
            Seen::Applied { new: volume, .. } | Seen::Deleted(volume) => self.add(&volume),
            Seen::Lagged => {}
        });
        let claims = changes::each(&self.claims, |seen| {
            if let Seen::Applied { new: claim, .. } | Seen::Deleted(claim) = seen
                && let Some(volume) = claim.spec.as_ref().and_then(|it| it.volume_name.as_ref())
                && let Some(volume) = self.volumes.get("", volume)
            {
                self.add(&volume);
            }
        });
        let attachments = changes::each(&self.attachments.cache, |seen| match seen {
            Seen::Applied {
                new: attachment, ..
            }
            | Seen::Deleted(attachment) => self.attachment_seen(&attachment),
            Seen::Lagged => self.look_at_everything(),
        });
        let drivers = changes::each(&self.drivers, |seen| {
            if let Seen::Applied { new: driver, .. } | Seen::Deleted(driver) = seen {
                let name = driver.name_any();
                self.look_at(|volume| volume.driver == name);
            }
        });
        futures::join!(pods, nodes, volumes, claims, attachments, drivers);
    }

    fn add(&self, volume: &PersistentVolume) {
        if let Some(volume) = Volume::of(volume) {
            self.queue.add(volume);
        }
    }

    fn look_at(&self, which: impl Fn(&Volume) -> bool) {
        for volume in self.volumes.list() {
            if let Some(volume) = Volume::of(&volume).filter(|volume| which(volume)) {
                self.queue.add(volume);
            }
        }
    }

    fn look_at_everything(&self) {
        self.look_at(|_| true);
        for node in self.nodes.cache.list() {
            for volume in reported(&node) {
                self.queue.add(volume);
            }
        }
    }

    fn pod_seen(&self, pod: &Pod) {
        if pods::node_name(pod).is_empty() {
            return;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for name in volumes(pod).iter().filter_map(|it| claim_of(pod, it)) {
            let claim = self.claims.get(namespace, &name);
            if let Some(spec) = claim.as_ref().and_then(|claim| claim.spec.as_ref())
                && let Some(volume) = spec.volume_name.as_ref()
                && let Some(volume) = self.volumes.get("", volume)
            {
                self.add(&volume);
            }
        }
    }

    fn node_seen(&self, old: Option<&Node>, node: &Node) {
        if old.is_none() {
            self.memory.lock().lost.remove(&node.name_any());
        }
        let moved = old.is_none_or(|old| standing(old) != standing(node));
        if moved || old.and_then(lists) != lists(node) {
            for volume in old.into_iter().chain([node]).flat_map(reported) {
                self.queue.add(volume);
            }
        }
        if moved {
            self.look_at_node(&node.name_any());
        }
    }

    /// What it used may be mounted still.
    fn node_lost(&self, node: &Node) {
        let used: std::collections::HashSet<String> = super::in_use(node).cloned().collect();
        if !used.is_empty() {
            self.memory.lock().lost.insert(node.name_any(), used);
        }
        for volume in reported(node) {
            self.queue.add(volume);
        }
        self.look_at_node(&node.name_any());
    }

    /// The volumes of the pods there, and those that are attached.
    fn look_at_node(&self, node: &str) {
        for pod in self.pods.list() {
            if pods::node_name(&pod) == node {
                self.pod_seen(&pod);
            }
        }
        for attachment in self.attachments.cache.list() {
            if attachment.spec.node_name == node {
                self.attachment_seen(&attachment);
            }
        }
    }

    fn attachment_seen(&self, attachment: &VolumeAttachment) {
        let name = attachment.spec.source.persistent_volume_name.as_deref();
        if let Some(volume) = name.and_then(|name| self.volumes.get("", name)) {
            self.add(&volume);
        }
    }
}
