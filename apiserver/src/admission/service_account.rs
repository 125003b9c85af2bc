//! `ServiceAccount`: every pod runs as a service account that exists, and gets its token.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use coracle_api::{Object, meta};
use http::StatusCode;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, EnvFromSource,
    EnvVar, KeyToPath, ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource,
    ServiceAccount as Account, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::{Admission, Attributes, Operation, typed, typed_mut};
use crate::{Lister, Registry, Shared, error::ApiError};

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";
/// A token of this life is made to last longer; see the token request.
const TOKEN_SECONDS: i64 = 3607;
const VOLUME_MODE: i32 = 0o644;
/// The default account of a new namespace is made a moment after it.
const DEFAULT_ACCOUNT_WAITS: u32 = 10;
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_millis(100);

/// The plugin.
pub struct ServiceAccount {
    registry: Registry,
    accounts: Lister<Account>,
}

impl ServiceAccount {
    pub fn new(registry: Registry) -> Self {
        ServiceAccount {
            accounts: registry.lister(),
            registry,
        }
    }

    async fn account(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        name: &str,
    ) -> Result<Shared<Account>, ApiError> {
        let namespace = attributes.namespace;
        let waits = if name == DEFAULT {
            DEFAULT_ACCOUNT_WAITS
        } else {
            1
        };
        for wait in 0..waits {
            if let Some(account) = self.accounts.get(namespace, name) {
                return Ok(account);
            }
            if wait == 0 {
                self.registry.fresh().await?;
                if let Some(account) = self.accounts.get(namespace, name) {
                    return Ok(account);
                }
            }
            if wait + 1 < waits {
                tokio::time::sleep(DEFAULT_ACCOUNT_WAIT).await;
            }
        }
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        Err(attributes.forbidden(object, why))
    }
}

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let on_pods = attributes.kind.group.is_empty() && attributes.kind.resource == "pods";
        on_pods
            && match attributes.operation {
                Operation::Create => attributes.subresource.is_empty(),
                Operation::Update => attributes.subresource == "ephemeralcontainers",
                Operation::Delete | Operation::Connect => false,
            }
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(pod) = typed_mut::<Pod>(object) else {
            return Ok(());
        };
        // The kubelet takes a mirror pod that differs for another pod.
        if attributes.operation != Operation::Create || is_mirror(pod) {
            return Ok(());
        }
        let name = {
            let spec = pod.spec.get_or_insert_default();
            let name = spec.service_account_name.get_or_insert_default();
            if name.is_empty() {
                DEFAULT.clone_into(name);
            }
            let name = name.clone();
            spec.service_account = Some(name.clone());
            name
        };
        let account = self.account(attributes, Some(&*pod), &name).await?;
        let Some(spec) = &mut pod.spec else {
            return Ok(());
        };
        let automount = spec
            .automount_service_account_token
            .or(account.automount_service_account_token)
            .unwrap_or(true);
        if automount {
            mount_token(spec);
        }
        let has_pull_secrets = spec
            .image_pull_secrets
            .as_ref()
            .is_some_and(|s| !s.is_empty());
        if !has_pull_secrets {
            spec.image_pull_secrets
                .clone_from(&account.image_pull_secrets);
        }
        Ok(())
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(pod) = typed::<Pod>(object) else {
            return Ok(());
        };
        let forbidden = |why: String| Err(attributes.forbidden(object, why));
        let spec = pod.spec.clone().unwrap_or_default();
        let name = spec.service_account_name.as_deref().unwrap_or_default();
        if attributes.operation == Operation::Create && is_mirror(pod) {
            return match mirror_refers_to(&spec) {
                Some(what) => forbidden(format!("a mirror pod may not {what}")),
                None => Ok(()),
            };
        }
        if name.is_empty() {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            let namespace = attributes.namespace;
            return forbidden(format!(
                "no service account specified for pod {namespace}/{pod}"
            ));
        }
        let account = self.account(attributes, object, name).await?;
        if !enforces_secrets(&account) {
            return Ok(());
        }
        let allowed = |secret: &str| {
            let secrets = account.secrets.iter().flatten();
            secrets
                .into_iter()
                .any(|known| known.name.as_deref() == Some(secret))
        };
        let refused = if attributes.operation == Operation::Update {
            refused_of_ephemeral(&spec, allowed)
        } else {
            refused_secret(&spec, &account, allowed)
        };
        match refused {
            None => Ok(()),
            Some(what) => {
                let name = account.metadata.name.as_deref().unwrap_or_default();
                let why = format!(
                    "{what} is not allowed because service account {name} does not reference that secret"
                );
                if attributes.operation == Operation::Update {
                    return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", why));
                }
                forbidden(why)
            }
        }
    }
}

fn is_mirror(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// What a mirror pod has of what it may not have.
fn mirror_refers_to(spec: &PodSpec) -> Option<&'static str> {
    if spec
        .service_account_name
        .as_ref()
        .is_some_and(|name| !name.is_empty())
    {
        return Some("reference service accounts");
    }
    if !secrets_of(spec).is_empty() {
        return Some("reference secrets");
    }
    let tokens = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref())
        .flatten()
        .any(|source| source.service_account_token.is_some());
    tokens.then_some("use ServiceAccountToken volume projections")
}

/// The names of all secrets that the pod refers to.
fn secrets_of(spec: &PodSpec) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for secret in spec.image_pull_secrets.iter().flatten() {
        names.insert(secret.name.as_str());
    }
    let init = spec.init_containers.iter().flatten();
    for container in spec.containers.iter().chain(init) {
        names.extend(env_secrets(container.env.as_deref()).map(|(_, secret)| secret));
        names.extend(env_from_secrets(container.env_from.as_deref()));
    }
    for volume in spec.volumes.iter().flatten() {
        names.extend(
            volume
                .secret
                .as_ref()
                .and_then(|s| s.secret_name.as_deref()),
        );
        let projected = volume.projected.as_ref().and_then(|p| p.sources.as_ref());
        for source in projected.into_iter().flatten() {
            names.extend(source.secret.as_ref().map(|secret| secret.name.as_str()));
        }
    }
    names
}

fn env_secrets(env: Option<&[EnvVar]>) -> impl Iterator<Item = (&str, &str)> {
    env.unwrap_or_default().iter().filter_map(|variable| {
        let secret = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some((variable.name.as_str(), secret.name.as_str()))
    })
}

fn env_from_secrets(sources: Option<&[EnvFromSource]>) -> impl Iterator<Item = &str> {
    let sources = sources.unwrap_or_default().iter();
    sources.filter_map(|source| Some(source.secret_ref.as_ref()?.name.as_str()))
}

fn enforces_secrets(account: &Account) -> bool {
    let annotations = account.metadata.annotations.as_ref();
    let value = annotations.and_then(|annotations| annotations.get(ENFORCE_SECRETS));
    matches!(
        value.map(String::as_str),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True")
    )
}

fn refused_env(
    kind: &str,
    name: &str,
    env: Option<&[EnvVar]>,
    from: Option<&[EnvFromSource]>,
    allowed: impl Fn(&str) -> bool,
) -> Option<String> {
    let variable = env_secrets(env).find(|(_, secret)| !allowed(secret));
    if let Some((variable, secret)) = variable {
        return Some(format!(
            "{kind} {name} with envVar {variable} referencing secret.secretName=\"{secret}\""
        ));
    }
    let secret = env_from_secrets(from).find(|secret| !allowed(secret))?;
    Some(format!(
        "{kind} {name} with envFrom referencing secret.secretName=\"{secret}\""
    ))
}

fn refused_secret(
    spec: &PodSpec,
    account: &Account,
    allowed: impl Fn(&str) -> bool,
) -> Option<String> {
    let volumes = spec.volumes.iter().flatten();
    let mut secrets = volumes.filter_map(|v| v.secret.as_ref()?.secret_name.as_deref());
    if let Some(secret) = secrets.find(|secret| !allowed(secret)) {
        return Some(format!("volume with secret.secretName=\"{secret}\""));
    }
    let refused = |kind: &str, container: &Container| {
        let (env, from) = (container.env.as_deref(), container.env_from.as_deref());
        refused_env(kind, &container.name, env, from, &allowed)
    };
    let mut init = spec.init_containers.iter().flatten();
    let refused = init
        .find_map(|container| refused("init container", container))
        .or_else(|| spec.containers.iter().find_map(|c| refused("container", c)));
    if refused.is_some() {
        return refused;
    }
    let pull = |name: &str| {
        let secrets = account.image_pull_secrets.iter().flatten();
        secrets.into_iter().any(|secret| secret.name == name)
    };
    let mut secrets = spec.image_pull_secrets.iter().flatten().enumerate();
    let (index, secret) = secrets.find(|(_, secret)| !pull(&secret.name))?;
    Some(format!(
        "imagePullSecrets[{index}].name=\"{}\"",
        secret.name
    ))
}

fn refused_of_ephemeral(spec: &PodSpec, allowed: impl Fn(&str) -> bool) -> Option<String> {
    let mut containers = spec.ephemeral_containers.iter().flatten();
    containers.find_map(|container| {
        let (env, from) = (container.env.as_deref(), container.env_from.as_deref());
        refused_env("ephemeral container", &container.name, env, from, &allowed)
    })
}

fn random() -> [u8; 5] {
    let mut bytes = [0; 5];
    // Without randomness the name is merely always the same.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// Mounts the token where programs look for it, in every container that has nothing there.
fn mount_token(spec: &mut PodSpec) {
    let volumes = spec.volumes.get_or_insert_default();
    let existing = volumes
        .iter()
        .find(|volume| volume.name.starts_with(VOLUME_PREFIX))
        .map(|volume| volume.name.clone());
    let name = existing
        .clone()
        .unwrap_or_else(|| meta::generate_name(VOLUME_PREFIX, random()));
    let init = spec.init_containers.iter_mut().flatten();
    let mut needed = false;
    for container in init.chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().all(|mount| mount.mount_path != MOUNT_PATH) {
            mounts.push(VolumeMount {
                name: name.clone(),
                read_only: Some(true),
                mount_path: MOUNT_PATH.to_owned(),
                ..VolumeMount::default()
            });
            needed = true;
        }
    }
    if needed && existing.is_none() {
        volumes.push(Volume {
            name,
            projected: Some(token_source()),
            ..Volume::default()
        });
    }
}

/// The token, the authority that signs the API server, and the namespace.
fn token_source() -> ProjectedVolumeSource {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            expiration_seconds: Some(TOKEN_SECONDS),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let root_ca = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    ProjectedVolumeSource {
        default_mode: Some(VOLUME_MODE),
        sources: Some(vec![token, root_ca, namespace]),
    }
}
