//! What the runtime says about one pod: its sandboxes and containers, the newest first.
//!
//! Everything that is known of a pod's containers is here; statuses and actions are derived from
//! it. What outlives a container only in the runtime (restart count, hash of its specification)
//! is read back from the labels and annotations it was made with.

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Container;

use super::labels;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One container as the runtime knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub restart_count: i32,
    /// See [`hash`]; 0 for a container that is not ours.
    pub hash: u64,
    pub activity: Activity,
    pub image: String,
    /// What a status shows as `imageID`.
    pub image_ref: String,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub log_path: String,
    pub user: Option<cri::LinuxContainerUser>,
}

/// One sandbox as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: i64,
    pub host_network: bool,
    /// The primary address first; none in the host's network.
    pub ips: Vec<String>,
}

/// The sandboxes and containers of one pod, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Seen>,
}

impl Observed {
    /// The newest container of that name.
    pub fn container(&self, name: &str) -> Option<&Seen> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    pub fn by_id(&self, id: &str) -> Option<&Seen> {
        self.containers.iter().find(|container| container.id == id)
    }

    /// The sandbox that new containers go into, if it is ready.
    pub fn active_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The addresses of the ready sandbox.
    pub fn ips(&self) -> &[String] {
        self.active_sandbox()
            .map_or(&[], |sandbox| sandbox.ips.as_slice())
    }

    pub fn put_sandbox(&mut self, sandbox: Sandbox) {
        self.sandboxes.retain(|known| known.id != sandbox.id);
        self.sandboxes.push(sandbox);
        self.sandboxes
            .sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    }

    pub fn put_container(&mut self, container: Seen) {
        self.containers.retain(|known| known.id != container.id);
        self.containers.push(container);
        self.containers
            .sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    }

    /// Forgets a container or sandbox that the runtime no longer has.
    pub fn forget(&mut self, id: &str) {
        self.containers.retain(|container| container.id != id);
        self.sandboxes.retain(|sandbox| sandbox.id != id);
    }

    pub fn running(&self) -> impl Iterator<Item = &Seen> {
        self.containers
            .iter()
            .filter(|container| container.activity == Activity::Running)
    }
}

/// Names the part of a container's specification whose change restarts the container: its name
/// and image, as upstream.
pub fn hash(container: &Container) -> u64 {
    let image = container.image.as_deref().unwrap_or_default();
    // FNV-1a of 32 bits, the size that upstream's annotation has.
    let mut hash: u32 = 0x811c_9dc5;
    for byte in container
        .name
        .bytes()
        .chain(std::iter::once(0))
        .chain(image.bytes())
    {
        hash ^= u32::from(byte);
        hash = hash.wrapping_mul(0x0100_0193);
    }
    u64::from(hash)
}

impl Sandbox {
    /// `None` for an answer without the fields that every runtime fills in.
    pub fn new(status: cri::PodSandboxStatus) -> Option<Self> {
        let metadata = status.metadata.as_ref()?;
        let network = status.network.clone().unwrap_or_default();
        let host_network = status
            .linux
            .as_ref()
            .and_then(|linux| linux.namespaces.as_ref()?.options.as_ref())
            .is_some_and(|options| options.network() == cri::NamespaceMode::Node);
        let ips = std::iter::once(network.ip)
            .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
            .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
            .collect();
        Some(Sandbox {
            attempt: metadata.attempt,
            ready: status.state() == cri::PodSandboxState::SandboxReady,
            created_at: status.created_at,
            host_network,
            ips,
            id: status.id,
        })
    }
}

impl Seen {
    /// `termination_message` reads the message that an ended container has left; it is asked
    /// only for those.
    pub fn new(
        status: cri::ContainerStatus,
        sandbox_id: &str,
        termination_message: impl FnOnce(&cri::ContainerStatus) -> Option<String>,
    ) -> Self {
        let activity = match status.state() {
            cri::ContainerState::ContainerCreated => Activity::Created,
            cri::ContainerState::ContainerRunning => Activity::Running,
            cri::ContainerState::ContainerExited => Activity::Exited,
            cri::ContainerState::ContainerUnknown => Activity::Unknown,
        };
        let exited = activity == Activity::Exited;
        let mut message = if exited {
            status.message.clone()
        } else {
            String::new()
        };
        if exited && let Some(left) = termination_message(&status).filter(|left| !left.is_empty()) {
            if !message.is_empty() {
                message.push_str(": ");
            }
            message.push_str(&left);
        }
        let time = |nanoseconds: i64| {
            Timestamp::from_nanosecond(i128::from(nanoseconds))
                .ok()
                .filter(|_| nanoseconds != 0)
        };
        Seen {
            sandbox_id: sandbox_id.to_owned(),
            name: labels::container_name(&status.labels).to_owned(),
            restart_count: labels::restart_count(&status.annotations),
            hash: labels::hash(&status.annotations),
            activity,
            image: status
                .image
                .as_ref()
                .map(|image| image.image.clone())
                .unwrap_or_default(),
            image_ref: status.image_ref.clone(),
            created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
            started_at: time(status.started_at).filter(|_| activity != Activity::Created),
            finished_at: time(status.finished_at).filter(|_| exited),
            exit_code: if exited { status.exit_code } else { 0 },
            reason: if exited {
                status.reason.clone()
            } else {
                String::new()
            },
            message,
            log_path: status.log_path.clone(),
            user: status.user.as_ref().and_then(|user| user.linux.clone()),
            id: status.id,
        }
    }

    /// As a status shows it: `containerd://…`.
    pub fn full_id(&self, runtime: &str) -> String {
        format!("{runtime}://{}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, created_at: i64) -> Seen {
        let status = cri::ContainerStatus {
            id: id.to_owned(),
            created_at,
            labels: [(labels::CONTAINER_NAME.to_owned(), "c".to_owned())].into(),
            ..cri::ContainerStatus::default()
        };
        Seen::new(status, "s", |_| None)
    }

    #[test]
    fn the_newest_container_of_a_name_counts() {
        let mut observed = Observed::default();
        for (id, created_at) in [("old", 1), ("new", 3), ("middle", 2)] {
            observed.put_container(seen(id, created_at));
        }
        let newest = |observed: &Observed| observed.container("c").map(|it| it.id.clone());
        assert_eq!(newest(&observed).as_deref(), Some("new"));
        observed.forget("new");
        assert_eq!(newest(&observed).as_deref(), Some("middle"));
    }

    #[test]
    fn only_an_ended_container_has_a_message() {
        let status = |state: cri::ContainerState| cri::ContainerStatus {
            state: state.into(),
            message: "killed".to_owned(),
            exit_code: 7,
            ..cri::ContainerStatus::default()
        };
        let exited = Seen::new(status(cri::ContainerState::ContainerExited), "s", |_| {
            Some("bye".to_owned())
        });
        assert_eq!(
            (exited.message.as_str(), exited.exit_code),
            ("killed: bye", 7)
        );
        let running = Seen::new(status(cri::ContainerState::ContainerRunning), "s", |_| {
            Some("bye".to_owned())
        });
        assert_eq!((running.message.as_str(), running.exit_code), ("", 0));
    }

    #[test]
    fn the_hash_follows_name_and_image_only() {
        let container = |name: &str, image: &str, command: &str| Container {
            name: name.to_owned(),
            image: Some(image.to_owned()),
            command: Some(vec![command.to_owned()]),
            ..Container::default()
        };
        assert_eq!(
            hash(&container("a", "i", "x")),
            hash(&container("a", "i", "y"))
        );
        assert_ne!(
            hash(&container("a", "i", "x")),
            hash(&container("a", "j", "x"))
        );
        assert_ne!(
            hash(&container("ab", "", "x")),
            hash(&container("a", "b", "x"))
        );
    }
}
