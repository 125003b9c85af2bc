//! Short ways to write pods, nodes and a cluster in tests.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod},
    policy::v1::PodDisruptionBudget,
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
    storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{
    cache::Cache,
    cluster::{Cluster, Surroundings},
    devices::{Devices, Pending, cel::Selectors},
    nominator::Nominator,
    pod::PodInfo,
    selector::{Labels, Selector},
    storage::{Assumed, Storage},
};

/// A pod in the namespace `default` named `pod`, unless `value` says otherwise.
pub(crate) fn pod(value: Value) -> Arc<PodInfo> {
    let mut pod = json!({
        "metadata": {"namespace": "default", "name": "pod", "uid": "uid"},
        "spec": {"containers": [{"name": "c", "image": "image"}]},
    });
    merge(&mut pod, value);
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// A node with room for 4 CPUs, 8 GiB and 110 pods, unless `value` says otherwise.
pub(crate) fn node(name: &str, value: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    merge(&mut node, value);
    Arc::new(serde_json::from_value(node).expect("a node"))
}

/// Lays `from` over `into`, object by object.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A cluster that stands still.
#[derive(Default)]
pub(crate) struct World {
    pub cache: Cache,
    pub nominator: Nominator,
    pub surroundings: Still,
}

#[derive(Default)]
pub(crate) struct Still {
    pub namespaces: HashMap<String, Labels>,
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    pub owners: Option<Selector>,
    pub storage: Shelf,
    pub devices: Rack,
}

/// What there is to store on.
#[derive(Default)]
pub(crate) struct Shelf {
    claims: HashMap<String, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    csi_nodes: HashMap<String, Arc<CSINode>>,
    drivers: HashMap<String, Arc<CSIDriver>>,
    capacities: Vec<Arc<CSIStorageCapacity>>,
    attachments: HashMap<String, Arc<VolumeAttachment>>,
    assumed: Assumed,
}

/// What devices there are.
#[derive(Default)]
pub(crate) struct Rack {
    claims: HashMap<String, Arc<ResourceClaim>>,
    slices: HashMap<String, Arc<ResourceSlice>>,
    classes: HashMap<String, Arc<DeviceClass>>,
    pending: Pending,
    selectors: Arc<Selectors>,
}

impl Rack {
    pub fn add_claim(&mut self, value: Value) {
        let claim: Arc<ResourceClaim> = object(value);
        self.claims.insert(claim.name_any(), claim);
    }

    pub fn add_slice(&mut self, value: Value) {
        let slice: Arc<ResourceSlice> = object(value);
        self.slices.insert(slice.name_any(), slice);
    }

    pub fn add_class(&mut self, value: Value) {
        let class: Arc<DeviceClass> = object(value);
        self.classes.insert(class.name_any(), class);
    }
}

impl Devices for Rack {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<ResourceClaim>> {
        let claim = self.claims.get(name).cloned();
        claim.filter(|claim| claim.metadata.namespace.as_deref() == Some(namespace))
    }

    fn claims(&self) -> Vec<Arc<ResourceClaim>> {
        self.claims.values().cloned().collect()
    }

    fn slices(&self) -> Vec<Arc<ResourceSlice>> {
        let mut slices: Vec<_> = self.slices.values().cloned().collect();
        slices.sort_by_key(|slice| slice.name_any());
        slices
    }

    fn class(&self, name: &str) -> Option<Arc<DeviceClass>> {
        self.classes.get(name).cloned()
    }

    fn classes(&self) -> Vec<Arc<DeviceClass>> {
        self.classes.values().cloned().collect()
    }

    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn selectors(&self) -> Arc<Selectors> {
        self.selectors.clone()
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

macro_rules! shelf {
    ($($add:ident: $kind:ident in $list:ident),*) => {
        impl Shelf {
            $(pub fn $add(&mut self, value: Value) {
                let object: Arc<$kind> = object(value);
                self.$list.insert(object.name_any(), object);
            })*

            pub fn add_capacity(&mut self, value: Value) {
                self.capacities.push(object(value));
            }
        }
    };
}

shelf!(
    add_claim: PersistentVolumeClaim in claims,
    add_volume: PersistentVolume in volumes,
    add_class: StorageClass in classes,
    add_csi_node: CSINode in csi_nodes,
    add_driver: CSIDriver in drivers,
    add_attachment: VolumeAttachment in attachments
);

impl Storage for Shelf {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        let claim = self.claims.get(name).cloned();
        claim.filter(|claim| claim.metadata.namespace.as_deref() == Some(namespace))
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get(name).cloned()
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.values().cloned().collect()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(name).cloned()
    }

    fn csi_node(&self, name: &str) -> Option<Arc<CSINode>> {
        self.csi_nodes.get(name).cloned()
    }

    fn csi_driver(&self, name: &str) -> Option<Arc<CSIDriver>> {
        self.drivers.get(name).cloned()
    }

    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>> {
        self.capacities.clone()
    }

    fn attachments(&self) -> Vec<Arc<VolumeAttachment>> {
        self.attachments.values().cloned().collect()
    }

    fn assumed(&self) -> &Assumed {
        &self.assumed
    }
}

impl Surroundings for Still {
    fn namespace_labels(&self, namespace: &str) -> Option<Labels> {
        self.namespaces.get(namespace).cloned()
    }

    fn namespaces_matching(&self, selector: &Selector) -> Vec<String> {
        self.namespaces
            .iter()
            .filter(|(_, labels)| selector.matches(Some(labels)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn default_selector(&self, _pod: &PodInfo) -> Option<Selector> {
        self.owners.clone()
    }

    fn disruption_budgets(&self) -> Vec<Arc<PodDisruptionBudget>> {
        self.budgets.clone()
    }

    fn storage(&self) -> &dyn Storage {
        &self.storage
    }

    fn devices(&self) -> &dyn Devices {
        &self.devices
    }
}

impl World {
    pub fn new(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let mut world = World::default();
        for node in nodes {
            world.cache.set_node(node);
        }
        world
    }

    /// Adds a pod that runs on `node`.
    pub fn running(&mut self, name: &str, node: &str, mut value: Value) {
        merge(
            &mut value,
            json!({"metadata": {"name": name, "uid": name}, "spec": {"nodeName": node}}),
        );
        self.cache.set_pod(pod(value));
    }

    pub fn cluster(&self) -> Cluster<'_> {
        Cluster {
            cache: &self.cache,
            nominator: &self.nominator,
            surroundings: &self.surroundings,
        }
    }
}
