//! The plugin's own nftables table: masquerading of what leaves the cluster, and host ports.
//!
//! The table is always written whole, from the configuration and the files of the addresses in
//! use, in one transaction. So whatever happened before, it is right afterwards. Adding a pod
//! without host ports only looks whether the table stands.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use coracle_netfilter::{
    Family, Nft,
    conntrack::{self, Endpoint},
    table_comment,
};

use crate::{
    addresses::{Addresses, Entry, lock},
    config::Config,
    error::Error,
    invocation::{PortMapping, Protocol},
};

/// Makes sure that the table stands as this configuration wants it.
pub fn ensure(config: &Config, addresses: &Addresses) -> Result<(), Error> {
    let standing = || {
        table_comment(Family::Inet, &config.table)
            .map_err(|error| Error::io(format!("look at table {}", config.table), error))
    };
    let wanted = Some(version(config));
    if standing()? == wanted {
        return Ok(());
    }
    let _lock = lock(&config.state().join("rules.lock"))?;
    // Of many pods that start at once, the first does it for all.
    if standing()? == wanted {
        return Ok(());
    }
    write(config, addresses)
}

/// Writes the table anew, after the host ports in use have changed.
pub fn update(config: &Config, addresses: &Addresses) -> Result<(), Error> {
    let _lock = lock(&config.state().join("rules.lock"))?;
    write(config, addresses)
}

fn write(config: &Config, addresses: &Addresses) -> Result<(), Error> {
    let script = render(config, &addresses.live()?, &version(config));
    Ok(Nft::default().apply(&script)?)
}

/// Removes the table.
pub fn remove(config: &Config) -> Result<(), Error> {
    if matches!(table_comment(Family::Inet, &config.table), Ok(None)) {
        return Ok(());
    }
    Ok(Nft::default().remove_table(Family::Inet, &config.table)?)
}

/// Forgets UDP flows to these ports of the node, which would go on to where their first packet
/// went. `local` are the node's own addresses.
pub fn forget_flows(mappings: &[PortMapping], local: &[IpAddr]) -> Result<(), Error> {
    let udp: Vec<&PortMapping> = mappings
        .iter()
        .filter(|mapping| mapping.protocol == Protocol::Udp)
        .collect();
    if udp.is_empty() {
        return Ok(());
    }
    let led = |to: Endpoint| {
        udp.iter().any(|mapping| {
            mapping.host_port == to.port
                && mapping.is_for(to.address.is_ipv4())
                && mapping
                    .address()
                    .is_none_or(|address| address == to.address)
        }) && local.contains(&to.address)
    };
    conntrack::forget(|flow| {
        i32::from(flow.protocol) == libc::IPPROTO_UDP && led(flow.destination)
    })
    .map_err(|error| Error::io("forget flows to a host port", error))?;
    Ok(())
}

/// Stands as the table's comment, so that another configuration or version writes it anew.
fn version(config: &Config) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in render(config, &[], "").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("rules {hash:016x}")
}

/// One family's words in nftables.
struct Words {
    suffix: &'static str,
    ip: &'static str,
    address: &'static str,
    multicast: &'static str,
}

const WORDS: [Words; 2] = [
    Words {
        suffix: "4",
        ip: "ip",
        address: "ipv4_addr",
        multicast: "224.0.0.0/4",
    },
    Words {
        suffix: "6",
        ip: "ip6",
        address: "ipv6_addr",
        multicast: "ff00::/8",
    },
];

/// The whole table as a script for `nft`.
fn render(config: &Config, entries: &[Entry], comment: &str) -> String {
    let (table, bridge) = (&config.table, &config.bridge);
    let [maps4, maps6] = WORDS.map(|words| maps(&words, entries));
    let [masquerade4, masquerade6] = WORDS.map(|words| masquerade(config, &words));
    format!(
        r#"add table inet {table}
delete table inet {table}
table inet {table} {{
  comment "{comment}"
{maps4}{maps6}
  chain host-ports {{
    dnat ip to ip daddr . meta l4proto . th dport map @host-ports-4
    dnat ip to meta l4proto . th dport map @host-ports-any-4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @host-ports-6
    dnat ip6 to meta l4proto . th dport map @host-ports-any-6
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    fib daddr type local goto host-ports
  }}
  chain output {{
    type nat hook output priority -100
    fib daddr type local goto host-ports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
{masquerade4}{masquerade6}  }}
  chain input {{
    type filter hook input priority filter
    # The bridge may route answers to 127.0.0.1 for host ports, but no pod may open a connection.
    iifname "{bridge}" ip daddr 127.0.0.0/8 ct state != {{ established, related }} drop
  }}
  chain redirects {{
    type filter hook output priority filter
    # Pods are neighbours on the bridge and still may not speak past the gateway.
    oifname "{bridge}" icmp type redirect drop
    oifname "{bridge}" icmpv6 type nd-redirect drop
  }}
}}
"#
    )
}

fn maps(words: &Words, entries: &[Entry]) -> String {
    let Words {
        suffix, address, ..
    } = words;
    let (mut any, mut one) = (BTreeMap::new(), BTreeMap::new());
    let mut hairpin = Vec::new();
    for entry in entries {
        let to = entry.address;
        if to.is_ipv4() != (*suffix == "4") {
            continue;
        }
        if !entry.attachment.port_mappings.is_empty() {
            hairpin.push(format!("{to} . {to}"));
        }
        for mapping in &entry.attachment.port_mappings {
            if !mapping.is_for(to.is_ipv4()) {
                continue;
            }
            let from = format!("{} . {}", mapping.protocol.name(), mapping.host_port);
            let port = mapping.container_port;
            let _ = match mapping.address() {
                // Two pods never want one port, but the older may be on its way out still.
                None => any.insert(from, format!("{to} . {port}")),
                Some(host) => one.insert(format!("{host} . {from}"), format!("{to} . {port}")),
            };
        }
    }
    let from = "inet_proto . inet_service";
    let to = format!("{address} . inet_service");
    let pairs = |map: BTreeMap<String, String>| -> Vec<String> {
        let pairs = map.iter().map(|(from, to)| format!("{from} : {to}"));
        pairs.collect()
    };
    let mut text = String::new();
    for (kind, key, value, elements) in [
        ("map host-ports-any", from.to_owned(), Some(&to), pairs(any)),
        (
            "map host-ports",
            format!("{address} . {from}"),
            Some(&to),
            pairs(one),
        ),
        (
            "set hairpin",
            format!("{address} . {address}"),
            None,
            hairpin,
        ),
    ] {
        let value = value.map_or(String::new(), |value| format!(" : {value}"));
        let _ = writeln!(text, "  {kind}-{suffix} {{\n    type {key}{value}");
        if !elements.is_empty() {
            let _ = writeln!(text, "    elements = {{ {} }}", elements.join(", "));
        }
        text.push_str("  }\n");
    }
    text
}

fn masquerade(config: &Config, words: &Words) -> String {
    let Words {
        suffix,
        ip,
        multicast,
        ..
    } = words;
    let bridge = &config.bridge;
    let of_family = |nets: &[ipnet::IpNet]| {
        let nets = nets
            .iter()
            .filter(|net| net.addr().is_ipv4() == (*suffix == "4"));
        nets.map(|net| net.trunc().to_string()).collect::<Vec<_>>()
    };
    let mut text =
        format!("    oifname \"{bridge}\" {ip} saddr . {ip} daddr @hairpin-{suffix} masquerade\n");
    if *suffix == "4" {
        let _ = writeln!(
            text,
            "    oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade"
        );
    }
    let subnets = of_family(&config.subnets);
    if !subnets.is_empty() {
        let mut inside = of_family(&config.cluster_cidrs);
        inside.push((*multicast).to_owned());
        let (subnets, inside) = (subnets.join(", "), inside.join(", "));
        let _ = writeln!(
            text,
            "    oifname != \"{bridge}\" {ip} saddr {{ {subnets} }} {ip} daddr != {{ {inside} }} \
             masquerade fully-random"
        );
    }
    text
}

/// Whether a port is open at loopback addresses, which the kernel routes only when it is told to.
pub fn needs_loopback_routing(mappings: &[PortMapping]) -> bool {
    mappings.iter().any(|mapping| {
        mapping.is_for(true)
            && mapping
                .address()
                .is_none_or(|address| address.is_loopback())
    })
}
