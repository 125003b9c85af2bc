//! What changes in the cluster is taken in here: cache and queue are brought up to date with the
//! informers, and pods that the change may help are tried again.

use std::{collections::HashSet, sync::Arc};

use kube::ResourceExt as _;
use tokio::time::Instant;

use super::Loop;
use crate::{
    cluster::Cluster,
    event::{Event, NodeChanges, PodChanges},
    pod::{self, Key, PodInfo},
    surroundings::SurroundingChange,
};

impl Loop {
    /// Tries those pods again that a change of storage or devices may help.
    pub(super) fn surroundings_changed(&mut self, change: &SurroundingChange) {
        match change {
            SurroundingChange::Claim(it) => self.wake(&Event::Claim(it.borrow()), |_| true),
            SurroundingChange::Volume(it) => self.wake(&Event::Volume(it.borrow()), |_| true),
            SurroundingChange::Class(it) => self.wake(&Event::StorageClass(it.borrow()), |_| true),
            SurroundingChange::CsiNode(it) => self.wake(&Event::CsiNode(it.borrow()), |_| true),
            SurroundingChange::Driver(it) => self.wake(&Event::CsiDriver(it.borrow()), |_| true),
            SurroundingChange::Capacity(it) => {
                self.wake(&Event::StorageCapacity(it.borrow()), |_| true);
            }
            SurroundingChange::Detached => self.wake(&Event::VolumeDetached, |_| true),
            SurroundingChange::ResourceClaim(it) => {
                self.wake(&Event::ResourceClaim(it.borrow()), |_| true);
            }
            SurroundingChange::DeviceClass(it) => {
                self.wake(&Event::DeviceClass(it.borrow()), |_| true);
            }
            SurroundingChange::ResourceSlice => self.wake(&Event::ResourceSlice, |_| true),
            SurroundingChange::Lost => {
                let now = Instant::now();
                self.queue
                    .wake(now, "ForceActivate", |pod| !pod.info.is_gated());
            }
        }
    }

    pub(super) fn look_at_all_nodes(&mut self) {
        let known = self.cache.nodes().iter().map(|node| node.name.to_string());
        let listed = self.nodes.list();
        let names: HashSet<String> = listed
            .iter()
            .map(|node| node.name_any())
            .chain(known)
            .collect();
        for name in names {
            self.look_at_node(&name);
        }
    }

    pub(super) fn look_at_all_pods(&mut self) {
        let known = self.cache.keys().chain(self.queue.keys());
        let listed = self.pods.list();
        let keys: HashSet<Key> = listed
            .iter()
            .map(|pod| pod::key(pod))
            .chain(known.cloned())
            .collect();
        for key in keys {
            if let Some((namespace, name)) = key.split_once('/') {
                self.look_at_pod(namespace, name);
            }
        }
    }

    /// Brings the cache up to date with the informer, whatever happened to the node.
    pub(super) fn look_at_node(&mut self, name: &str) {
        let old = self.cache.node(name).map(|info| info.node.clone());
        match (old, self.nodes.get("", name)) {
            (None, None) => {}
            (Some(old), None) => {
                self.wake(&Event::NodeDeleted(&old), |_| true);
                self.cache.remove_node(name);
            }
            (None, Some(new)) => {
                self.cache.set_node(new.clone());
                self.wake(&Event::NodeAdded(&new), |_| true);
            }
            (Some(old), Some(new)) => {
                if Arc::ptr_eq(&old, &new) {
                    return;
                }
                self.cache.set_node(new.clone());
                if let Some(changes) = NodeChanges::between(&old, &new) {
                    let event = Event::NodeUpdated {
                        old: &old,
                        new: &new,
                        changes,
                    };
                    self.wake(&event, |_| true);
                }
            }
        }
    }

    /// Brings the cache and the queue up to date with the informer, whatever happened to the pod.
    pub(super) fn look_at_pod(&mut self, namespace: &str, name: &str) {
        // A pod that has run to its end is as good as gone.
        let current = self
            .pods
            .get(namespace, name)
            .filter(|pod| !pod::is_terminal(pod));
        let key: Key = format!("{namespace}/{name}").into();
        let known = self
            .cache
            .pod(&key)
            .or_else(|| self.queue.get(&key).map(|queued| &queued.info))
            .cloned();
        if let (Some(known), Some(current)) = (&known, &current)
            && Arc::ptr_eq(&known.pod, current)
        {
            return;
        }
        let new = current.map(|pod| Arc::new(PodInfo::new(pod)));
        match (known, new) {
            (None, None) => {}
            (Some(old), None) => self.forget(&old),
            (None, Some(new)) => self.add(new),
            (Some(old), Some(new)) if old.uid() != new.uid() => {
                self.forget(&old);
                self.add(new);
            }
            (Some(old), Some(new)) => self.update(&old, &new),
        }
    }

    fn is_ours(&self, pod: &PodInfo) -> bool {
        let spec = pod.pod.spec.as_ref();
        let name = spec.and_then(|spec| spec.scheduler_name.as_deref());
        name == Some(&self.config.scheduler_name)
    }

    fn add(&mut self, pod: Arc<PodInfo>) {
        if !pod.node_name().is_empty() {
            self.cache.set_pod(pod.clone());
            self.wake(&Event::PodAdded(&pod), |_| true);
        } else if self.is_ours(&pod) {
            self.nominator.set(pod.clone(), pod.nominated_node_name());
            self.queue.add(pod, Instant::now());
        }
    }

    fn forget(&mut self, pod: &Arc<PodInfo>) {
        let placed = self.cache.remove_pod(&pod.key).is_some();
        self.queue.remove(&pod.key);
        self.nominator.remove(&pod.key);
        if placed {
            self.wake(&Event::PodDeleted(pod), |_| true);
        } else if !pod.nominated_node_name().is_empty() {
            let priority = pod.priority;
            self.wake(&Event::PodDeleted(pod), |other| other.priority <= priority);
        }
    }

    fn update(&mut self, old: &Arc<PodInfo>, new: &Arc<PodInfo>) {
        let changes = PodChanges::between(old, new);
        let changed = |changes| Event::PodUpdated { old, new, changes };
        if !new.node_name().is_empty() {
            let was_waiting = self.queue.remove(&new.key).is_some();
            let was_assumed = self.cache.is_assumed(&new.key);
            self.nominator.remove(&new.key);
            self.cache.set_pod(new.clone());
            if was_waiting || was_assumed {
                self.wake(&Event::PodAdded(new), |_| true);
            } else if let Some(changes) = changes {
                self.wake(&changed(changes), |_| true);
            }
            return;
        }
        if self.cache.is_assumed(&new.key) {
            // Its binding is under way. When it is being deleted, its room is free at once.
            if new.is_terminating() && !old.is_terminating() {
                self.cache.remove_pod(&new.key);
                self.wake(&Event::PodDeleted(new), |_| true);
            }
            return;
        }
        self.nominator.update(old, new);
        self.queue.update(new.clone());
        if let Some(changes) = changes {
            let key = new.key.clone();
            self.wake(&changed(changes), |other| other.key == key);
        }
        let nominated = old.nominated_node_name();
        if !nominated.is_empty() && nominated != new.nominated_node_name() {
            let priority = old.priority;
            self.wake(&Event::PodDeleted(old), |other| other.priority <= priority);
        }
    }

    /// Tries those pods again that the event may help, of those that `eligible` picks.
    pub(super) fn wake(&mut self, event: &Event<'_>, eligible: impl Fn(&PodInfo) -> bool) {
        let cluster = Cluster {
            cache: &self.cache,
            nominator: &self.nominator,
            surroundings: &self.surroundings,
        };
        let plugins = &self.plugins;
        self.queue.wake(Instant::now(), event.label(), |pod| {
            eligible(&pod.info)
                && plugins.iter().any(|plugin| {
                    pod.rejectors.contains(plugin.name())
                        && plugin.may_help(&pod.info, event, &cluster)
                })
        });
    }
}
