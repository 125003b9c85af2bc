//! What the kernel is to hold, as data: elements of sets and maps, and the few chains that they
//! lead to.
//!
//! A new connection to a [`Frontend`] is looked up in one verdict map, whatever the number of
//! Services, and goes to the chain of a [`Dispatch`]. That chain depends only on how the Service
//! treats traffic and on its number of endpoints, so all alike Services share it. The endpoint is
//! then a second look-up, by the frontend and a random slot number.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Its place where each family has one.
    pub fn index(self) -> usize {
        match self {
            Family::V4 => 0,
            Family::V6 => 1,
        }
    }

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "4",
            Family::V6 => "6",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As the API names it; `None` is TCP.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// Where clients reach a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub family: Family,
    /// `None` is every address of the node: a node port.
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
}

/// A numbered list of endpoints to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List {
    pub frontend: Frontend,
    /// A frontend has a second list when traffic from outside the cluster may only go to this
    /// node's endpoints.
    pub local: bool,
}

/// An element of a set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An endpoint of a list.
    Endpoint(List, u32),
    /// Where a frontend's traffic is dispatched.
    Service(Frontend),
    /// What is done with traffic that no endpoint may take.
    Refused(Frontend),
    /// Ports that no Service has are closed at this address.
    ClusterIp(IpAddr),
    /// An endpoint on this node may be its own client.
    Hairpin(IpAddr),
    /// The frontend is open only to some sources…
    Firewalled(Frontend),
    /// …namely these.
    Allowed(Frontend, IpNet),
}

/// What an element leads to; `None` for the elements of sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    None,
    Endpoint(SocketAddr),
    Dispatch(Dispatch),
    Refuse(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is no endpoint anywhere: the client is told.
    Reject,
    /// There are endpoints, but not for this traffic on this node.
    Drop,
}

/// How a frontend treats traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dispatch {
    /// Only sources outside the cluster are masqueraded.
    Internal(Target),
    /// Every source is masqueraded, as the endpoint may be on another node.
    External(Target),
    /// Pods and the node itself reach all endpoints; everyone else only those of this node, with
    /// their source address kept.
    ExternalLocal {
        cluster: Option<Target>,
        local: Option<Target>,
    },
}

/// How one of several endpoints is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// At random from a list of `count`.
    Random {
        family: Family,
        protocol: Protocol,
        node_port: bool,
        local: bool,
        count: u32,
    },
    /// The one that this client was led to last, by the group of that identity.
    Sticky { group: u64, local: bool },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Target::Random {
                family,
                protocol,
                node_port,
                local,
                count,
            } => {
                let node = if node_port { "node-" } else { "" };
                let local = if local { "local-" } else { "" };
                write!(f, "pick-{node}{local}{protocol}-{family}-{count}")
            }
            Target::Sticky { group, local } => {
                let local = if local { "local-" } else { "" };
                write!(f, "sticky-{local}{group:016x}")
            }
        }
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dispatch::Internal(target) => write!(f, "internal-{target}"),
            Dispatch::External(target) => write!(f, "external-{target}"),
            Dispatch::ExternalLocal { cluster, local } => {
                f.write_str("split")?;
                for target in [cluster, local] {
                    match target {
                        Some(target) => write!(f, "-{target}")?,
                        None => f.write_str("-none")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Dispatch {
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        let (first, second) = match *self {
            Dispatch::Internal(target) | Dispatch::External(target) => (Some(target), None),
            Dispatch::ExternalLocal { cluster, local } => (cluster, local),
        };
        first.into_iter().chain(second)
    }
}

/// The endpoints of one Service port with session affinity. Its chains and sets are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub family: Family,
    pub protocol: Protocol,
    /// Seconds for which a client is remembered after its last new connection.
    pub timeout: u32,
    pub cluster: Vec<SocketAddr>,
    pub local: Vec<SocketAddr>,
}

/// All that the kernel is to hold for one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub elements: BTreeMap<Key, Value>,
    pub lists: BTreeMap<List, Vec<SocketAddr>>,
    /// By an identity that stays the same over restarts.
    pub groups: BTreeMap<u64, Group>,
    /// UDP frontends with the endpoints that flows may go on to.
    pub serving: BTreeMap<Frontend, Vec<SocketAddr>>,
    pub health_check: Option<HealthCheck>,
    /// Frontends whose traffic has endpoints, but none here: within the cluster and from outside.
    pub without_local: WithoutLocal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocal {
    pub internal: u32,
    pub external: u32,
}

/// A port on which load balancers ask whether this node has endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Ready endpoints of the Service on this node, for each family that the Service has.
    pub endpoints: [Option<usize>; 2],
}
