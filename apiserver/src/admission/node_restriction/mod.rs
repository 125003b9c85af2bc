//! `NodeRestriction`: a kubelet writes its own node and what belongs to its own pods.
//!
//! Enter at [`NodeRestriction`]; one function a kind. What a node may read is the Node
//! authorizer's matter. Upstream: `plugin/pkg/admission/noderestriction`.

mod audience;
mod labels;
mod pods;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{Object, certificates::CertificateRequest};
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        certificates::v1::CertificateSigningRequest,
        core::v1::{
            Node, NodeConfigSource, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod, Taint,
        },
        resource::v1::ResourceSlice,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};

use super::{Admission, Attributes, Operation, typed};
use crate::{
    Lookup, Registry, Shared,
    authz::{Authorizer, is_node, node_of},
    error::{ApiError, GroupResource},
};
use labels::{changed, forbidden};

const LEASES: &str = "kube-node-lease";

/// The plugin.
pub struct NodeRestriction {
    lookup: Lookup,
    authorizer: Arc<dyn Authorizer>,
}

impl NodeRestriction {
    /// `authorizer` is the one that requests are asked of.
    pub fn new(registry: Registry, authorizer: Arc<dyn Authorizer>) -> Self {
        NodeRestriction {
            lookup: Lookup::new(registry),
            authorizer,
        }
    }

    async fn find_pod(&self, namespace: &str, name: &str) -> Result<Shared<Pod>, ApiError> {
        let found = self.lookup.get::<Pod>(namespace, name).await?;
        found.ok_or_else(|| not_found("pod", name))
    }

    async fn service_account(&self, write: &Write<'_>) -> Result<(), ApiError> {
        let attributes = write.attributes;
        if attributes.operation != Operation::Create || attributes.subresource != "token" {
            return Ok(());
        }
        let Some(request) = typed::<TokenRequest>(write.object) else {
            return Ok(());
        };
        let spec = request.spec.clone().unwrap_or_default();
        let bound = spec.bound_object_ref.as_ref().filter(|bound| {
            bound.api_version.as_deref() == Some("v1") && bound.kind.as_deref() == Some("Pod")
        });
        let name = bound.and_then(|bound| bound.name.as_deref());
        let Some((bound, name)) = bound.zip(name.filter(|name| !name.is_empty())) else {
            return write.refuse("node requested token not bound to a pod");
        };
        let uid = bound.uid.as_deref().unwrap_or_default();
        if uid.is_empty() {
            return write.refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.find_pod(attributes.namespace, name).await?;
        if pod.metadata.uid.as_deref() != Some(uid) {
            return write.refuse(format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"));
        }
        if pods::node_of(&pod) != write.node {
            return write
                .refuse("node requested token bound to a pod scheduled on a different node");
        }
        let audiences = spec.audiences.unwrap_or_default();
        match self.check_audience(attributes, &pod, &audiences).await {
            Ok(()) => Ok(()),
            Err(why) => write.refuse(why),
        }
    }
}

/// What a node writes.
struct Write<'a> {
    node: &'a str,
    attributes: &'a Attributes<'a>,
    object: Option<&'a dyn Object>,
    old: Option<&'a dyn Object>,
}

impl Write<'_> {
    fn refuse(&self, why: impl std::fmt::Display) -> Result<(), ApiError> {
        Err(self.attributes.forbidden(self.object, why))
    }

    /// How upstream prints the operation.
    fn operation(&self) -> &'static str {
        match self.attributes.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }

    /// The name of the object, which for a new one stands in it.
    fn name(&self) -> &str {
        let name = self.object.and_then(|object| object.meta().name.as_deref());
        match self.attributes.operation {
            Operation::Create => name.unwrap_or_default(),
            _ => self.attributes.name,
        }
    }

    fn own_node(&self) -> Result<(), ApiError> {
        let (node, requested) = (self.node, self.attributes.name);
        let requested = if requested.is_empty() {
            self.name()
        } else {
            requested
        };
        if requested != node {
            return self.refuse(format!(
                "node {node:?} is not allowed to modify node {requested:?}"
            ));
        }
        match (typed::<Node>(self.object), typed::<Node>(self.old)) {
            (Some(new), Some(old)) => self.node_update(new, old),
            (Some(new), None) => self.node_creation(new),
            (None, _) => Ok(()),
        }
    }

    fn node_creation(&self, new: &Node) -> Result<(), ApiError> {
        let node = self.node;
        if config_source(new).is_some() {
            return self.refuse(format!(
                "node {node:?} is not allowed to create pods with a non-nil configSource"
            ));
        }
        let wrong = forbidden(&changed(new.metadata.labels.as_ref(), None));
        if wrong.is_empty() {
            return Ok(());
        }
        let wrong = wrong.join(", ");
        self.refuse(format!(
            "node {node:?} is not allowed to set the following labels: {wrong}"
        ))
    }

    fn node_update(&self, new: &Node, old: &Node) -> Result<(), ApiError> {
        fn taints(node: &Node) -> &[Taint] {
            let spec = node.spec.as_ref();
            let taints = spec.and_then(|spec| spec.taints.as_deref());
            taints.unwrap_or_default()
        }
        fn owners(node: &Node) -> &[OwnerReference] {
            let owners = node.metadata.owner_references.as_deref();
            owners.unwrap_or_default()
        }
        let node = self.node;
        if config_source(new).is_some() && config_source(new) != config_source(old) {
            return self.refuse(format!(
                "node {node:?} is not allowed to update configSource to a new non-nil configSource"
            ));
        }
        if taints(new) != taints(old) {
            return self.refuse(format!("node {node:?} is not allowed to modify taints"));
        }
        if owners(new) != owners(old) {
            return self.refuse(format!(
                "node {node:?} is not allowed to modify ownerReferences"
            ));
        }
        let labels = changed(new.metadata.labels.as_ref(), old.metadata.labels.as_ref());
        let wrong = forbidden(&labels);
        if wrong.is_empty() {
            return Ok(());
        }
        let wrong = wrong.join(", ");
        self.refuse(format!("is not allowed to modify labels: {wrong}"))
    }

    fn claim(&self) -> Result<(), ApiError> {
        if self.attributes.subresource != "status" {
            return self.refuse("may only update PVC status");
        }
        if self.attributes.operation != Operation::Update {
            return self.refuse(format!("unexpected operation {:?}", self.operation()));
        }
        let claims = typed::<PersistentVolumeClaim>(self.object).zip(typed(self.old));
        if let Some((new, old)) = claims
            && untouched(new) != untouched(old)
        {
            let node = self.node;
            return self.refuse(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"));
        }
        Ok(())
    }

    fn lease(&self) -> Result<(), ApiError> {
        if self.attributes.namespace != LEASES {
            return self.refuse(format!(
                "can only access leases in the {LEASES:?} system namespace"
            ));
        }
        if self.name() != self.node {
            return self
                .refuse("can only access node lease with the same name as the requesting node");
        }
        Ok(())
    }

    fn csi_node(&self) -> Result<(), ApiError> {
        if self.name() == self.node {
            return Ok(());
        }
        self.refuse("can only access CSINode with the same name as the requesting node")
    }

    fn resource_slice(&self) -> Result<(), ApiError> {
        let (slice, verb) = match self.attributes.operation {
            Operation::Create => (self.object, "create"),
            Operation::Delete => (self.old, "delete"),
            _ => return Ok(()),
        };
        let slice = typed::<ResourceSlice>(slice);
        if slice.is_none_or(|slice| slice.spec.node_name.as_deref() == Some(self.node)) {
            return Ok(());
        }
        self.refuse(format!(
            "can only {verb} ResourceSlice with the same NodeName as the requesting node"
        ))
    }

    fn signing_request(&self) -> Result<(), ApiError> {
        let Some(request) = typed::<CertificateSigningRequest>(self.object)
            .filter(|_| self.attributes.operation == Operation::Create)
        else {
            return Ok(());
        };
        let of_kubelets = matches!(
            request.spec.signer_name.as_str(),
            "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet"
        );
        if !of_kubelets {
            return Ok(());
        }
        let node = self.node;
        match CertificateRequest::from_pem(&request.spec.request.0) {
            Err(error) => self.refuse(format!("unable to parse csr: {error}")),
            Ok(asked) if asked.common_name == format!("system:node:{node}") => Ok(()),
            Ok(_) => self.refuse(format!(
                "can only create a node CSR with CN=system:node:{node}"
            )),
        }
    }
}

fn config_source(node: &Node) -> Option<&NodeConfigSource> {
    node.spec.as_ref()?.config_source.as_ref()
}

/// The claim without what a node may change.
fn untouched(claim: &PersistentVolumeClaim) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    claim.metadata.resource_version = None;
    claim.metadata.managed_fields = None;
    let status = claim.status.take().unwrap_or_default();
    claim.status = Some(PersistentVolumeClaimStatus {
        capacity: None,
        conditions: None,
        allocated_resource_statuses: None,
        allocated_resources: None,
        ..status
    });
    claim
}

/// As the listers of client-go say it.
fn not_found(what: &str, name: &str) -> ApiError {
    let subject = GroupResource {
        group: "",
        resource: what,
    };
    ApiError::not_found(subject, name)
}

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect && is_node(attributes.user)
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let Some(node) = node_of(attributes.user) else {
            let user = &attributes.user.user;
            let why = format!("could not determine node from user {user:?}");
            return Err(attributes.forbidden(object.as_deref(), why));
        };
        let write = Write {
            node,
            attributes,
            object: object.as_deref(),
            old,
        };
        let kind = attributes.kind;
        match (kind.group.as_str(), kind.resource.as_str()) {
            ("", "pods") => self.pods(&write).await,
            ("", "nodes") => write.own_node(),
            ("", "persistentvolumeclaims") => write.claim(),
            ("", "serviceaccounts") => self.service_account(&write).await,
            ("coordination.k8s.io", "leases") => write.lease(),
            ("storage.k8s.io", "csinodes") => write.csi_node(),
            ("resource.k8s.io", "resourceslices") => write.resource_slice(),
            ("certificates.k8s.io", "certificatesigningrequests") => write.signing_request(),
            _ => Ok(()),
        }
    }
}
