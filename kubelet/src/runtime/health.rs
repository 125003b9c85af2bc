//! What is known of the runtime's health: the conditions and features it reports, and since when
//! it does not answer.

use std::{sync::Arc, time::Duration};

use k8s_cri::v1::{self as cri, StatusRequest, VersionRequest};
use tokio::{sync::watch, time::Instant};

use crate::cri::Cri;

/// A runtime that does not answer for longer makes the node not ready; a restart of the runtime
/// takes less (upstream's `maxWaitForContainerRuntime`).
const DOWN_AFTER: Duration = Duration::from_secs(30);

/// One of the runtime's own conditions, `RuntimeReady` or `NetworkReady`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub ready: bool,
    pub reason: String,
    pub message: String,
}

/// A runtime handler and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

/// The runtime as it last answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Since when the runtime does not answer; `None` while it does.
    pub unreachable: Option<Instant>,
    pub runtime: Option<Condition>,
    pub network: Option<Condition>,
    pub handlers: Vec<Handler>,
    pub supplemental_groups_policy: bool,
    /// For example `containerd`.
    pub name: String,
    /// For example `1.6.20`.
    pub version: String,
}

impl Health {
    /// Before the runtime was asked for the first time.
    pub fn unknown() -> Self {
        Health {
            unreachable: Some(Instant::now()),
            ..Health::default()
        }
    }

    /// Whether pods can be worked on at all.
    pub fn usable(&self) -> bool {
        self.unreachable.is_none() && self.runtime.as_ref().is_some_and(|runtime| runtime.ready)
    }

    /// What keeps the node from being ready on the runtime's side, in upstream's words
    /// (pkg/kubelet/runtime.go).
    pub fn runtime_error(&self) -> Option<String> {
        if self.name.is_empty() {
            return Some("container runtime status check may not have completed yet".to_owned());
        }
        if self
            .unreachable
            .is_some_and(|since| since.elapsed() >= DOWN_AFTER)
        {
            return Some("container runtime is down".to_owned());
        }
        not_ready("container runtime", "RuntimeReady", self.runtime.as_ref())
    }

    /// What keeps pods with a network of their own from starting.
    pub fn network_error(&self) -> Option<String> {
        if self.name.is_empty() {
            return Some("network state unknown".to_owned());
        }
        not_ready(
            "container runtime network",
            "NetworkReady",
            self.network.as_ref(),
        )
    }
}

fn not_ready(what: &str, name: &str, condition: Option<&Condition>) -> Option<String> {
    match condition {
        Some(condition) if condition.ready => None,
        Some(Condition {
            reason, message, ..
        }) => Some(format!(
            "{what} not ready: {name}=false reason:{reason} message:{message}"
        )),
        None => Some(format!("{what} not ready: <nil>")),
    }
}

/// Asks the runtime how it is. What it said before stands while it does not answer.
pub async fn ask(cri: &Cri, before: &Health) -> Health {
    match answer(cri, before).await {
        Ok(health) => health,
        Err(status) => {
            tracing::debug!(error = status.message(), "the runtime does not answer");
            Health {
                unreachable: before.unreachable.or_else(|| Some(Instant::now())),
                ..before.clone()
            }
        }
    }
}

async fn answer(cri: &Cri, before: &Health) -> Result<Health, tonic::Status> {
    let status = cri
        .runtime
        .clone()
        .status(StatusRequest { verbose: false })
        .await?
        .into_inner();
    let (name, version) = if before.unreachable.is_none() {
        (before.name.clone(), before.version.clone())
    } else {
        let version = cri
            .runtime
            .clone()
            .version(VersionRequest {
                version: String::new(),
            })
            .await?
            .into_inner();
        (version.runtime_name, version.runtime_version)
    };
    let conditions = status.status.map(|it| it.conditions).unwrap_or_default();
    Ok(Health {
        unreachable: None,
        runtime: condition(&conditions, "RuntimeReady"),
        network: condition(&conditions, "NetworkReady"),
        handlers: status.runtime_handlers.into_iter().map(handler).collect(),
        supplemental_groups_policy: status
            .features
            .is_some_and(|features| features.supplemental_groups_policy),
        name,
        version,
    })
}

fn condition(conditions: &[cri::RuntimeCondition], name: &str) -> Option<Condition> {
    conditions
        .iter()
        .find(|condition| condition.r#type == name)
        .map(|condition| Condition {
            ready: condition.status,
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        })
}

fn handler(handler: cri::RuntimeHandler) -> Handler {
    let features = handler.features.unwrap_or_default();
    Handler {
        name: handler.name,
        recursive_read_only_mounts: features.recursive_read_only_mounts,
        user_namespaces: features.user_namespaces,
    }
}

/// The latest [`Health`] and a way to wait for it to change. Cheap to clone.
#[derive(Clone)]
pub struct HealthWatch(pub(super) watch::Receiver<Arc<Health>>);

impl HealthWatch {
    pub fn get(&self) -> Arc<Health> {
        self.0.borrow().clone()
    }

    /// From here on, [`Self::changed`] tells of what is yet to come.
    pub fn mark_seen(&mut self) {
        self.0.mark_unchanged();
    }

    /// Returns when the health has changed since the last call; never when nothing keeps it any
    /// more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once pods can be worked on.
    pub async fn usable(&mut self) {
        if self.0.wait_for(|health| health.usable()).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn only_what_comes_after_is_a_change() {
        let (sender, receiver) = watch::channel(Arc::new(Health::unknown()));
        sender.send_replace(Arc::new(Health::unknown()));
        let mut health = HealthWatch(receiver);
        health.mark_seen();
        assert!(health.changed().now_or_never().is_none());
        sender.send_replace(Arc::new(Health::unknown()));
        assert!(health.changed().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_read_as_upstreams() {
        let mut health = Health::unknown();
        assert_eq!(
            health.runtime_error().as_deref(),
            Some("container runtime status check may not have completed yet")
        );
        assert_eq!(
            health.network_error().as_deref(),
            Some("network state unknown")
        );
        health.name = "containerd".into();
        health.runtime = Some(Condition {
            ready: true,
            reason: String::new(),
            message: String::new(),
        });
        health.network = Some(Condition {
            ready: false,
            reason: "NetworkPluginNotReady".into(),
            message: "Network plugin returns error: cni plugin not initialized".into(),
        });
        assert_eq!(health.runtime_error(), None, "it may come back soon");
        assert!(!health.usable());
        tokio::time::advance(DOWN_AFTER).await;
        assert_eq!(
            health.runtime_error().as_deref(),
            Some("container runtime is down")
        );
        health.unreachable = None;
        assert_eq!(health.runtime_error(), None);
        assert!(health.usable());
        assert_eq!(
            health.network_error().as_deref(),
            Some(
                "container runtime network not ready: NetworkReady=false \
                 reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin \
                 not initialized"
            )
        );
    }
}
