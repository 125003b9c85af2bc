//! Making sandboxes and starting containers (upstream's `createPodSandbox` and
//! `startContainer`).

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use coracle_client::EventType;
use k8s_cri::v1::{
    ContainerConfig, CreateContainerRequest, Image, ImageSpec, PodSandboxConfig,
    RunPodSandboxRequest, StartContainerRequest,
};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::ResourceExt as _;
use tokio::time::Instant;
use tonic::Request;

use super::{
    end::log_link,
    kill::{self, Victim},
};
use crate::{
    metrics,
    pods::{
        actions::KillReason,
        container::{self as config, Ingredients, MountSources},
        dns,
        env::{self, Addresses, Sources, Surroundings},
        errors::describe,
        hooks,
        hostname::{Hostname, hosts_file},
        images::{Policy, Wanted},
        resources, sandbox,
        security::ImageUser,
        services::{RUNTIME_TIMEOUT, Services},
        spec::{ContainerKind, container_reference, spec, uid},
        status::Waiting,
    },
    volumes::MountedVolume,
};

/// Puts together what the runtime is told of a pod's sandbox, and warns of what is amiss.
///
/// # Errors
/// In upstream's words.
pub fn sandbox_config(
    services: &Services,
    pod: &Pod,
    attempt: u32,
) -> Result<PodSandboxConfig, String> {
    let cluster = dns::Cluster {
        servers: services.config.cluster_dns.clone(),
        domain: services.config.cluster_domain.clone(),
    };
    let (dns, warnings) = dns::for_pod(pod, services.host_resolver(), &cluster);
    for warning in warnings {
        services.pod_event(pod, EventType::Warning, warning.reason, &warning.message);
    }
    sandbox::config(
        pod,
        attempt,
        dns,
        &services.pod_log_dir(pod),
        &resources::pod_group(&services.kubepods(), pod),
        &services.config.cluster_domain,
    )
}

/// Makes a sandbox; returns its identifier.
///
/// # Errors
/// What the event says.
pub async fn run_sandbox(
    services: &Services,
    pod: &Pod,
    config: PodSandboxConfig,
) -> Result<String, String> {
    fs::create_dir_all(&config.log_directory).map_err(|error| error.to_string())?;
    let handler = services.runtime_handler(pod).await?;
    let mut request = Request::new(RunPodSandboxRequest {
        runtime_handler: handler.clone(),
        config: Some(config),
    });
    request.set_timeout(RUNTIME_TIMEOUT);
    let mut runtime = services.cri.runtime.clone();
    let since = Instant::now();
    let response = runtime.run_pod_sandbox(request).await;
    metrics::sandbox(&handler, since.elapsed(), response.is_err());
    let id = response
        .map_err(|status| describe(&status))?
        .into_inner()
        .pod_sandbox_id;
    services.index.insert(&id, uid(pod));
    Ok(id)
}

/// A container that is to be started.
pub struct Start {
    pub services: Arc<Services>,
    pub pod: Arc<Pod>,
    pub kind: ContainerKind,
    pub container: Container,
    pub sandbox_id: String,
    pub sandbox_config: Arc<PodSandboxConfig>,
    /// How often the container was started before; by its logs when `None`.
    pub restart_count: Option<i32>,
    pub volumes: Arc<BTreeMap<String, MountedVolume>>,
    pub addresses: Arc<Addresses>,
    /// The container that an ephemeral one looks into.
    pub target: Target,
}

/// The container whose processes an ephemeral container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    None,
    Container(String),
    /// It is named but not there.
    Missing(String),
}

/// What came of a start.
pub struct Started {
    /// The container, if it was made.
    pub id: Option<String>,
    pub result: Result<(), Failed>,
}

/// Why a container did not start.
#[derive(Debug)]
pub struct Failed {
    pub waiting: Waiting,
    /// When another attempt is worth it; after the usual delay when `None`.
    pub retry_at: Option<Instant>,
}

impl Failed {
    fn new(reason: &str, message: String) -> Self {
        Failed {
            waiting: Waiting {
                reason: reason.to_owned(),
                message,
            },
            retry_at: None,
        }
    }
}

impl Start {
    /// Starts the container and runs its hook.
    pub async fn run(self) -> Started {
        let mut id = None;
        let kind = match self.kind {
            ContainerKind::Init => "init_container",
            ContainerKind::Regular => "container",
            ContainerKind::Ephemeral => "ephemeral_container",
        };
        metrics::container_starts(kind);
        let result = Box::pin(self.steps(&mut id)).await;
        if let Err(failed) = &result {
            metrics::container_failed(kind, &failed.waiting.reason);
        }
        Started { id, result }
    }

    async fn steps(&self, id: &mut Option<String>) -> Result<(), Failed> {
        let pull_secrets = self.pull_secrets().await;
        let own_image = self.container.image.as_deref().unwrap_or_default();
        let policy = self.container.image_pull_policy.as_deref();
        let image = self.image(own_image, policy, &pull_secrets).await?;
        let config = self.config(&image, &pull_secrets).await?;
        let log_path = config.log_path.clone();
        let created = Box::pin(self.create(config)).await?;
        *id = Some(created.clone());
        self.event(EventType::Normal, "Created", "Container created");
        self.start(&created).await?;
        self.event(EventType::Normal, "Started", "Container started");
        self.link_log(&created, &log_path);
        self.post_start(&created).await
    }

    fn event(&self, event_type: EventType, reason: &str, message: &str) {
        let name = (self.kind, self.container.name.as_str());
        self.services
            .container_event(&self.pod, name, event_type, reason, message);
    }

    /// Tells of a failure and makes it what the status shows.
    fn failed(&self, reason: &str, message: String) -> Failed {
        self.event(EventType::Warning, "Failed", &format!("Error: {message}"));
        Failed::new(reason, message)
    }

    async fn pull_secrets(&self) -> Vec<Arc<Secret>> {
        let namespace = self.pod.namespace().unwrap_or_default();
        let mut secrets = Vec::new();
        let mut missing = Vec::new();
        for reference in spec(&self.pod).image_pull_secrets.iter().flatten() {
            if reference.name.is_empty() {
                continue;
            }
            let volumes = &self.services.volumes;
            match volumes.secrets.get(&namespace, &reference.name).await {
                Ok(Some(secret)) => secrets.push(secret),
                Ok(None) | Err(_) => missing.push(reference.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image \
                 may not succeed.",
                missing.join(", ")
            );
            let reason = "FailedToRetrieveImagePullSecret";
            self.services
                .pod_event(&self.pod, EventType::Warning, reason, &message);
        }
        secrets
    }

    async fn image(
        &self,
        image: &str,
        policy: Option<&str>,
        pull_secrets: &[Arc<Secret>],
    ) -> Result<Image, Failed> {
        let involved = container_reference(&self.pod, self.kind, &self.container.name);
        let wanted = Wanted {
            involved: &involved,
            pod_uid: uid(&self.pod),
            image,
            policy: Policy::new(policy),
            pull_secrets,
            sandbox: &self.sandbox_config,
        };
        self.services
            .images
            .ensure(&wanted)
            .await
            .map_err(|unavailable| {
                let reason = &unavailable.waiting.reason;
                self.event(EventType::Warning, "Failed", &format!("Error: {reason}"));
                Failed {
                    waiting: unavailable.waiting,
                    retry_at: unavailable.retry_at,
                }
            })
    }

    /// What the runtime calls the images that volumes of the container are made of.
    async fn volume_images(
        &self,
        pull_secrets: &[Arc<Secret>],
    ) -> Result<BTreeMap<String, ImageSpec>, Failed> {
        let mut images = BTreeMap::new();
        for mount in self.container.volume_mounts.iter().flatten() {
            let volume = self.volumes.get(&mount.name);
            let Some(source) = volume.and_then(|volume| volume.image.as_ref()) else {
                continue;
            };
            let reference = source.reference.as_deref().unwrap_or_default();
            let policy = source.pull_policy.as_deref();
            let image = self.image(reference, policy, pull_secrets).await?;
            let spec = ImageSpec {
                image: image.id,
                user_specified_image: reference.to_owned(),
                ..ImageSpec::default()
            };
            images.insert(mount.name.clone(), spec);
        }
        Ok(images)
    }

    async fn config(
        &self,
        image: &Image,
        pull_secrets: &[Arc<Secret>],
    ) -> Result<ContainerConfig, Failed> {
        let images = self.volume_images(pull_secrets).await?;
        let refused = |message: String| self.failed("CreateContainerConfigError", message);
        let target_id = match &self.target {
            Target::None => None,
            Target::Container(id) => Some(id.as_str()),
            Target::Missing(name) => {
                return Err(refused(format!("unable to find target container {name}")));
            }
        };
        let env = self.env().await.map_err(refused)?;
        let mounts = self.mounts(env.clone(), images).await.map_err(refused)?;
        let logs = self
            .services
            .container_log_dir(&self.pod, &self.container.name);
        fs::create_dir_all(&logs).map_err(|error| {
            refused(format!(
                "create container log directory for container {} failed: {error}",
                self.container.name
            ))
        })?;
        let restart_count = self
            .restart_count
            .unwrap_or_else(|| config::restart_count_by_logs(&logs));
        let image_user = ImageUser {
            uid: image.uid.map(|uid| uid.value),
            name: image.username.clone(),
        };
        config::config(Ingredients {
            pod: &self.pod,
            container: &self.container,
            restart_count,
            image_ref: &image.id,
            image_user: &image_user,
            env: &env,
            mounts,
            machine: &self.services.machine,
            policy: &self.services.security_policy(),
            target_id,
        })
        .map_err(refused)
    }

    async fn env(&self) -> Result<BTreeMap<String, String>, String> {
        let namespace = self.pod.namespace().unwrap_or_default();
        let (config_maps, secrets) = env::references(&self.container);
        let volumes = &self.services.volumes;
        let links = spec(&self.pod).enable_service_links != Some(false);
        self.services.services.synced().await;
        let services = self.services.services.list();
        let mut sources = Sources {
            services: env::service_variables(services.iter().map(AsRef::as_ref), &namespace, links),
            ..Sources::default()
        };
        for name in config_maps {
            let object = volumes.config_maps.get(&namespace, name).await?;
            sources.config_maps.insert(name.to_owned(), object);
        }
        for name in secrets {
            let object = volumes.secrets.get(&namespace, name).await?;
            sources.secrets.insert(name.to_owned(), object);
        }
        let node = self.services.node.borrow().clone();
        env::environment(
            &self.container,
            &Surroundings {
                pod: &self.pod,
                addresses: &self.addresses,
                allocatable: &node.allocatable,
                sources: &sources,
                env_file: &|volume, path, key| self.env_file(volume, path, key),
            },
        )
    }

    /// Reads a key of a file of `NAME=value` lines in a volume.
    fn env_file(&self, volume: &str, path: &str, key: &str) -> Result<Option<String>, String> {
        let volume = self
            .volumes
            .get(volume)
            .ok_or_else(|| format!("cannot find the volume {volume:?} referenced by FileKeyRef"))?;
        if Path::new(path).is_absolute() || path.split('/').any(|part| part == "..") {
            return Err("couldn't parse env file".to_owned());
        }
        let text = fs::read_to_string(volume.path.join(path))
            .map_err(|_| "couldn't parse env file".to_owned())?;
        Ok(text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().trim_matches(['\'', '"']).to_owned())
            .next_back())
    }

    /// Making mounts ready may wait for a disk.
    async fn mounts(
        &self,
        env: BTreeMap<String, String>,
        images: BTreeMap<String, ImageSpec>,
    ) -> Result<Vec<k8s_cri::v1::Mount>, String> {
        let domain = &self.services.config.cluster_domain;
        let hostname = Hostname::of(&self.pod, domain)?;
        let ips = self.addresses.pod_ips.clone();
        let (pod, container) = (self.pod.clone(), self.container.clone());
        let volumes = self.volumes.clone();
        let pod_dir = self.services.pod_dir(uid(&self.pod));
        let recursive_read_only_mounts = self.services.recursive_read_only_mounts();
        let work = move || {
            fs::create_dir_all(&pod_dir).map_err(|error| error.to_string())?;
            let node_hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
            let hosts = config::has_hosts_file(&pod, &ips)
                .then(|| hosts_file(&pod, &ips, &hostname, &node_hosts));
            config::mounts(&MountSources {
                pod: &pod,
                container: &container,
                volumes: &volumes,
                env: &env,
                pod_dir: &pod_dir,
                recursive_read_only_mounts,
                hosts_file: hosts.as_deref(),
                images: &images,
            })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(error.to_string()),
        }
    }

    async fn create(&self, config: ContainerConfig) -> Result<String, Failed> {
        let mut request = Request::new(CreateContainerRequest {
            pod_sandbox_id: self.sandbox_id.clone(),
            config: Some(config),
            sandbox_config: Some(PodSandboxConfig::clone(&self.sandbox_config)),
        });
        request.set_timeout(RUNTIME_TIMEOUT);
        let mut runtime = self.services.cri.runtime.clone();
        let response = runtime.create_container(request).await;
        let id = response
            .map_err(|status| self.failed("CreateContainerError", status.message().to_owned()))?
            .into_inner()
            .container_id;
        self.services.index.insert(&id, uid(&self.pod));
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<(), Failed> {
        let mut request = Request::new(StartContainerRequest {
            container_id: id.to_owned(),
        });
        request.set_timeout(RUNTIME_TIMEOUT);
        let mut runtime = self.services.cri.runtime.clone();
        match runtime.start_container(request).await {
            Ok(_) => Ok(()),
            Err(status) => {
                // The runtime names the container by its identifier, users by its name.
                let message = status.message().replace(id, &self.container.name);
                Err(self.failed("RunContainerError", message))
            }
        }
    }

    /// Log collectors look for logs by the names of pods and containers in one directory.
    fn link_log(&self, id: &str, log_path: &str) {
        let Some(directory) = &self.services.config.container_logs_dir else {
            return;
        };
        let log = self.services.pod_log_dir(&self.pod).join(log_path);
        let name = log_link(&self.pod, &self.container.name, id);
        let linked = fs::create_dir_all(directory)
            .and_then(|()| std::os::unix::fs::symlink(log, directory.join(name)));
        if let Err(error) = linked {
            tracing::debug!(%error, "cannot link the log of a container");
        }
    }

    async fn post_start(&self, id: &str) -> Result<(), Failed> {
        let lifecycle = self.container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return Ok(());
        };
        let pod_ip = self.addresses.pod_ips.first();
        let pod_ip = pod_ip.map(String::as_str).unwrap_or_default();
        let of = hooks::Of {
            pod: &self.pod,
            container: &self.container,
            container_id: id,
            pod_ip,
        };
        let Err(message) = hooks::run(&self.services.cri, &of, hook).await else {
            return Ok(());
        };
        let reason = "FailedPostStartHook";
        self.event(EventType::Warning, reason, "PostStartHook failed");
        let victim = Victim {
            id: id.to_owned(),
            name: self.container.name.clone(),
            message: reason.to_owned(),
            reason: KillReason::Other,
        };
        let of = kill::Of {
            services: self.services.clone(),
            pod: self.pod.clone(),
            pod_ip: pod_ip.to_owned(),
        };
        if let Err(error) = kill::container(&of, &victim, None).await {
            tracing::warn!(container = victim.name, error, "cannot end a container");
        }
        Err(Failed::new("PostStartHookError", message))
    }
}
