//! What relates a node to an object: mostly a pod on the node that refers to it.
//!
//! Nothing is indexed. Only the objects whose bytes name what is asked for are decoded, and
//! those are few.

use std::sync::Arc;

use coracle_api::object::{Typed, expect};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, Pod, PodSpec},
    resource::v1::ResourceSlice,
    storage::v1::VolumeAttachment,
};
use memchr::memmem;
use serde_json::Value;

use crate::{Registry, cache::Cache};

/// A kind of object that a node may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ResourceClaim,
    ResourceSlice,
    VolumeAttachment,
    ServiceAccount,
    Pod,
}

/// Looks relations up.
pub struct Relations {
    pods: Arc<Cache>,
    volumes: Arc<Cache>,
    attachments: Arc<Cache>,
    slices: Arc<Cache>,
}

impl Relations {
    pub fn new(registry: &Registry) -> Self {
        Relations {
            pods: registry.cache::<Pod>(),
            volumes: registry.cache::<PersistentVolume>(),
            attachments: registry.cache::<VolumeAttachment>(),
            slices: registry.cache::<ResourceSlice>(),
        }
    }

    /// Whether the node needs the object.
    pub fn exists(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        match kind {
            Kind::Pod => self.object::<Pod>(&self.pods, namespace, name, |pod| on(pod, node)),
            Kind::VolumeAttachment => {
                self.object::<VolumeAttachment>(&self.attachments, "", name, |attachment| {
                    attachment.spec.node_name == node
                })
            }
            Kind::ResourceSlice => self.object::<ResourceSlice>(&self.slices, "", name, |slice| {
                slice.spec.node_name.as_deref() == Some(node)
            }),
            Kind::Volume => self.object::<PersistentVolume>(&self.volumes, "", name, |volume| {
                self.volume_is_used(node, volume)
            }),
            Kind::Secret => {
                self.by_pods(node, kind, namespace, name) || self.by_volumes(node, namespace, name)
            }
            Kind::ConfigMap | Kind::Claim | Kind::ResourceClaim | Kind::ServiceAccount => {
                self.by_pods(node, kind, namespace, name)
            }
        }
    }

    fn object<T: Typed>(
        &self,
        cache: &Cache,
        namespace: &str,
        name: &str,
        holds: impl Fn(&T) -> bool,
    ) -> bool {
        let entry = cache.get(&cache.key(namespace, name));
        entry
            .and_then(|entry| entry.decode(&**cache.strategy()).ok())
            .is_some_and(|object| holds(expect(&*object)))
    }

    fn by_pods(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let quoted = format!("\"{name}\"");
        // The claim of an ephemeral volume is not named in its pod, but made of two names.
        let also = (kind == Kind::Claim).then_some("\"ephemeral\"");
        let node_name = format!("\"nodeName\":\"{node}\"");
        let names = |bytes: &[u8], text: &str| memmem::find(bytes, text.as_bytes()).is_some();
        self.pods
            .below(&self.pods.key_prefix(namespace))
            .iter()
            .filter(|entry| names(entry.stored(), &node_name))
            .filter(|entry| {
                names(entry.stored(), &quoted)
                    || also.is_some_and(|also| names(entry.stored(), also))
            })
            .filter_map(|entry| entry.decode(&**self.pods.strategy()).ok())
            .any(|pod| {
                let pod: &Pod = expect(&*pod);
                on(pod, node) && refers_to(pod, kind, name)
            })
    }

    /// Secrets that volumes need which are used on the node.
    fn by_volumes(&self, node: &str, namespace: &str, name: &str) -> bool {
        let quoted = format!("\"{name}\"");
        self.volumes
            .below(self.volumes.prefix())
            .iter()
            .filter(|entry| memmem::find(entry.stored(), quoted.as_bytes()).is_some())
            .filter_map(|entry| entry.decode(&**self.volumes.strategy()).ok())
            .any(|volume| {
                let volume: &PersistentVolume = expect(&*volume);
                let claim = volume
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.claim_ref.as_ref());
                let claim_namespace = claim.and_then(|claim| claim.namespace.as_deref());
                let secret = Reference {
                    namespace,
                    name,
                    default_namespace: claim_namespace.unwrap_or_default(),
                };
                let spec = serde_json::to_value(&volume.spec).unwrap_or_default();
                secret.is_in(&spec) && self.volume_is_used(node, volume)
            })
    }

    fn volume_is_used(&self, node: &str, volume: &PersistentVolume) -> bool {
        let claim = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        claim.is_some_and(|claim| {
            let namespace = claim.namespace.as_deref().unwrap_or_default();
            let name = claim.name.as_deref().unwrap_or_default();
            self.by_pods(node, Kind::Claim, namespace, name)
        })
    }
}

/// A secret, as volume sources refer to it: `secretRef` and the like, and `secretName`.
struct Reference<'a> {
    namespace: &'a str,
    name: &'a str,
    default_namespace: &'a str,
}

impl Reference<'_> {
    fn is_in(&self, value: &Value) -> bool {
        let Value::Object(members) = value else {
            return false;
        };
        members.iter().any(|(key, member)| {
            let text = |of: &Value, key: &str| of[key].as_str().map(str::to_owned);
            if key.to_ascii_lowercase().ends_with("secretref") {
                let namespace = text(member, "namespace");
                return member["name"] == self.name
                    && namespace.as_deref().unwrap_or(self.default_namespace) == self.namespace;
            }
            if key == "secretName" {
                let namespace = text(value, "secretNamespace");
                return member == self.name
                    && namespace.as_deref().unwrap_or(self.default_namespace) == self.namespace;
            }
            self.is_in(member)
        })
    }
}

fn on(pod: &Pod, node: &str) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

fn refers_to(pod: &Pod, kind: Kind, name: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    match kind {
        Kind::Secret => secret(spec, name),
        Kind::ConfigMap => config_map(spec, name),
        Kind::Claim => claim(pod, spec, name),
        Kind::ServiceAccount => spec.service_account_name.as_deref() == Some(name),
        Kind::ResourceClaim => {
            let direct = spec.resource_claims.iter().flatten();
            let statuses = pod
                .status
                .as_ref()
                .and_then(|s| s.resource_claim_statuses.as_ref());
            direct
                .into_iter()
                .any(|claim| claim.resource_claim_name.as_deref() == Some(name))
                || statuses
                    .into_iter()
                    .flatten()
                    .any(|status| status.resource_claim_name.as_deref() == Some(name))
        }
        _ => false,
    }
}

/// Whether a container's environment refers to `name` by one of the two kinds of reference.
fn environment(spec: &PodSpec, holds: impl Fn(&Value) -> bool) -> bool {
    let init = spec.init_containers.iter().flatten();
    let containers = spec.containers.iter().chain(init);
    let mut environments = containers
        .map(|container| serde_json::json!([container.env, container.env_from]))
        .chain(
            spec.ephemeral_containers
                .iter()
                .flatten()
                .map(|container| serde_json::json!([container.env, container.env_from])),
        );
    environments.any(|environment| holds(&environment))
}

/// Whether somewhere in the value an object under `key` has that name.
fn names_under(value: &Value, key: &str, name: &str) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(member, value)| {
            (member == key && value["name"] == name) || names_under(value, key, name)
        }),
        Value::Array(values) => values.iter().any(|value| names_under(value, key, name)),
        _ => false,
    }
}

fn secret(spec: &PodSpec, name: &str) -> bool {
    let mut pull_secrets = spec.image_pull_secrets.iter().flatten();
    let volumes = spec.volumes.iter().flatten();
    pull_secrets.any(|secret| secret.name == name)
        || environment(spec, |environment| {
            names_under(environment, "secretKeyRef", name)
                || names_under(environment, "secretRef", name)
        })
        || volumes.into_iter().any(|volume| {
            let value = serde_json::to_value(volume).unwrap_or_default();
            let secret = Reference {
                namespace: "",
                name,
                default_namespace: "",
            };
            let projected = value["projected"]["sources"].as_array();
            secret.is_in(&value)
                || projected
                    .into_iter()
                    .flatten()
                    .any(|source| source["secret"]["name"] == name)
        })
}

fn config_map(spec: &PodSpec, name: &str) -> bool {
    let volumes = spec.volumes.iter().flatten();
    environment(spec, |environment| {
        names_under(environment, "configMapKeyRef", name)
            || names_under(environment, "configMapRef", name)
    }) || volumes.into_iter().any(|volume| {
        let direct = volume.config_map.as_ref().map(|map| map.name.as_str());
        let projected = volume.projected.as_ref().and_then(|p| p.sources.as_ref());
        direct == Some(name)
            || projected
                .into_iter()
                .flatten()
                .any(|source| source.config_map.as_ref().map(|map| map.name.as_str()) == Some(name))
    })
}

fn claim(pod: &Pod, spec: &PodSpec, name: &str) -> bool {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    spec.volumes.iter().flatten().any(|volume| {
        let direct = volume.persistent_volume_claim.as_ref();
        direct.is_some_and(|claim| claim.claim_name == name)
            || (volume.ephemeral.is_some() && format!("{pod_name}-{}", volume.name) == name)
    })
}
