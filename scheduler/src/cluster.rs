//! What a scheduling decision may look at.

use std::sync::Arc;

use coracle_client::{Informer, Informers};
use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{Namespace, ReplicationController, Service},
    policy::v1::PodDisruptionBudget,
};

use crate::{
    cache::Cache,
    devices::{self, Devices},
    nominator::Nominator,
    pod::PodInfo,
    selector::{Labels, Selector},
    storage::{self, Storage},
};

/// The nodes, the pods on them and all else. Borrowed for one decision, in which it stands still.
#[derive(Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub cache: &'a Cache,
    pub nominator: &'a Nominator,
    pub surroundings: &'a dyn Surroundings,
}

/// What is not pods and nodes. Served from informers, and by hand in tests.
pub(crate) trait Surroundings: Send + Sync {
    fn namespace_labels(&self, namespace: &str) -> Option<Labels>;

    fn namespaces_matching(&self, selector: &Selector) -> Vec<String>;

    /// What selects the pod's siblings: the selectors of its Services and its controller.
    fn default_selector(&self, pod: &PodInfo) -> Option<Selector>;

    fn disruption_budgets(&self) -> Vec<Arc<PodDisruptionBudget>>;

    fn storage(&self) -> &dyn Storage;

    fn devices(&self) -> &dyn Devices;
}

/// [`Surroundings`] from the process's informers.
pub(crate) struct Informed {
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    replication_controllers: Informer<ReplicationController>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    budgets: Informer<PodDisruptionBudget>,
    pub storage: Arc<storage::Informed>,
    pub devices: Arc<devices::Informed>,
}

impl Informed {
    /// Starts the watches.
    pub fn new(informers: &Informers) -> Self {
        Informed {
            namespaces: informers.get(),
            services: informers.get(),
            replication_controllers: informers.get(),
            replica_sets: informers.get(),
            stateful_sets: informers.get(),
            budgets: informers.get(),
            storage: Arc::new(storage::Informed::new(informers)),
            devices: Arc::new(devices::Informed::new(informers)),
        }
    }

    pub async fn synced(&self) {
        self.namespaces.synced().await;
        self.services.synced().await;
        self.replication_controllers.synced().await;
        self.replica_sets.synced().await;
        self.stateful_sets.synced().await;
        self.budgets.synced().await;
        self.storage.synced().await;
        self.devices.synced().await;
    }

    fn services_selector(&self, pod: &PodInfo) -> Selector {
        let mut merged = Labels::new();
        for service in self.services.list_namespace(pod.namespace()) {
            let spec = service.spec.as_ref();
            let Some(labels) = spec.and_then(|spec| spec.selector.as_ref()) else {
                continue;
            };
            let mut selector = Selector::everything();
            selector.require_labels(labels);
            if selector.matches(pod.labels()) {
                merged.extend(labels.clone());
            }
        }
        let mut selector = Selector::everything();
        selector.require_labels(&merged);
        selector
    }

    fn controller_selector(&self, pod: &PodInfo) -> Option<Selector> {
        let owners = pod.pod.metadata.owner_references.iter().flatten();
        let owner = owners
            .into_iter()
            .find(|owner| owner.controller == Some(true))?;
        let namespace = pod.namespace();
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => {
                let owner = self.replication_controllers.get(namespace, &owner.name)?;
                let mut selector = Selector::everything();
                selector.require_labels(owner.spec.as_ref()?.selector.as_ref()?);
                Some(selector)
            }
            ("apps/v1", "ReplicaSet") => {
                let owner = self.replica_sets.get(namespace, &owner.name)?;
                let selector = &owner.spec.as_ref()?.selector;
                Some(Selector::from_label_selector(Some(selector)))
            }
            ("apps/v1", "StatefulSet") => {
                let owner = self.stateful_sets.get(namespace, &owner.name)?;
                let selector = &owner.spec.as_ref()?.selector;
                Some(Selector::from_label_selector(Some(selector)))
            }
            _ => None,
        }
    }
}

impl Surroundings for Informed {
    fn namespace_labels(&self, namespace: &str) -> Option<Labels> {
        self.namespaces.get("", namespace)?.metadata.labels.clone()
    }

    fn namespaces_matching(&self, selector: &Selector) -> Vec<String> {
        let namespaces = self.namespaces.list();
        namespaces
            .iter()
            .filter(|namespace| selector.matches(namespace.metadata.labels.as_ref()))
            .filter_map(|namespace| namespace.metadata.name.clone())
            .collect()
    }

    fn default_selector(&self, pod: &PodInfo) -> Option<Selector> {
        let mut selector = self.services_selector(pod);
        if let Some(controller) = self.controller_selector(pod) {
            selector.and(controller);
        }
        (!selector.is_everything()).then_some(selector)
    }

    fn disruption_budgets(&self) -> Vec<Arc<PodDisruptionBudget>> {
        self.budgets.list()
    }

    fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    fn devices(&self) -> &dyn Devices {
        &*self.devices
    }
}
