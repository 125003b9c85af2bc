//! A pod's task and the resources of its containers: what runs follows what is allocated.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use coracle_client::EventType;
use k8s_cri::v1::{ContainerStatsRequest, UpdateContainerResourcesRequest};
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};
use tokio::time::Instant;

use super::Worker;
use crate::{
    cgroups::Limits,
    pods::{
        actions::{Actions, is_to_be_started},
        errors::describe,
        observed::{Activity, Seen},
        resize::{self, Compute, InProgress, Pending, Update},
        resources,
        spec::{init_containers, spec},
    },
};

/// Before a resize that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl Worker {
    /// The limits that the pod's group is to have.
    pub(super) fn wanted_limits(&self) -> Limits {
        resources::pod_group_limits(spec(&self.pod), self.services.config.pod_pids_limit)
    }

    /// Makes the pod's group, if need be, and gives it these limits.
    pub(super) async fn limit_group(&mut self, limits: Limits) -> io::Result<()> {
        let group = resources::pod_group(&self.services.kubepods(), &self.pod);
        let cgroups = self.services.cgroups.clone();
        let made = tokio::task::spawn_blocking(move || cgroups.ensure(&group, &limits)).await;
        made.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.group = Some(limits);
        Ok(())
    }

    /// Goes on with the pod as it is now.
    pub(super) fn follow(&mut self, pod: Arc<Pod>, pending: Option<Pending>) {
        if !Arc::ptr_eq(&resize::with_allocation_of(&pod, &self.pod), &pod) {
            // Whatever became of a resize before: this is another one.
            let generation = pod.metadata.generation;
            let error = None;
            self.resize.in_progress = Some(InProgress { generation, error });
            self.resize_at = None;
        }
        self.resize.pending = pending;
        self.pod = pod;
    }

    /// Notes what containers have that were found running, and whether a resize is done.
    pub(super) fn update_resize(&mut self) {
        let observed = &self.observed;
        let actuated = &mut self.resize.actuated;
        actuated.retain(|id, _| observed.by_id(id).is_some());
        let mut look = self.resize.in_progress.is_some();
        let spec = spec(&self.pod);
        for container in spec.containers.iter().chain(init_containers(spec)) {
            let Some(seen) = observed.container(&container.name) else {
                continue;
            };
            if actuated.contains_key(&seen.id) {
                continue;
            }
            let has = match reported(&self.status, seen) {
                Some(reported) => {
                    look = true;
                    Compute::found(&self.pod, container, reported)
                }
                None => Compute::of(&self.pod, container),
            };
            actuated.insert(seen.id.clone(), has);
        }
        if !look {
            return;
        }
        let generation = self.pod.metadata.generation;
        if resize::is_in_progress(&self.pod, &self.observed, &self.resize.actuated) {
            self.resize.in_progress.get_or_insert(InProgress {
                generation,
                error: None,
            });
        } else if !self.has_restarts_to_come()
            && let Some(done) = self.resize.in_progress.take()
        {
            self.resize_at = None;
            let what = "Pod resize completed";
            let message = resize::message(what, &self.pod, done.generation, "");
            self.services
                .pod_event(&self.pod, EventType::Normal, "ResizeCompleted", &message);
        }
    }

    /// Whether a container was ended to be started again with other resources.
    fn has_restarts_to_come(&self) -> bool {
        spec(&self.pod).containers.iter().any(|container| {
            let seen = self.observed.container(&container.name);
            seen.is_some_and(|seen| {
                let has = self.resize.actuated.get(&seen.id);
                seen.activity == Activity::Exited
                    && is_to_be_started(&self.pod, container, &self.observed)
                    && has.is_some_and(|has| *has != Compute::of(&self.pod, container))
            })
        })
    }

    /// Gives running containers what was allocated to them; those that have to be restarted for
    /// it are noted in `actions`.
    pub(super) async fn resize(&mut self, actions: &mut Actions) {
        let later = self.resize_at.is_some_and(|at| at > Instant::now());
        if later || self.resize.in_progress.is_none() {
            return;
        }
        self.resize_at = None;
        let actuated = &self.resize.actuated;
        let updates = resize::plan(&self.pod, &self.observed, actuated, actions);
        let resized = self.actuate(updates).await;
        if let Err(error) = resized {
            self.resize_at = Some(Instant::now() + RETRY);
            let generation = self.pod.metadata.generation;
            let what = "Pod resize error";
            let message = resize::message(what, &self.pod, generation, &error);
            let in_progress = self.resize.in_progress.get_or_insert(InProgress {
                generation,
                error: None,
            });
            if in_progress.error.as_ref() != Some(&error) {
                in_progress.error = Some(error);
                let warning = EventType::Warning;
                self.services
                    .pod_event(&self.pod, warning, "ResizeError", &message);
            }
        }
        self.publish();
    }

    async fn actuate(&mut self, updates: Vec<Update>) -> Result<(), String> {
        let wanted = self.wanted_limits();
        let before = self.group.unwrap_or(wanted);
        if updates.is_empty() && before == wanted {
            return Ok(());
        }
        self.check_memory(&updates).await?;
        // The group has room for both while containers still have what they had.
        let between = resize::larger(&before, &wanted);
        if between != before {
            self.limit_group(between)
                .await
                .map_err(|error| format!("cannot resize the cgroup of the pod: {error}"))?;
        }
        for update in updates {
            let request = UpdateContainerResourcesRequest {
                container_id: update.id.clone(),
                linux: Some(update.linux()),
                windows: None,
                annotations: HashMap::new(),
            };
            let mut runtime = self.services.cri.runtime.clone();
            let updated = runtime.update_container_resources(request).await;
            updated.map_err(|status| describe(&status))?;
            self.resize.actuated.insert(update.id, update.to);
        }
        let done = !resize::is_in_progress(&self.pod, &self.observed, &self.resize.actuated);
        if done && self.group != Some(wanted) {
            self.limit_group(wanted)
                .await
                .map_err(|error| format!("cannot resize the cgroup of the pod: {error}"))?;
        }
        Ok(())
    }

    /// A limit below what is in use would end a container.
    async fn check_memory(&self, updates: &[Update]) -> Result<(), String> {
        let mut errors = Vec::new();
        for update in updates {
            let Some(limit) = update.less_memory else {
                continue;
            };
            let request = ContainerStatsRequest {
                container_id: update.id.clone(),
            };
            let mut runtime = self.services.cri.runtime.clone();
            let stats = runtime.container_stats(request).await;
            let stats = stats.map_err(|status| describe(&status))?;
            let memory = stats.into_inner().stats.and_then(|stats| stats.memory);
            let Some(usage) = memory.and_then(|memory| memory.usage_bytes) else {
                errors.push(format!("missing container {:?} memory usage", update.name));
                continue;
            };
            if usage.value >= u64::try_from(limit).unwrap_or(0) {
                errors.push(format!(
                    "attempting to set container {:?} memory limit ({limit}) below current usage \
                     ({})",
                    update.name, usage.value
                ));
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [error] => Err(format!("cannot decrease memory limits: {error}")),
            _ => Err(format!(
                "cannot decrease memory limits: [{}]",
                errors.join(", ")
            )),
        }
    }
}

/// What the status says that a container has, if it is about this very container.
fn reported<'a>(status: &'a PodStatus, seen: &Seen) -> Option<&'a ResourceRequirements> {
    let statuses = status.container_statuses.iter().flatten();
    let mut statuses = statuses.chain(status.init_container_statuses.iter().flatten());
    let status = statuses.find(|status| {
        let id = status.container_id.as_deref().unwrap_or_default();
        status.name == seen.name && id.ends_with(&seen.id)
    })?;
    status.resources.as_ref()
}
