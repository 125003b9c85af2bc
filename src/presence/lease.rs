//! The Lease by which an API server says that it lives and where it is reached, under upstream's
//! name, labels and annotation (KEP-1965). By these Leases servers that share a store know each
//! other.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::Context as _;
use coracle_client::ensure;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::coordination::v1, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Preconditions},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const NAMESPACE: &str = "kube-system";
const OF_API_SERVERS: &str = "apiserver.kubernetes.io/identity=kube-apiserver";
const ADDRESS: &str = "kubernetes.io/peer-advertise-address";
/// For so long the Lease of a server that is gone stays, in seconds; upstream's figure.
const DURATION_SECONDS: i32 = 3600;
/// For so long a server that does not renew its Lease counts as living: three renewals.
const LIVES: SignedDuration = SignedDuration::from_secs(30);

/// One API server's Lease.
#[derive(Clone, Debug)]
pub struct Lease {
    name: String,
    holder: String,
    host: String,
    address: SocketAddr,
}

impl Lease {
    /// The Lease of the server on that host with that address.
    pub fn new(host: &str, address: SocketAddr) -> Self {
        let name = name(host, address);
        Lease {
            holder: format!("{name}_{}", uuid::Uuid::new_v4()),
            name,
            host: host.to_owned(),
            address,
        }
    }

    /// Says that this server lives.
    pub async fn renew(&self, client: &Client) -> anyhow::Result<()> {
        let lease: v1::Lease = serde_json::from_value(json!({
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "labels": {
                    "apiserver.kubernetes.io/identity": "kube-apiserver",
                    "kubernetes.io/hostname": self.host,
                },
                "annotations": {ADDRESS: self.address},
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": DURATION_SECONDS,
                "renewTime": MicroTime(Timestamp::now()),
            },
        }))?;
        ensure(client, NAMESPACE, &lease)
            .await
            .context("cannot renew the API server's Lease")
    }

    /// Where the servers are reached that live: this one and those whose Leases are fresh. Leases
    /// that have expired are removed.
    pub async fn servers(&self, client: &Client) -> anyhow::Result<BTreeSet<SocketAddr>> {
        let api: Api<v1::Lease> = Api::namespaced(client.clone(), NAMESPACE);
        let leases = api
            .list(&ListParams::default().labels(OF_API_SERVERS))
            .await
            .context("cannot list the Leases of API servers")?;
        let now = Timestamp::now();
        let mut servers = BTreeSet::from([self.address]);
        for lease in leases {
            if is_expired(&lease, now) {
                remove(&api, &lease).await?;
            } else if renewed_within(&lease, now, LIVES) {
                servers.extend(advertised(&lease));
            }
        }
        Ok(servers)
    }
}

async fn remove(api: &Api<v1::Lease>, lease: &v1::Lease) -> anyhow::Result<()> {
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: lease.uid(),
        resource_version: lease.resource_version(),
    });
    match api.delete(&lease.name_any(), &params).await {
        // Another server was faster, or the lease was renewed.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other
            .map(|_| ())
            .context("cannot remove an API server's expired Lease"),
    }
}

/// As upstream's name, which is made of the host's name alone; several of our servers may be on
/// one host.
fn name(host: &str, address: SocketAddr) -> String {
    let digest = Sha256::digest(format!("{host}/{address}"));
    let digest: String = digest[..13]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("apiserver-{digest}")
}

fn advertised(lease: &v1::Lease) -> Option<SocketAddr> {
    lease.annotations().get(ADDRESS)?.parse().ok()
}

fn renewed_within(lease: &v1::Lease, now: Timestamp, duration: SignedDuration) -> bool {
    let renewed = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.renew_time.as_ref());
    renewed.is_some_and(|renewed| now.duration_since(renewed.0) <= duration)
}

/// Whether it can be removed. One without time or duration is none that a server wrote.
fn is_expired(lease: &v1::Lease, now: Timestamp) -> bool {
    let seconds = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds);
    seconds.is_none_or(|seconds| {
        !renewed_within(lease, now, SignedDuration::from_secs(seconds.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(renewed: &str) -> v1::Lease {
        serde_json::from_value(json!({
            "metadata": {"annotations": {ADDRESS: "192.0.2.7:6443"}},
            "spec": {"leaseDurationSeconds": 3600, "renewTime": renewed},
        }))
        .unwrap()
    }

    #[test]
    fn a_server_that_does_not_renew_is_left_out_and_later_forgotten() {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        for (renewed, lives, expired) in [
            ("2026-01-01T11:59:50.000000Z", true, false),
            ("2026-01-01T11:59:00.000000Z", false, false),
            ("2026-01-01T10:59:00.000000Z", false, true),
        ] {
            let lease = lease(renewed);
            assert_eq!(renewed_within(&lease, now, LIVES), lives, "{renewed}");
            assert_eq!(is_expired(&lease, now), expired, "{renewed}");
        }
        assert!(is_expired(&v1::Lease::default(), now));
    }

    #[test]
    fn the_address_is_read_back() {
        let found = advertised(&lease("2026-01-01T12:00:00.000000Z"));
        assert_eq!(found, Some("192.0.2.7:6443".parse().unwrap()));
    }

    #[test]
    fn servers_on_one_host_have_leases_of_their_own() {
        let one = name("host", "192.0.2.1:6443".parse().unwrap());
        assert_eq!(one.len(), "apiserver-".len() + 26);
        assert_ne!(one, name("host", "192.0.2.1:6444".parse().unwrap()));
    }
}
