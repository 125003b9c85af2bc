//! Links, addresses and routes of one network namespace, over rtnetlink.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, State},
        route::RouteScope,
    },
    sys::{AsyncSocket as _, TokioSocket, protocols::NETLINK_ROUTE},
};

use crate::{
    error::Error,
    host::{Netns, default_link, set_sysctl},
    plan::{Cable, Mac, PodAddress},
};

/// For a link that was set up to carry packets.
const CARRIER: Duration = Duration::from_secs(2);

/// A link as the kernel describes it.
#[derive(Clone, Debug, Default)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub is_up: bool,
    /// Whether it carries packets already.
    pub is_ready: bool,
    /// The index of the bridge that it is a port of.
    pub controller: Option<u32>,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            is_up: message.header.flags.contains(LinkFlags::Up),
            ..Link::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => {
                    link.is_ready = matches!(state, State::Up | State::Unknown);
                }
                LinkAttribute::Controller(index) => link.controller = Some(index),
                _ => {}
            }
        }
        link
    }
}

/// The bridge as it is to be.
#[derive(Clone, Debug)]
pub struct Bridge {
    pub name: String,
    /// Given at its making; a bridge without one takes on that of a port, and changes with it.
    pub mac: Option<Mac>,
    /// That of the default route's link when `None`.
    pub mtu: Option<u32>,
    pub gateways: Vec<IpNet>,
}

/// The links of one network namespace.
pub struct Links(Handle);

impl Links {
    /// Of the calling thread's namespace. Needs a runtime, as every method does.
    pub fn open() -> Result<Self, Error> {
        let socket = TokioSocket::new(NETLINK_ROUTE)
            .map_err(|error| Error::io("open a netlink socket", error))?;
        let (connection, handle, _) = rtnetlink::from_socket(socket);
        tokio::spawn(connection);
        Ok(Links(handle))
    }

    /// Of a container's namespace: a socket stays in the namespace in which it was made.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::current();
        netns.within(|| {
            let _entered = runtime.enter();
            Links::open()
        })
    }

    pub async fn get(&self, name: &str) -> Result<Option<Link>, Error> {
        let request = self.0.link().get().match_name(name).execute();
        match std::pin::pin!(request).try_next().await {
            Ok(message) => Ok(message.map(Link::from)),
            Err(error) if is(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(Error::link(format!("look at link {name}"))(error)),
        }
    }

    /// Returns once the link carries packets. A link that is set up does so a little later, when
    /// the kernel's own worker has seen its carrier: newer kernels catch up when they are asked,
    /// older ones within milliseconds.
    pub async fn ready(&self, name: &str) -> Result<Link, Error> {
        let deadline = Instant::now() + CARRIER;
        loop {
            let link = self.expect(name).await?;
            if link.is_ready {
                return Ok(link);
            }
            if Instant::now() > deadline {
                return Err(Error::Check(format!("link {name} has no carrier")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn expect(&self, name: &str) -> Result<Link, Error> {
        self.get(name)
            .await?
            .ok_or_else(|| Error::Check(format!("link {name} is missing")))
    }

    /// The MTU of the link that the default route goes through; `None` without such a route.
    async fn default_mtu(&self) -> Result<Option<u32>, Error> {
        match default_link() {
            Some(name) => Ok(self.get(&name).await?.map(|link| link.mtu)),
            None => Ok(None),
        }
    }

    pub async fn list(&self) -> Result<Vec<Link>, Error> {
        let messages = self.0.link().get().execute();
        messages
            .map_ok(Link::from)
            .try_collect()
            .await
            .map_err(Error::link("list the links"))
    }

    /// Every address of the namespace, or of one link.
    pub async fn addresses(&self, link: Option<u32>) -> Result<Vec<IpNet>, Error> {
        let mut request = self.0.address().get();
        if let Some(index) = link {
            request = request.set_link_index_filter(index);
        }
        let mut messages = std::pin::pin!(request.execute());
        let mut addresses = Vec::new();
        while let Some(message) = messages.next().await {
            addresses.extend(address(
                &message.map_err(Error::link("list the addresses"))?,
            ));
        }
        Ok(addresses)
    }

    pub async fn set_up(&self, name: &str) -> Result<(), Error> {
        self.set(LinkUnspec::new_with_name(name).up().build(), name)
            .await
    }

    async fn set(&self, message: LinkMessage, name: &str) -> Result<(), Error> {
        let request = self.0.link().set(message).execute();
        request
            .await
            .map_err(Error::link(format!("set up link {name}")))
    }

    /// That there is no such link is no error.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(name).build();
        match self.0.link().del_with_message(message).execute().await {
            Err(error) if !is(&error, libc::ENODEV) => {
                Err(Error::link(format!("delete link {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the bridge, or completes it where an earlier attempt was interrupted.
    pub async fn ensure_bridge(&self, bridge: &Bridge) -> Result<Link, Error> {
        let name = &bridge.name;
        let mut found = self.get(name).await?;
        if found.is_none() {
            let mut message = LinkMessageBuilder::<LinkBridge>::new(name);
            if let Some(mac) = bridge.mac {
                message = message.address(mac.to_vec());
            }
            let mtu = match bridge.mtu {
                None => self.default_mtu().await?,
                mtu => mtu,
            };
            if let Some(mtu) = mtu {
                message = message.mtu(mtu);
            }
            let made = self.0.link().add(message.build()).execute().await;
            allow(made, libc::EEXIST).map_err(Error::link(format!("make bridge {name}")))?;
            found = Some(self.expect(name).await?);
        }
        let link = found.unwrap_or_default();
        if !link.is_up {
            if bridge.gateways.iter().any(|of| of.addr().is_ipv6()) {
                // Until its link-local address has passed, a bridge cannot ask for its neighbours.
                set_sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
            }
            self.set_up(name).await?;
        }
        for gateway in &bridge.gateways {
            self.add_address(&link, *gateway).await?;
        }
        Ok(link)
    }

    /// Makes the cable from the bridge into the container's namespace; its ends are up when the
    /// container's is set up too.
    pub async fn add_cable(
        &self,
        cable: &Cable,
        bridge: &Link,
        netns: &Netns,
    ) -> Result<Link, Error> {
        use std::os::fd::AsRawFd as _;
        let name = &cable.host_end;
        let mut pod_end = LinkMessageBuilder::<LinkUnspec>::new()
            .name(cable.pod_end.clone())
            .mtu(cable.mtu)
            .setns_by_fd(netns.0.as_raw_fd());
        if let Some(mac) = cable.pod_mac {
            pod_end = pod_end.address(mac.to_vec());
        }
        let message = LinkVeth::new(name, &cable.pod_end)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(pod_end.build())))
            .mtu(cable.mtu)
            .controller(bridge.index)
            .up()
            .build();
        let made = self.0.link().add(message).execute().await;
        made.map_err(Error::link(format!("make link {name}")))?;
        self.expect(name).await
    }

    /// Lets the port send back what came from it. With `br_netfilter`, a packet whose destination
    /// is translated to a pod is switched to that pod's port, be it the one it came from.
    pub async fn allow_hairpin(&self, port: &Link) -> Result<(), Error> {
        let message = LinkBridgePort::new(port.index).hairpin(true).build();
        let request = self.0.link().set_port(message).execute();
        request.await.map_err(Error::link(format!(
            "set the port mode of link {}",
            port.name
        )))
    }

    /// In the container's namespace: the address stands alone, and everything is sent to the
    /// gateway.
    pub async fn configure(&self, link: &Link, of: &PodAddress) -> Result<(), Error> {
        self.add_address(link, of.address.into()).await?;
        let failed = || format!("add the routes to {}", of.gateway);
        let route = |message| self.0.route().add(message).execute();
        let (gateway, everything) = match of.gateway {
            IpAddr::V4(gateway) => {
                let route = || RouteMessageBuilder::<Ipv4Addr>::new().output_interface(link.index);
                let direct = route()
                    .destination_prefix(gateway, 32)
                    .scope(RouteScope::Link);
                (direct.build(), route().gateway(gateway).build())
            }
            IpAddr::V6(gateway) => {
                let route = || RouteMessageBuilder::<Ipv6Addr>::new().output_interface(link.index);
                let direct = route().destination_prefix(gateway, 128);
                (direct.build(), route().gateway(gateway).build())
            }
        };
        route(gateway).await.map_err(Error::link(failed()))?;
        route(everything).await.map_err(Error::link(failed()))
    }

    async fn add_address(&self, link: &Link, address: IpNet) -> Result<(), Error> {
        let mut request = self
            .0
            .address()
            .add(link.index, address.addr(), address.prefix_len());
        // No other host can have it, so there is nothing to wait for.
        if let IpNet::V6(_) = address {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        allow(request.execute().await, libc::EEXIST)
            .map_err(Error::link(format!("add {address} to {}", link.name)))
    }
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // The local address, where it differs from the peer's.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

fn allow(result: Result<(), rtnetlink::Error>, errno: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is(&error, errno) => Ok(()),
        other => other,
    }
}
