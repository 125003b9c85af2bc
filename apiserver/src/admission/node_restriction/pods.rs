//! What a kubelet may do to pods: mirror its static pods, report on its own, and remove them.

use k8s_openapi::api::{
    core::v1::{Node, Pod, PodSpec},
    policy::v1::Eviction,
};
use serde_json::Value;

use super::{NodeRestriction, Write, not_found};
use crate::{
    admission::{Operation, typed},
    error::ApiError,
};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Empty while the pod has no node.
pub fn node_of(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref());
    node.unwrap_or_default()
}

impl NodeRestriction {
    pub(super) async fn pods(&self, write: &Write<'_>) -> Result<(), ApiError> {
        let (node, operation) = (write.node, write.attributes.operation);
        match (write.attributes.subresource, operation) {
            ("", Operation::Create) => self.mirror_pod(write).await,
            ("", Operation::Delete) => {
                let pod = self.pod_named(write, write.attributes.name).await?;
                if node_of(&pod) == node {
                    return Ok(());
                }
                write.refuse(format!(
                    "node {node:?} can only delete pods with spec.nodeName set to itself"
                ))
            }
            ("", _) => write.refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                write.operation()
            )),
            ("status", Operation::Update) => write.pod_status(),
            ("status", _) => write.refuse(format!("unexpected operation {:?}", write.operation())),
            ("eviction", Operation::Create) => self.eviction(write).await,
            ("eviction", _) => write.refuse(format!("unexpected operation {}", write.operation())),
            (other, _) => write.refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
        }
    }

    async fn pod_named(
        &self,
        write: &Write<'_>,
        name: &str,
    ) -> Result<crate::Shared<Pod>, ApiError> {
        self.find_pod(write.attributes.namespace, name).await
    }

    async fn eviction(&self, write: &Write<'_>) -> Result<(), ApiError> {
        let eviction = typed::<Eviction>(write.object);
        let named = eviction.and_then(|eviction| eviction.metadata.name.as_deref());
        let name = match write.attributes.name {
            "" => named.unwrap_or_default(),
            name => name,
        };
        if name.is_empty() {
            return write.refuse("could not determine pod from request data");
        }
        let pod = self.pod_named(write, name).await?;
        if node_of(&pod) == write.node {
            return Ok(());
        }
        write.refuse(format!(
            "node {} can only evict pods with spec.nodeName set to itself",
            write.node
        ))
    }

    async fn mirror_pod(&self, write: &Write<'_>) -> Result<(), ApiError> {
        let Some(pod) = typed::<Pod>(write.object) else {
            return Ok(());
        };
        if let Err(why) = self.check_mirror_pod(write.node, pod).await? {
            return write.refuse(why);
        }
        Ok(())
    }

    /// The inner error is why the pod is refused.
    async fn check_mirror_pod(
        &self,
        node: &str,
        pod: &Pod,
    ) -> Result<Result<(), String>, ApiError> {
        let annotations = pod.metadata.annotations.as_ref();
        if annotations.is_none_or(|annotations| !annotations.contains_key(MIRROR)) {
            return Ok(Err(format!(
                "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
            )));
        }
        if node_of(pod) != node {
            return Ok(Err(format!(
                "node {node:?} can only create pods with spec.nodeName set to itself"
            )));
        }
        let owner = match pod.metadata.owner_references.as_deref().unwrap_or_default() {
            [owner] => owner,
            [] => {
                return Ok(Err(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                )));
            }
            _ => {
                return Ok(Err(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                )));
            }
        };
        if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
            return Ok(Err(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            )));
        }
        if owner.controller != Some(true) {
            return Ok(Err(format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            )));
        }
        if owner.block_owner_deletion == Some(true) {
            return Ok(Err(format!(
                "node {node:?} must not set blockOwnerDeletion on an owner reference"
            )));
        }
        let found = self.lookup.get::<Node>("", node).await?;
        let found = found.ok_or_else(|| not_found("node", node))?;
        let uid = found.metadata.uid.as_deref().unwrap_or_default();
        if owner.uid != uid {
            return Ok(Err(format!(
                "node {node} UID mismatch: expected {} got {uid}",
                owner.uid
            )));
        }
        let reference = pod.spec.as_ref().map_or(Ok(None), api_reference);
        Ok(match reference {
            Ok(None) => Ok(()),
            Ok(Some(what)) => Err(format!(
                "node {node:?} can not create pods that reference {what}"
            )),
            Err(why) => Err(format!(
                "error checking mirror pod for API references: {why}"
            )),
        })
    }
}

impl Write<'_> {
    fn pod_status(&self) -> Result<(), ApiError> {
        let node = self.node;
        let pods = typed::<Pod>(self.object).zip(typed(self.old));
        let Some((new, old)): Option<(_, &Pod)> = pods else {
            return Ok(());
        };
        if node_of(old) != node {
            return self.refuse(format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
        let labels = |pod: &Pod| pod.metadata.labels.clone().unwrap_or_default();
        if labels(new) != labels(old) {
            return self.refuse(format!(
                "node {node:?} cannot update labels through pod status"
            ));
        }
        let claims = |pod: &Pod| {
            let status = pod.status.as_ref();
            let claims = status.and_then(|status| status.resource_claim_statuses.clone());
            claims.unwrap_or_default()
        };
        if claims(new) != claims(old) {
            return self.refuse(format!(
                "node {node:?} cannot update resource claim statues"
            ));
        }
        let extended = |pod: &Pod| pod.status.as_ref()?.extended_resource_claim_status.clone();
        if extended(new) != extended(old) {
            return self.refuse(format!(
                "node {node:?} cannot update extended resource claim status"
            ));
        }
        Ok(())
    }
}

/// What object of the API the pod refers to, if any: a static pod can have none.
///
/// # Errors
/// A volume is of a type that nobody knows.
fn api_reference(spec: &PodSpec) -> Result<Option<&'static str>, String> {
    if spec
        .service_account_name
        .as_ref()
        .is_some_and(|name| !name.is_empty())
    {
        return Ok(Some("serviceaccounts"));
    }
    let value = serde_json::to_value(spec).unwrap_or_default();
    if spec
        .image_pull_secrets
        .as_ref()
        .is_some_and(|all| !all.is_empty())
        || names_secret(&value)
    {
        return Ok(Some("secrets"));
    }
    if names_config_map(&value) {
        return Ok(Some("configmaps"));
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|all| !all.is_empty())
    {
        return Ok(Some("resourceclaims"));
    }
    for volume in value["volumes"].as_array().into_iter().flatten() {
        if let Some(what) = volume_reference(volume)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

const TYPES_WITHOUT_REFERENCE: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];
const TYPES_WITH_REFERENCE: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    (
        "ephemeral",
        "persistentvolumeclaims (via ephemeral volumes)",
    ),
    ("azureFile", "secrets (via azureFile volumes)"),
];
const SOURCES_WITH_REFERENCE: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    (
        "serviceAccountToken",
        "serviceaccounts (via projected volumes)",
    ),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

fn volume_reference(volume: &Value) -> Result<Option<&'static str>, String> {
    let name = volume["name"].as_str().unwrap_or_default();
    let has = |value: &Value, key: &str| value.get(key).is_some();
    if TYPES_WITHOUT_REFERENCE.iter().any(|key| has(volume, key)) {
        return Ok(None);
    }
    let mut types = TYPES_WITH_REFERENCE.iter();
    if let Some((_, what)) = types.find(|(key, _)| has(volume, key)) {
        return Ok(Some(what));
    }
    let Some(projected) = volume.get("projected") else {
        return Err(format!("unknown volume type for volume  {name:?}"));
    };
    for source in projected["sources"].as_array().into_iter().flatten() {
        let mut types = SOURCES_WITH_REFERENCE.iter();
        if let Some((_, what)) = types.find(|(key, _)| has(source, key)) {
            return Ok(Some(what));
        }
        if !has(source, "downwardAPI") {
            return Err(format!("unknown source for projected volume {name:?}"));
        }
    }
    Ok(None)
}

/// Whether a volume or a variable takes something from a Secret: `secretRef` and the like,
/// `secretName`, and `secret` among projected sources.
fn names_secret(value: &Value) -> bool {
    any_member(value, &|key, member| {
        let lower = key.to_ascii_lowercase();
        lower.ends_with("secretref")
            || lower == "secretkeyref"
            || (key == "secretName" && member.as_str().is_some_and(|name| !name.is_empty()))
            || (key == "secret" && member.get("name").is_some())
    })
}

fn names_config_map(value: &Value) -> bool {
    any_member(value, &|key, _| {
        matches!(key, "configMapRef" | "configMapKeyRef" | "configMap")
    })
}

fn any_member(value: &Value, holds: &impl Fn(&str, &Value) -> bool) -> bool {
    match value {
        Value::Object(members) => members
            .iter()
            .any(|(key, member)| holds(key, member) || any_member(member, holds)),
        Value::Array(items) => items.iter().any(|item| any_member(item, holds)),
        _ => false,
    }
}
