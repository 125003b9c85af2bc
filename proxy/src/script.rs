//! The text of nftables: the table with its fixed chains, the chains that elements lead to, and
//! transactions.

mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
};

use ipnet::IpNet;

use crate::{
    Config,
    desired::fnv,
    model::{Dispatch, Family, Frontend, Group, Key, Protocol, Refusal, Target, Value},
    world::Changes,
};

use table::{base, text};

/// Marks a packet to be masqueraded: the bit that upstream's kube-proxy uses.
const MASQUERADE: &str = "0x4000";

/// A new client of a Service with affinity is not remembered when there are this many.
const CLIENTS: u32 = 65536;

/// One family's words in nftables.
struct Words {
    family: Family,
    ip: &'static str,
    address: &'static str,
    loopback: &'static str,
}

const WORDS: [Words; 2] = [
    Words {
        family: Family::V4,
        ip: "ip",
        address: "ipv4_addr",
        loopback: "127.0.0.0/8",
    },
    Words {
        family: Family::V6,
        ip: "ip6",
        address: "ipv6_addr",
        loopback: "::1",
    },
];

fn words(family: Family) -> &'static Words {
    match family {
        Family::V4 => &WORDS[0],
        Family::V6 => &WORDS[1],
    }
}

/// Writes scripts, and knows which chains the kernel has.
pub struct Scripts<'a> {
    config: &'a Config,
    /// Chains of targets and dispatches. They are few and alike for many Services, so those of
    /// random choice are kept when nothing leads to them any more.
    chains: BTreeSet<String>,
    /// Chains that nothing leads to, and that can be deleted once the kernel has noticed it.
    stale: BTreeSet<String>,
}

/// A transaction, and what is to be remembered when it has succeeded.
pub struct Transaction {
    pub script: String,
    chains: BTreeSet<String>,
    stale: BTreeSet<String>,
}

impl<'a> Scripts<'a> {
    pub fn new(config: &'a Config) -> Self {
        Scripts {
            config,
            chains: BTreeSet::new(),
            stale: BTreeSet::new(),
        }
    }

    /// The changes as one transaction.
    pub fn update(&self, changes: &Changes) -> Transaction {
        self.transaction(String::new(), self.chains.clone(), changes)
    }

    /// The whole table as one transaction. With `keep`, a table of the same version stays, and
    /// in it what clients with affinity were led to; `clients` are the names of those sets.
    pub fn whole(&self, everything: &Changes, keep: Option<&[String]>) -> Transaction {
        let table = &self.config.table;
        let mut script = format!("add table inet {table}\n");
        match keep {
            None => {
                let _ = writeln!(script, "delete table inet {table}");
            }
            Some(clients) => {
                let _ = writeln!(script, "flush table inet {table}");
                for words in &WORDS {
                    for (kind, name) in sets(words.family) {
                        let _ = writeln!(script, "flush {kind} inet {table} {name}");
                    }
                }
                let wanted: BTreeSet<String> = everything
                    .groups
                    .iter()
                    .filter_map(|(id, _, group)| Some((id, group.as_ref()?)))
                    .flat_map(|(id, group)| members(*id, group).into_values())
                    .map(clients_set)
                    .collect();
                for name in clients.iter().filter(|name| !wanted.contains(*name)) {
                    let _ = writeln!(script, "delete set inet {table} {name}");
                }
            }
        }
        script.push_str(&base(self.config));
        self.transaction(script, BTreeSet::new(), everything)
    }

    fn transaction(
        &self,
        mut script: String,
        mut chains: BTreeSet<String>,
        changes: &Changes,
    ) -> Transaction {
        let table = &self.config.table;
        let mut stale = self.stale.clone();
        elements(&mut script, "delete", table, &changes.removed);
        let mut writer = Writer {
            config: self.config,
            script: &mut script,
            chains: &mut chains,
            stale: &mut stale,
        };
        for (id, before, after) in &changes.groups {
            writer.group(*id, before.as_ref(), after.as_ref());
        }
        for (_, value) in &changes.added {
            if let Value::Dispatch(dispatch) = value {
                writer.dispatch(*dispatch);
            }
        }
        elements(&mut script, "add", table, &changes.added);
        Transaction {
            script,
            chains,
            stale,
        }
    }

    /// The kernel has taken the transaction.
    pub fn done(&mut self, transaction: Transaction) {
        self.chains = transaction.chains;
        self.stale = transaction.stale;
    }

    /// Deletes chains that a former transaction has left. Kernels before 6.2 notice only some
    /// time after it that nothing leads to them; then this fails, and is tried again later.
    pub fn sweep(&self) -> Option<String> {
        if self.stale.is_empty() {
            return None;
        }
        let mut script = String::new();
        for chain in &self.stale {
            let _ = writeln!(script, "delete chain inet {} {chain}", self.config.table);
        }
        Some(script)
    }

    pub fn swept(&mut self) {
        self.stale.clear();
    }
}

/// A number that changes whenever the fixed part of the table does: its comment.
pub fn version(config: &Config) -> String {
    format!("rules {:016x}", fnv(&[&text(config, "")]))
}

/// The prefix of the names of sets in which clients are remembered.
pub const CLIENTS_PREFIX: &str = "clients-";

fn clients_set(member: u64) -> String {
    format!("{CLIENTS_PREFIX}{member:016x}")
}

/// The identity of each endpoint in a group. One with another timeout is another.
fn members(id: u64, group: &Group) -> BTreeMap<SocketAddr, u64> {
    let identity = |endpoint: &SocketAddr| {
        let parts = [
            id.to_string(),
            group.timeout.to_string(),
            endpoint.to_string(),
        ];
        fnv(&[&parts[0], &parts[1], &parts[2]])
    };
    let endpoints = group.cluster.iter().chain(&group.local);
    endpoints.map(|of| (*of, identity(of))).collect()
}

struct Writer<'a> {
    config: &'a Config,
    script: &'a mut String,
    chains: &'a mut BTreeSet<String>,
    stale: &'a mut BTreeSet<String>,
}

impl Writer<'_> {
    /// Writes the chain unless the kernel has it.
    fn chain(&mut self, name: &str, rules: &[String]) {
        if !self.chains.contains(name) {
            self.rewrite(name, rules);
        }
    }

    /// Writes the chain whether or not the kernel has it.
    fn rewrite(&mut self, name: &str, rules: &[String]) {
        let table = &self.config.table;
        let _ = writeln!(self.script, "add chain inet {table} {name}");
        let _ = writeln!(self.script, "flush chain inet {table} {name}");
        for rule in rules {
            let _ = writeln!(self.script, "add rule inet {table} {name} {rule}");
        }
        self.chains.insert(name.to_owned());
        self.stale.remove(name);
    }

    /// Empties the chain; nothing leads to it any more.
    fn abandon(&mut self, name: &str) {
        let _ = writeln!(self.script, "flush chain inet {} {name}", self.config.table);
        self.chains.remove(name);
        self.stale.insert(name.to_owned());
    }

    fn dispatch(&mut self, dispatch: Dispatch) {
        for target in dispatch.targets() {
            if let Target::Random { .. } = target {
                let rules = random(target);
                self.chain(&target.to_string(), &rules);
            }
        }
        let rules = dispatch_rules(self.config, dispatch);
        self.chain(&dispatch.to_string(), &rules);
    }

    fn group(&mut self, id: u64, before: Option<&Group>, after: Option<&Group>) {
        let table = &self.config.table;
        let of = |group: Option<&Group>| group.map(|group| members(id, group)).unwrap_or_default();
        let (old, new) = (of(before), of(after));
        if let Some(group) = after {
            let Words { ip, address, .. } = words(group.family);
            for (endpoint, member) in &new {
                let set = clients_set(*member);
                let _ = writeln!(
                    self.script,
                    "add set inet {table} {set} {{ type {address}; size {CLIENTS}; \
                     flags dynamic, timeout; timeout {}s; }}",
                    group.timeout
                );
                let rules = [
                    format!("update @{set} {{ {ip} saddr }}"),
                    format!("meta l4proto {} dnat {ip} to {endpoint}", group.protocol),
                ];
                self.chain(&member_chain(*member), &rules);
            }
        }
        for local in [false, true] {
            let name = Target::Sticky { group: id, local }.to_string();
            let list = |group: &Group| match local {
                false => group.cluster.clone(),
                true => group.local.clone(),
            };
            let endpoints = after.map(list).unwrap_or_default();
            if !endpoints.is_empty() {
                let family = after.map_or(Family::V4, |group| group.family);
                self.rewrite(&name, &sticky(family, &endpoints, &new));
            } else if self.chains.contains(&name) {
                self.abandon(&name);
            }
        }
        let kept: BTreeSet<&u64> = new.values().collect();
        for member in old.values().filter(|member| !kept.contains(member)) {
            self.abandon(&member_chain(*member));
            let set = clients_set(*member);
            let _ = writeln!(self.script, "delete set inet {table} {set}");
        }
        if after.is_none() {
            // The ways to a group are its own, too.
            let ending = format!("{id:016x}");
            let ways: Vec<String> = self
                .chains
                .iter()
                .filter(|name| name.contains(&ending))
                .cloned()
                .collect();
            for way in ways {
                self.abandon(&way);
            }
        }
    }
}

fn member_chain(member: u64) -> String {
    format!("endpoint-{member:016x}")
}

/// The client goes where it went last, or anywhere.
fn sticky(
    family: Family,
    endpoints: &[SocketAddr],
    members: &BTreeMap<SocketAddr, u64>,
) -> Vec<String> {
    let ip = words(family).ip;
    let members: Vec<u64> = endpoints
        .iter()
        .filter_map(|endpoint| members.get(endpoint).copied())
        .collect();
    let mut rules: Vec<String> = members
        .iter()
        .map(|member| {
            let (set, chain) = (clients_set(*member), member_chain(*member));
            format!("{ip} saddr @{set} goto {chain}")
        })
        .collect();
    let slots: Vec<String> = members
        .iter()
        .enumerate()
        .map(|(slot, member)| format!("{slot} : goto {}", member_chain(*member)))
        .collect();
    rules.push(format!(
        "numgen random mod {} vmap {{ {} }}",
        members.len(),
        slots.join(", ")
    ));
    rules
}

/// Any endpoint of the list. A packet can meet the list between two transactions, when it has just
/// become shorter; then the first endpoint is as good.
fn random(target: Target) -> Vec<String> {
    let Target::Random {
        family,
        protocol,
        node_port,
        local,
        count,
    } = target
    else {
        return Vec::new();
    };
    let ip = words(family).ip;
    let map = list_map(family, protocol, node_port, local);
    let key = list_key(ip, node_port);
    let pick = |count| format!("dnat {ip} to {key} . numgen random mod {count} map @{map}");
    vec![pick(count), pick(1), "drop".to_owned()]
}

fn dispatch_rules(config: &Config, dispatch: Dispatch) -> Vec<String> {
    let mark = format!("meta mark set meta mark | {MASQUERADE}");
    let goto = |target: Target| format!("goto {target}");
    // Which family it is stands with the destination, so both families' sources may be named.
    let cluster = |negated: bool| {
        WORDS.iter().filter_map(move |words| {
            let cidrs = of_family(&config.cluster_cidrs, words.family)?;
            let not = if negated { "!= " } else { "" };
            Some(format!("{} saddr {not}{{ {cidrs} }}", words.ip))
        })
    };
    match dispatch {
        Dispatch::Internal(target) => {
            let mut rules: Vec<String> = match config.masquerade_all {
                true => vec![mark],
                false => cluster(true).map(|from| format!("{from} {mark}")).collect(),
            };
            rules.push(goto(target));
            rules
        }
        Dispatch::External(target) => vec![mark, goto(target)],
        Dispatch::ExternalLocal {
            cluster: all,
            local,
        } => {
            let mut rules = Vec::new();
            if let Some(all) = all {
                rules.extend(cluster(false).map(|from| format!("{from} {}", goto(all))));
                // The external address may be one of the node's, and then the source is it too.
                rules.push(format!("fib saddr type local {mark}"));
                rules.push(format!("fib saddr type local {}", goto(all)));
            }
            rules.extend(local.map(goto));
            rules
        }
    }
}

fn of_family(nets: &[IpNet], family: Family) -> Option<String> {
    let nets: Vec<String> = nets
        .iter()
        .filter(|net| Family::of(net.addr()) == family)
        .map(|net| net.trunc().to_string())
        .collect();
    (!nets.is_empty()).then(|| nets.join(", "))
}

/// What a packet is looked up by in a list, before the number of the endpoint.
fn list_key(ip: &str, node_port: bool) -> String {
    match node_port {
        true => "meta l4proto . th dport".to_owned(),
        false => format!("{ip} daddr . meta l4proto . th dport"),
    }
}

/// Each protocol has maps of its own: nft (1.0.6 of Debian 12 at least) refuses rules that look
/// into an existing map whose values are declared as ports of any protocol.
fn list_map(family: Family, protocol: Protocol, node_port: bool, local: bool) -> String {
    let node = if node_port { "node-" } else { "" };
    let local = if local { "local-" } else { "" };
    format!("{node}{local}endpoints-{protocol}-{family}")
}

/// The set or map that holds an element.
fn set_of(key: &Key) -> String {
    let by_frontend = |address: &str, node: &str, frontend: &Frontend| {
        let name = if frontend.address.is_none() {
            node
        } else {
            address
        };
        format!("{name}-{}", frontend.family)
    };
    match key {
        Key::Endpoint(list, _) => {
            let frontend = list.frontend;
            {
                let node_port = frontend.address.is_none();
                list_map(frontend.family, frontend.protocol, node_port, list.local)
            }
        }
        Key::Service(frontend) => by_frontend("services", "node-ports", frontend),
        Key::Refused(frontend) => by_frontend("refused", "refused-node-ports", frontend),
        Key::ClusterIp(address) => format!("cluster-ips-{}", Family::of(*address)),
        Key::Hairpin(address) => format!("hairpin-{}", Family::of(*address)),
        Key::Firewalled(frontend) => format!("firewalled-{}", frontend.family),
        Key::Allowed(frontend, _) => format!("allowed-{}", frontend.family),
    }
}

/// Every set and map of the table that holds elements of ours.
fn sets(family: Family) -> impl Iterator<Item = (&'static str, String)> {
    let names = [
        ("map", "services"),
        ("map", "node-ports"),
        ("map", "refused"),
        ("map", "refused-node-ports"),
        ("set", "cluster-ips"),
        ("set", "hairpin"),
        ("set", "firewalled"),
        ("set", "allowed"),
    ];
    let named = move |(kind, name)| (kind, format!("{name}-{family}"));
    let lists = lists().map(move |(protocol, node_port, local)| {
        ("map", list_map(family, protocol, node_port, local))
    });
    names.into_iter().map(named).chain(lists)
}

/// The kinds of lists of endpoints: of which protocol, by node port, of this node only.
fn lists() -> impl Iterator<Item = (Protocol, bool, bool)> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    protocols.flat_map(|protocol| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(node_port, local)| (protocol, node_port, local))
    })
}

fn frontend(of: &Frontend) -> String {
    match of.address {
        Some(address) => format!("{address} . {} . {}", of.protocol, of.port),
        None => format!("{} . {}", of.protocol, of.port),
    }
}

fn key_text(key: &Key) -> String {
    match key {
        Key::Endpoint(list, slot) => format!("{} . {slot}", frontend(&list.frontend)),
        Key::Service(of) | Key::Refused(of) | Key::Firewalled(of) => frontend(of),
        Key::ClusterIp(address) => address.to_string(),
        Key::Hairpin(address) => format!("{address} . {address}"),
        Key::Allowed(of, source) => format!("{} . {source}", frontend(of)),
    }
}

fn value_text(value: &Value) -> Option<String> {
    match value {
        Value::None => None,
        Value::Endpoint(to) => Some(format!("{} . {}", to.ip(), to.port())),
        Value::Dispatch(dispatch) => Some(format!("goto {dispatch}")),
        Value::Refuse(Refusal::Reject) => Some("goto reject-it".to_owned()),
        Value::Refuse(Refusal::Drop) => Some("drop".to_owned()),
    }
}

/// One command for each set or map.
fn elements(script: &mut String, command: &str, table: &str, elements: &[(Key, Value)]) {
    let mut by_set: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in elements {
        let text = by_set.entry(set_of(key)).or_default();
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&key_text(key));
        if command == "add"
            && let Some(value) = value_text(value)
        {
            text.push_str(" : ");
            text.push_str(&value);
        }
    }
    for (set, elements) in by_set {
        let _ = writeln!(
            script,
            "{command} element inet {table} {set} {{ {elements} }}"
        );
    }
}
