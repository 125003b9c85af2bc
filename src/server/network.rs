//! What the host says of its own name and addresses.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, bail};
use ipnet::IpNet;

/// The host's name, in the form that a node may have.
pub fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host's name")?;
    let name = name.to_string_lossy().to_lowercase().replace('_', "-");
    if name.is_empty() {
        bail!("the host has no name: choose one with --node-name");
    }
    Ok(name)
}

/// The address from which this host would speak to others: that of the default route.
pub fn default_address() -> anyhow::Result<IpAddr> {
    // Connecting a datagram socket sends nothing; it only looks up the route.
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
    socket
        .connect("192.0.2.1:9")
        .context("the host has no default route: name the node's address with --node-ip")?;
    let address = socket
        .local_addr()
        .context("cannot read the socket's address")?
        .ip();
    if address.is_unspecified() || address.is_loopback() {
        bail!("the host has no address: name the node's address with --node-ip");
    }
    Ok(address)
}

/// The first address of a range, which is the `kubernetes` Service's.
pub fn first_address(range: &IpNet) -> anyhow::Result<IpAddr> {
    range
        .hosts()
        .next()
        .with_context(|| format!("{range} has no addresses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_service_has_the_first_address() {
        let range = "10.43.0.0/16".parse().unwrap();
        assert_eq!(first_address(&range).unwrap().to_string(), "10.43.0.1");
    }
}
