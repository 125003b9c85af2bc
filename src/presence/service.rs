//! The `kubernetes` Service and the API servers behind it. Upstream's API servers keep these
//! themselves; no controller touches them.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    net::{IpAddr, SocketAddr},
};

use anyhow::Context as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Endpoints, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{Client, Resource};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::host::names_a_host;

pub const NAME: &str = "kubernetes";

/// Puts Service, Endpoints and EndpointSlice in place. `service` is the Service's address.
pub async fn ensure(
    client: &Client,
    service: IpAddr,
    servers: &BTreeSet<SocketAddr>,
) -> anyhow::Result<()> {
    let Some(Objects { service, reached }) = objects(service, servers)? else {
        return Ok(());
    };
    put(client, &service).await?;
    if let Some((endpoints, slice)) = reached {
        put(client, &endpoints).await?;
        put(client, &slice).await?;
    }
    Ok(())
}

struct Objects {
    service: Service,
    /// `None` while no server is at an address by which others reach it, for an Endpoints object
    /// may have no loopback address.
    reached: Option<(Endpoints, EndpointSlice)>,
}

/// `None` while no server of the Service's family lives.
///
/// One EndpointSlice has the addresses of one family and one port. Servers that listen on another
/// port than the first are left out; every server finds the same ones.
fn objects(service: IpAddr, servers: &BTreeSet<SocketAddr>) -> serde_json::Result<Option<Objects>> {
    let is_of_family = |server: &&SocketAddr| server.is_ipv4() == service.is_ipv4();
    let is_reached = |server: &&SocketAddr| names_a_host(&server.ip());
    let servers = servers.iter().filter(is_of_family);
    let reached = servers.clone().filter(is_reached);
    let first = reached.clone().chain(servers).next();
    let Some(port) = first.map(SocketAddr::port) else {
        return Ok(None);
    };
    let ips: Vec<IpAddr> = reached
        .filter(|server| server.port() == port)
        .map(SocketAddr::ip)
        .collect();
    let kubernetes = serde_json::from_value(json!({
        "metadata": {"name": NAME, "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service,
            "clusterIPs": [service],
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    }))?;
    if ips.is_empty() {
        return Ok(Some(Objects {
            service: kubernetes,
            reached: None,
        }));
    }
    let addresses: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let endpoints = serde_json::from_value(json!({
        "metadata": {"name": NAME, "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": addresses,
            "ports": [{"name": "https", "protocol": "TCP", "port": port}],
        }],
    }))?;
    let ready = |ip: &IpAddr| json!({"addresses": [ip], "conditions": {"ready": true}});
    let slice = serde_json::from_value(json!({
        "metadata": {"name": NAME, "namespace": "default",
            "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": if service.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": ips.iter().map(ready).collect::<Vec<_>>(),
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    }))?;
    Ok(Some(Objects {
        service: kubernetes,
        reached: Some((endpoints, slice)),
    }))
}

async fn put<K>(client: &Client, object: &K) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    coracle_client::ensure(client, "default", object)
        .await
        .with_context(|| format!("cannot put the {} kubernetes in place", K::kind(&())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_of_the_family_and_port_stands_behind_the_service() {
        let servers = [
            "127.0.0.1:5443",
            "192.0.2.2:6443",
            "192.0.2.1:6443",
            "192.0.2.3:7443",
            "[2001:db8::1]:6443",
        ];
        let servers = servers.iter().map(|server| server.parse().unwrap());
        let service = "10.43.0.1".parse().unwrap();
        let made = objects(service, &servers.collect()).unwrap();
        let reached = made.expect("objects").reached;
        let (endpoints, slice) = reached.expect("endpoints");
        let subset = &endpoints.subsets.unwrap()[0];
        let ips = subset.addresses.iter().flatten().map(|a| a.ip.as_str());
        assert_eq!(ips.collect::<Vec<_>>(), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(slice.endpoints.unwrap().len(), 2);
    }

    #[test]
    fn a_server_that_only_its_own_host_reaches_has_a_service_without_endpoints() {
        let servers = BTreeSet::from(["127.0.0.1:6443".parse().unwrap()]);
        let made = objects("10.43.0.1".parse().unwrap(), &servers).unwrap();
        let made = made.expect("objects");
        assert_eq!(made.service.spec.unwrap().ports.unwrap()[0].port, 443);
        assert!(made.reached.is_none());
    }
}
