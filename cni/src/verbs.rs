//! What each verb of the specification does, in the order in which it is done.

use std::net::IpAddr;

use serde_json::json;

use crate::{
    addresses::{Addresses, Attachment, Entry},
    config::Config,
    error::Error,
    host::{Netns, set_sysctl},
    invocation::{Network, PortMapping, Request, SUPPORTED_VERSIONS, Verb},
    links::{Bridge, Link, Links},
    loopback,
    plan::{self, Cable},
    report::{Macs, Report},
    rules,
};

/// Carries out the request; the text is what standard output is to be.
pub fn run(request: &Request) -> Result<String, Error> {
    let act = async {
        match &request.network {
            Network::Loopback => loopback::run(request).await,
            Network::None => Ok(versions(&request.version)),
            Network::Pods(config) => match request.verb {
                Verb::Add => add(request, config).await,
                Verb::Del => del(request, config).await,
                Verb::Check => check(request, config).await,
                Verb::Gc => gc(request, config).await,
                Verb::Status => status(config),
                Verb::Version => Ok(versions(&request.version)),
            },
        }
    };
    runtime()?.block_on(act)
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("start", error))
}

fn versions(version: &str) -> String {
    json!({ "cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS }).to_string()
}

async fn add(request: &Request, config: &Config) -> Result<String, Error> {
    let netns = Netns::open(&request.netns)?;
    let (host, inside) = (Links::open()?, Links::open_in(&netns)?);
    if inside.get(&request.ifname).await?.is_some() {
        return Err(Error::InterfaceExists {
            ifname: request.ifname.clone(),
        });
    }
    let addresses = Addresses::open(config)?;
    let bridge = prepare_host(config, &host, &request.port_mappings).await?;
    rules::ensure(config, &addresses)?;

    let reserved = addresses.reserve(&Attachment {
        key: request.key(),
        netns: request.netns.clone(),
        port_mappings: request.port_mappings.clone(),
    })?;
    let cable = Cable::new(
        config,
        &request.key(),
        &reserved,
        config.mtu.unwrap_or(bridge.mtu),
    );
    let connected = async {
        let macs = connect(&cable, &bridge, &host, &inside, &netns).await?;
        open_ports(config, &addresses, &host, &request.port_mappings).await?;
        Ok(macs)
    };
    match connected.await {
        Ok(macs) => {
            let sandbox = request.netns.display().to_string();
            let report = Report::new(&request.version, &config.bridge, &cable, &macs, &sandbox);
            Ok(report.text())
        }
        Err(error) => {
            let undone = undo(config, &addresses, &host, &cable, &reserved, request).await;
            let mut errors = vec![error];
            errors.extend(undone);
            Error::all(errors).map(|()| String::new())
        }
    }
}

/// What all pods of the node share: made by the first of them, looked at by all others.
async fn prepare_host(config: &Config, host: &Links, ports: &[PortMapping]) -> Result<Link, Error> {
    let bridge = host
        .ensure_bridge(&Bridge {
            name: config.bridge.clone(),
            mac: config
                .gateways()
                .find_map(|gateway| plan::mac(gateway.addr())),
            mtu: config.mtu,
            gateways: config.gateways().collect(),
        })
        .await?;
    for subnet in &config.subnets {
        match subnet.addr() {
            IpAddr::V4(_) => set_sysctl("net/ipv4/ip_forward", "1")?,
            IpAddr::V6(_) => set_sysctl("net/ipv6/conf/all/forwarding", "1")?,
        }
    }
    if rules::needs_loopback_routing(ports) {
        let name = format!("net/ipv4/conf/{}/route_localnet", config.bridge);
        set_sysctl(&name, "1")?;
    }
    Ok(bridge)
}

async fn connect(
    cable: &Cable,
    bridge: &Link,
    host: &Links,
    inside: &Links,
    netns: &Netns,
) -> Result<Macs, Error> {
    let host_end = host.add_cable(cable, bridge, netns).await?;
    host.allow_hairpin(&host_end).await?;
    if cable.addresses.iter().any(|of| of.address.is_ipv6()) {
        let conf = format!("net/ipv6/conf/{}", cable.pod_end);
        netns.within(|| {
            set_sysctl(&format!("{conf}/disable_ipv6"), "0")?;
            set_sysctl(&format!("{conf}/accept_dad"), "0")
        })?;
    }
    inside.set_up("lo").await?;
    inside.set_up(&cable.pod_end).await?;
    let pod_end = inside.ready(&cable.pod_end).await?;
    host.ready(&cable.host_end).await?;
    host.ready(&bridge.name).await?;
    for of in &cable.addresses {
        inside.configure(&pod_end, of).await?;
    }
    Ok(Macs {
        bridge: bridge.mac.clone(),
        host_end: host_end.mac,
        pod_end: pod_end.mac,
    })
}

async fn open_ports(
    config: &Config,
    addresses: &Addresses,
    host: &Links,
    ports: &[PortMapping],
) -> Result<(), Error> {
    if ports.is_empty() {
        return Ok(());
    }
    rules::update(config, addresses)?;
    forget_flows(host, ports).await
}

async fn forget_flows(host: &Links, ports: &[PortMapping]) -> Result<(), Error> {
    let local: Vec<IpAddr> = host
        .addresses(None)
        .await?
        .iter()
        .map(ipnet::IpNet::addr)
        .collect();
    rules::forget_flows(ports, &local)
}

/// Takes back what a failed `ADD` has done; returns what could not be.
async fn undo(
    config: &Config,
    addresses: &Addresses,
    host: &Links,
    cable: &Cable,
    reserved: &[IpAddr],
    request: &Request,
) -> Vec<Error> {
    let mut errors: Vec<Error> = Vec::new();
    errors.extend(host.delete(&cable.host_end).await.err());
    errors.extend(addresses.give_back(reserved).err());
    if !request.port_mappings.is_empty() {
        errors.extend(rules::update(config, addresses).err());
    }
    errors
}

async fn del(request: &Request, config: &Config) -> Result<String, Error> {
    let key = request.key();
    let host = Links::open()?;
    let mut errors = Vec::new();
    errors.extend(host.delete(&plan::host_end(&key)).await.err());
    errors.extend(release(config, &host, |of| of.key == key).await.err());
    Error::all(errors).map(|()| String::new())
}

/// Frees the addresses and host ports of the attachments that are chosen.
async fn release(
    config: &Config,
    host: &Links,
    chosen: impl Fn(&Attachment) -> bool,
) -> Result<Vec<Entry>, Error> {
    let addresses = Addresses::open(config)?;
    let released = addresses.release(chosen)?;
    let ports: Vec<PortMapping> = released
        .iter()
        .flat_map(|entry| entry.attachment.port_mappings.iter().cloned())
        .collect();
    if !ports.is_empty() {
        rules::update(config, &addresses)?;
        forget_flows(host, &ports).await?;
    }
    Ok(released)
}

async fn gc(request: &Request, config: &Config) -> Result<String, Error> {
    let host = Links::open()?;
    let stale = |of: &Attachment| !request.valid_attachments.contains(&of.key);
    let mut errors = Vec::new();
    for entry in release(config, &host, stale).await? {
        let link = plan::host_end(&entry.attachment.key);
        errors.extend(host.delete(&link).await.err());
    }
    Error::all(errors).map(|()| String::new())
}

async fn check(request: &Request, config: &Config) -> Result<String, Error> {
    let wrong = |what: String| Err(Error::Check(what));
    let previous = Report::previous(request.previous.as_ref())?;
    let netns = Netns::open(&request.netns)?;
    let (host, inside) = (Links::open()?, Links::open_in(&netns)?);
    let Some(bridge) = host.get(&config.bridge).await? else {
        return wrong(format!("bridge {} is missing", config.bridge));
    };
    let host_end = plan::host_end(&request.key());
    match host.get(&host_end).await? {
        Some(link) if link.is_up && link.controller == Some(bridge.index) => {}
        Some(_) => return wrong(format!("link {host_end} is no port of {}", config.bridge)),
        None => return wrong(format!("link {host_end} is missing")),
    }
    let link = match inside.get(&request.ifname).await? {
        Some(link) if link.is_up => link,
        _ => return wrong(format!("{} is missing or down", request.ifname)),
    };
    let present = inside.addresses(Some(link.index)).await?;
    let own = |ip: &&crate::report::Ip| {
        let index = ip.interface.unwrap_or(u32::MAX) as usize;
        let interface = previous.interfaces.get(index);
        interface.is_some_and(|of| of.name == request.ifname)
    };
    for ip in previous.ips.iter().filter(own) {
        if !present.contains(&ip.address) {
            return wrong(format!("{} has no address {}", request.ifname, ip.address));
        }
    }
    Ok(String::new())
}

fn status(config: &Config) -> Result<String, Error> {
    let addresses = Addresses::open(config)?;
    rules::ensure(config, &addresses)?;
    Ok(String::new())
}

/// Undoes all that the plugin ever did to this host: cables, bridge, rules and state. Returns
/// what could not be undone.
pub fn cleanup(config: &Config) -> Vec<String> {
    let act = || match runtime() {
        Ok(runtime) => runtime.block_on(clean(config)),
        Err(error) => vec![error],
    };
    // The caller may be on a runtime of its own, in which no other can be waited for.
    let errors = std::thread::scope(|scope| match scope.spawn(act).join() {
        Ok(errors) => errors,
        Err(panic) => std::panic::resume_unwind(panic),
    });
    errors.iter().map(ToString::to_string).collect()
}

async fn clean(config: &Config) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.extend(remove_links(config).await);
    errors.extend(rules::remove(config).err());
    let state = config.state();
    match std::fs::remove_dir_all(&state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            errors.push(Error::io(format!("remove {}", state.display()), error));
        }
        _ => {}
    }
    errors
}

async fn remove_links(config: &Config) -> Vec<Error> {
    let listed = async {
        let host = Links::open()?;
        let bridge = host.get(&config.bridge).await?;
        let links = host.list().await?;
        Ok((host, bridge, links))
    };
    let (host, bridge, links) = match listed.await {
        Ok((host, Some(bridge), links)) => (host, bridge, links),
        Ok((_, None, _)) => return Vec::new(),
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    for link in links {
        if link.controller == Some(bridge.index) {
            errors.extend(host.delete(&link.name).await.err());
        }
    }
    errors.extend(host.delete(&bridge.name).await.err());
    errors
}
