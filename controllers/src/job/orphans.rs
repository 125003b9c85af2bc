//! Pods that no Job counts any more: their Job is gone, or has ended. They are let go of.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::Resource as _;

use super::{Controller, is_managed_elsewhere, pod, sync};
use crate::{
    Error, owner,
    work::{Done, Key},
};

impl Controller {
    /// Whether the pod has the finalizer in vain.
    pub(super) fn is_orphan(&self, pod: &Pod) -> bool {
        if !pod::is_tracked(pod) {
            return false;
        }
        let Some(reference) = owner::controller_of(&pod.metadata) else {
            return true;
        };
        if reference.kind != Job::kind(&()) || reference.api_version != Job::api_version(&()) {
            return false;
        }
        let job = owner::resolve(&self.jobs.cache, &pod.metadata);
        job.is_none_or(|job| !is_managed_elsewhere(&job) && sync::is_finished(&job))
    }

    pub(super) fn queue_orphans(&self, job: &Job) {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        for pod in self.pods.cache.controlled_by(uid) {
            if pod::is_tracked(&pod) {
                self.orphans.add(Key::of(&pod.metadata));
            }
        }
    }

    pub(super) async fn release_orphan(&self, key: Key) -> Result<Done, Error> {
        if let Some(pod) = self.pods.get(&key.namespace, &key.name)
            && self.is_orphan(&pod)
        {
            self.let_go(&pod).await?;
        }
        Ok(Done::Settled)
    }
}
