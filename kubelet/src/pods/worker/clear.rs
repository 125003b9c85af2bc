//! What goes while a pod goes on: containers that are to end or begin anew, and those that ended
//! long ago.

use std::{collections::HashSet, time::Duration};

use k8s_cri::v1::RemoveContainerRequest;
use tokio::time::Instant;

use super::{
    Next, Worker,
    kill::{self, Victim},
};
use crate::pods::{
    actions::{Actions, KillReason},
    errors::is_not_found,
    observed::{Activity, Seen},
    spec::{describe, init_containers, spec},
};

/// Before containers that could not be ended are tried again.
const KILL_RETRY: Duration = Duration::from_secs(1);

impl Worker {
    fn kill_of(&self) -> kill::Of {
        kill::Of {
            services: self.services.clone(),
            pod: self.pod.clone(),
            pod_ip: self.pod_ip(),
        }
    }

    /// Ends all containers and sandboxes. `Some` when it has to be looked at again first.
    pub(super) async fn kill_everything(&mut self, purge: bool) -> Option<Next> {
        let victims: Vec<Victim> = self.observed.running().map(Victim::from).collect();
        let sandboxes: Vec<String> = self
            .observed
            .sandboxes
            .iter()
            .map(|sandbox| sandbox.id.clone())
            .collect();
        let of = self.kill_of();
        let work = kill::pod(&of, &victims, &sandboxes, None);
        match self.during(work, Worker::is_to_end).await {
            None => return Some(Next::Again),
            Some(Err(error)) => {
                tracing::warn!(pod = describe(&self.pod), error, "cannot stop a pod");
                return Some(Next::Wait(Some(Instant::now() + KILL_RETRY)));
            }
            Some(Ok(())) => {}
        }
        for id in sandboxes {
            self.look_at(&id, false).await;
        }
        for victim in victims {
            self.look_at(&victim.id, false).await;
        }
        if purge {
            let init = init_containers(spec(&self.pod)).iter();
            let init: HashSet<String> = init.map(|container| container.name.clone()).collect();
            self.remove_containers(|seen| init.contains(&seen.name))
                .await;
        }
        None
    }

    /// Ends single containers. `Some` when it has to be looked at again first.
    pub(super) async fn kill_some(&mut self, actions: &Actions) -> Option<Next> {
        for order in &actions.kill {
            let victim = Victim {
                id: order.id.clone(),
                name: order.name.clone(),
                message: order.message.clone(),
                reason: order.reason,
            };
            let of = self.kill_of();
            let work = kill::container(&of, &victim, None);
            match self.during(work, Worker::is_to_end).await {
                None => return Some(Next::Again),
                Some(Err(error)) => {
                    tracing::warn!(container = victim.name, error, "cannot end a container");
                    return Some(Next::Wait(Some(Instant::now() + KILL_RETRY)));
                }
                Some(Ok(())) => {}
            }
            self.look_at(&victim.id, false).await;
        }
        None
    }

    /// All containers begin anew: those that are there go, with their logs kept.
    pub(super) async fn reset(&mut self, actions: &Actions) {
        for reset in &actions.reset {
            if reset.running {
                let victim = Victim {
                    id: reset.id.clone(),
                    name: reset.name.clone(),
                    message: "killing".to_owned(),
                    reason: KillReason::Other,
                };
                let of = self.kill_of();
                let work = kill::container(&of, &victim, Some(0));
                if let Some(Err(error)) = self.during(work, Worker::is_to_end).await {
                    tracing::warn!(container = victim.name, error, "cannot end a container");
                }
            }
            self.remove_container(&reset.id).await;
            self.publish();
        }
    }

    /// Keeps the newest dead container of a name, for its logs, and removes those before.
    pub(super) async fn prune(&mut self, name: &str) {
        let newest_dead = self
            .observed
            .containers
            .iter()
            .find(|seen| seen.name == name && seen.activity == Activity::Exited)
            .map(|seen| seen.id.clone());
        let log_dir = self.services.container_log_dir(&self.pod, name);
        let old: Vec<Seen> = self
            .observed
            .containers
            .iter()
            .filter(|seen| seen.name == name && seen.activity == Activity::Exited)
            .filter(|seen| Some(&seen.id) != newest_dead.as_ref())
            .cloned()
            .collect();
        for seen in old {
            if self.remove_container(&seen.id).await {
                super::end::remove_logs(&log_dir, seen.restart_count);
            }
        }
        let emptied: Vec<String> = self
            .observed
            .sandboxes
            .iter()
            .skip(1)
            .map(|sandbox| sandbox.id.clone())
            .filter(|id| {
                !self
                    .observed
                    .containers
                    .iter()
                    .any(|seen| &seen.sandbox_id == id)
            })
            .collect();
        for id in emptied {
            self.remove_sandbox(&id).await;
        }
    }

    async fn remove_containers(&mut self, which: impl Fn(&Seen) -> bool) {
        let containers = self.observed.containers.iter();
        let ids: Vec<String> = containers
            .filter(|seen| which(seen))
            .map(|seen| seen.id.clone())
            .collect();
        for id in ids {
            self.remove_container(&id).await;
        }
    }

    /// Tells whether the container is gone.
    async fn remove_container(&mut self, id: &str) -> bool {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        let removed = self
            .services
            .cri
            .runtime
            .clone()
            .remove_container(request)
            .await;
        match removed {
            Err(status) if !is_not_found(&status) => {
                tracing::debug!(id, error = status.message(), "cannot remove a container");
                false
            }
            _ => {
                if let Some(name) = self.observed.by_id(id).map(|seen| seen.name.clone()) {
                    self.unlink_log(&name, id);
                }
                self.forget(id);
                true
            }
        }
    }
}
