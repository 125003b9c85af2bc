//! What must be there for Services, put back where it is missing: the range of the cluster, and
//! what says which addresses and ports were given to Services that some other program stored.

use coracle_store::{Compare, Error, Transaction, Write};
use k8s_openapi::{
    api::networking::v1::{ServiceCIDR, ServiceCIDRSpec, ServiceCIDRStatus},
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};

use super::{Delta, Services, addresses_of};
use crate::{error::ApiError, strategy};

/// Upstream's name of the range that the cluster is configured with.
const DEFAULT_RANGE: &str = "kubernetes";

impl Services {
    /// Puts back what is missing. Called when the server starts.
    pub async fn repair(&self) -> Result<(), ApiError> {
        self.registry.fresh().await?;
        if self.ranges.get("", DEFAULT_RANGE).is_none() {
            self.create_default_range().await?;
        }
        for service in self.services.list("") {
            let Some(spec) = &service.spec else {
                continue;
            };
            let mut delta = Delta {
                addresses: addresses_of(spec),
                ..Delta::default()
            };
            let missing =
                |address: &std::net::IpAddr| self.addresses.get("", &address.to_string()).is_none();
            delta.addresses.retain(missing);
            let companions = self.companions(&service, &delta, None);
            for (compare, write) in companions.compares.into_iter().zip(companions.writes) {
                self.put_back(compare, write).await?;
            }
        }
        self.repair_ports().await
    }

    /// Makes the taken ports those that Services have.
    async fn repair_ports(&self) -> Result<(), ApiError> {
        let range = self.read_port_range().await?;
        match range.replace(&self.ports_in_use()) {
            Some((compare, write)) => self.put_back(compare, write).await,
            None => Ok(()),
        }
    }

    /// Writes unless it is there already.
    async fn put_back(&self, compare: Compare, write: Write) -> Result<(), ApiError> {
        let transaction = Transaction {
            compares: vec![compare],
            writes: vec![write],
            ..Transaction::default()
        };
        match self.registry.store().commit(transaction).await {
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn create_default_range(&self) -> Result<(), ApiError> {
        let resource = self
            .registry
            .find("networking.k8s.io", "v1", "servicecidrs")
            .ok_or_else(ApiError::unknown_resource)?;
        let mut object = ServiceCIDR {
            metadata: ObjectMeta {
                name: Some(DEFAULT_RANGE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceCIDRSpec {
                cidrs: Some(vec![self.config.service_cidr.trunc().to_string()]),
            }),
            status: None,
        };
        strategy::prepare_for_create(&resource.kind, &mut object, false);
        object.status = Some(ServiceCIDRStatus {
            conditions: Some(vec![Condition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                message: "Kubernetes default Service CIDR is ready".to_owned(),
                reason: String::new(),
                observed_generation: None,
                last_transition_time: strategy::now(),
            }]),
        });
        let Some(cache) = &resource.cache else {
            return Ok(());
        };
        let key: std::sync::Arc<str> = cache.key("", DEFAULT_RANGE).into();
        let value = strategy::to_bytes(&resource, &object);
        let compare = Compare::Absent(key.clone());
        self.put_back(compare, Write::Put { key, value }).await
    }
}
