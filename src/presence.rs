//! What the API server says of itself to the cluster, and puts right when somebody changes it: the
//! `kubernetes` Service with the servers behind it, the Lease that says this one lives, what
//! extension API servers need to know their callers, the APIServices of what it serves itself, and
//! the namespaces that there always are.
//!
//! Enter at [`Presence::ensure`] before the first request is served, then at [`Presence::run`].

mod lease;
mod service;
mod trust;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use coracle_api::Kind;
use coracle_client::{Change, Informers};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Endpoints, Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Client, Resource};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use lease::Lease;
pub use trust::Trust;

use crate::{api_services, bootstrap};

/// Between renewals of the Lease, as upstream.
const RENEWAL: Duration = Duration::from_secs(10);

/// What one API server says of itself.
#[derive(Clone)]
pub struct Presence {
    pub client: Client,
    /// The address of the `kubernetes` Service: the first of the service range.
    pub service: IpAddr,
    pub lease: Lease,
    pub trust: Trust,
    pub served: Vec<Arc<Kind>>,
}

impl Presence {
    /// Puts everything in place.
    ///
    /// # Errors
    /// The API's.
    pub async fn ensure(&self) -> anyhow::Result<()> {
        self.lease.renew(&self.client).await?;
        self.repair(&self.lease.servers(&self.client).await?).await
    }

    /// Keeps everything in place until the shutdown.
    ///
    /// # Errors
    /// The API's.
    pub async fn run(
        self,
        informers: Informers,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let all = async {
            api_services::register(&self.client, &self.served).await?;
            self.keep(&informers).await
        };
        tokio::select! {
            ended = all => ended,
            () = shutdown.cancelled() => Ok(()),
        }
    }

    async fn keep(&self, informers: &Informers) -> anyhow::Result<()> {
        let mut namespaces = informers.get::<Namespace>().subscribe();
        let mut services = informers.get::<Service>().subscribe();
        let mut endpoints = informers.get::<Endpoints>().subscribe();
        let mut slices = informers.get::<EndpointSlice>().subscribe();
        let mut trust = informers
            .matching::<ConfigMap>(&trust::field_selector())
            .subscribe();
        let mut renewal = tokio::time::interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = BTreeSet::new();
        loop {
            let concerns_us = tokio::select! {
                _ = renewal.tick() => {
                    self.lease.renew(&self.client).await?;
                    let servers = self.lease.servers(&self.client).await?;
                    let differ = servers != known;
                    known = servers;
                    differ
                }
                change = namespaces.next() => matches!(ended(change)?, Change::Deleted(_)),
                change = services.next() => is_of(&ended(change)?, service::NAME),
                change = endpoints.next() => is_of(&ended(change)?, service::NAME),
                change = slices.next() => is_of(&ended(change)?, service::NAME),
                change = trust.next() => is_of(&ended(change)?, trust::NAME),
            };
            if concerns_us {
                self.repair(&known).await?;
            }
        }
    }

    /// Makes everything as it has to be where `servers` live.
    async fn repair(&self, servers: &BTreeSet<SocketAddr>) -> anyhow::Result<()> {
        bootstrap::namespaces(&self.client).await?;
        service::ensure(&self.client, self.service, servers).await?;
        self.trust.ensure(&self.client).await
    }
}

fn ended<K>(change: Option<Change<K>>) -> anyhow::Result<Change<K>> {
    change.context("the caches have ended")
}

/// Whether the change is, or may be, one of an object of that name. Ours have names of their own.
fn is_of<K: Resource>(change: &Change<K>, name: &str) -> bool {
    match change {
        Change::Applied { new: object, .. } | Change::Deleted(object) => {
            object.meta().name.as_deref() == Some(name)
        }
        Change::Lagged => true,
    }
}
