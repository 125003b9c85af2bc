//! Claims, volumes and their classes, as far as they bind a pod to nodes.
//!
//! [`Storage`] is what the plugins read; [`Assumed`] what was decided and is not written yet.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use coracle_api::claims::{self, BIND_COMPLETED};
use coracle_client::{Informer, Informers};
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};

use crate::selector::selects_node;

/// What there is to store on. Served from informers, and by hand in tests.
pub(crate) trait Storage: Send + Sync {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    fn csi_node(&self, name: &str) -> Option<Arc<CSINode>>;
    fn csi_driver(&self, name: &str) -> Option<Arc<CSIDriver>>;
    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>>;
    fn attachments(&self) -> Vec<Arc<VolumeAttachment>>;
    fn assumed(&self) -> &Assumed;
}

/// What pods on their way to a node have been promised.
#[derive(Debug, Default)]
pub(crate) struct Assumed(Mutex<Promises>);

#[derive(Debug, Default)]
struct Promises {
    volumes: HashSet<String>,
    /// The nodes that claims, as `namespace/name`, get their volumes on.
    nodes: HashMap<String, Arc<str>>,
}

impl Assumed {
    /// Promises volumes and, on a node, volumes for claims; until [`Assumed::forget`].
    pub fn promise(&self, volumes: &[String], claims: &[String], node: &Arc<str>) {
        let mut promises = self.lock();
        promises.volumes.extend(volumes.iter().cloned());
        let nodes = claims.iter().map(|claim| (claim.clone(), node.clone()));
        promises.nodes.extend(nodes);
    }

    pub fn forget(&self, volumes: &[String], claims: &[String]) {
        let mut promises = self.lock();
        for volume in volumes {
            promises.volumes.remove(volume);
        }
        for claim in claims {
            promises.nodes.remove(claim);
        }
    }

    pub fn has_volume(&self, name: &str) -> bool {
        self.lock().volumes.contains(name)
    }

    pub fn node_of(&self, claim: &str) -> Option<Arc<str>> {
        self.lock().nodes.get(claim).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Promises> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Storage`] from the process's informers.
pub(crate) struct Informed {
    pub claims: Informer<PersistentVolumeClaim>,
    pub volumes: Informer<PersistentVolume>,
    pub classes: Informer<StorageClass>,
    pub csi_nodes: Informer<CSINode>,
    pub drivers: Informer<CSIDriver>,
    pub attachments: Informer<VolumeAttachment>,
    pub capacities: Informer<CSIStorageCapacity>,
    assumed: Assumed,
}

impl Informed {
    pub fn new(informers: &Informers) -> Self {
        Informed {
            claims: informers.get(),
            volumes: informers.get(),
            classes: informers.get(),
            csi_nodes: informers.get(),
            drivers: informers.get(),
            attachments: informers.get(),
            capacities: informers.get(),
            assumed: Assumed::default(),
        }
    }

    pub async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.csi_nodes.synced().await;
        self.drivers.synced().await;
        self.attachments.synced().await;
        self.capacities.synced().await;
    }
}

impl Storage for Informed {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(namespace, name)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get("", name)
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.list()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get("", name)
    }

    fn csi_node(&self, name: &str) -> Option<Arc<CSINode>> {
        self.csi_nodes.get("", name)
    }

    fn csi_driver(&self, name: &str) -> Option<Arc<CSIDriver>> {
        self.drivers.get("", name)
    }

    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>> {
        self.capacities.list()
    }

    fn attachments(&self) -> Vec<Arc<VolumeAttachment>> {
        self.attachments.list()
    }

    fn assumed(&self) -> &Assumed {
        &self.assumed
    }
}

/// A volume of a pod that is a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimUse<'a> {
    pub name: Cow<'a, str>,
    /// Made for this pod alone.
    pub ephemeral: bool,
}

/// The claims that the pod's volumes are.
pub(crate) fn claims_of(pod: &Pod) -> impl Iterator<Item = ClaimUse<'_>> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().filter_map(|volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            return Some(ClaimUse {
                name: Cow::Borrowed(&source.claim_name),
                ephemeral: false,
            });
        }
        volume.ephemeral.as_ref()?;
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        Some(ClaimUse {
            name: Cow::Owned(format!("{pod}-{}", volume.name)),
            ephemeral: true,
        })
    })
}

/// `namespace/name`
pub(crate) fn claim_key(claim: &PersistentVolumeClaim) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let metadata = &claim.metadata;
    format!("{}/{}", text(&metadata.namespace), text(&metadata.name))
}

/// The volume that the claim has or names; empty for none.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default()
}

pub(crate) fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Whether claim and volume name each other.
pub(crate) fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && annotation(claim, BIND_COMPLETED).is_some()
}

/// Whether the claim's volume is chosen or made when a pod with it has a node.
pub(crate) fn is_delayed(claim: &PersistentVolumeClaim, storage: &dyn Storage) -> bool {
    let class = storage.class(claims::claim_class(claim));
    let mode = class.as_ref().map(|class| &class.volume_binding_mode);
    mode.is_some_and(|mode| mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// Whether the volume can be reached from the node.
pub(crate) fn is_reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let spec = volume.spec.as_ref();
    let affinity = spec.and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else {
        return true;
    };
    selects_node(required, node)
}

/// Whether a class lets volumes be made for the node.
pub(crate) fn allows_node(class: &StorageClass, node: &Node) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    terms.is_empty()
        || terms.iter().any(|term| {
            let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
            !expressions.is_empty()
                && expressions.iter().all(|expression| {
                    let value = labels.get(&expression.key);
                    value.is_some_and(|value| expression.values.contains(value))
                })
        })
}
