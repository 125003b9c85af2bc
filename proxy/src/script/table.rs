//! What the table holds whatever the Services are: its sets and maps, and the chains that packets
//! come through.

use std::fmt::Write as _;

use super::{MASQUERADE, WORDS, Words, list_key, list_map, lists, of_family, version};
use crate::Config;

/// The fixed part of the table, with its comment.
pub(super) fn base(config: &Config) -> String {
    text(config, &version(config))
}

pub(super) fn text(config: &Config, comment: &str) -> String {
    let [declared4, declared6] = WORDS.map(|words| declarations(&words));
    let [refused4, refused6] = WORDS.map(|words| closed(config, &words));
    let each = |rule: &dyn Fn(&Words) -> String| {
        let rules = WORDS.iter().map(|words| format!("    {}\n", rule(words)));
        rules.collect::<String>()
    };
    let frontend = "meta l4proto . th dport";
    let services = each(&|of| format!("{} daddr . {frontend} vmap @services-{}", of.ip, of.family));
    let to_node = each(&|of| {
        let (at, family) = (node_address(config, of), of.family);
        format!("{at} {frontend} vmap @node-ports-{family}")
    });
    let refuse = each(&|of| format!("{} daddr . {frontend} vmap @refused-{}", of.ip, of.family));
    let refuse_node_ports = each(&|of| {
        let (at, family) = (node_address(config, of), of.family);
        format!("{at} {frontend} vmap @refused-node-ports-{family}")
    });
    let firewall = each(&|of| {
        let (ip, family) = (of.ip, of.family);
        let to = format!("{ip} daddr . {frontend}");
        format!("{to} @firewalled-{family} {to} . {ip} saddr != @allowed-{family} drop")
    });
    let hairpin = each(&|of| {
        let (ip, family) = (of.ip, of.family);
        format!("ct status dnat {ip} saddr . {ip} daddr @hairpin-{family} masquerade fully-random")
    });
    format!(
        r#"table inet {table} {{
  comment "{comment}"
{declared4}{declared6}
  chain services {{
{services}    fib daddr type local goto node-ports
  }}
  chain node-ports {{
{to_node}  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    goto services
  }}
  chain output {{
    type nat hook output priority -100
    goto services
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    meta mark & {MASQUERADE} != 0 meta mark set meta mark ^ {MASQUERADE} masquerade fully-random
{hairpin}  }}
  chain firewall {{
{firewall}  }}
  chain firewall-prerouting {{
    type filter hook prerouting priority -110
    ct state new goto firewall
  }}
  chain firewall-output {{
    type filter hook output priority -110
    ct state new goto firewall
  }}
  chain reject-it {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain refuse {{
{refuse}  }}
  chain refuse-node-ports {{
{refuse_node_ports}  }}
  chain closed {{
{refused4}{refused6}  }}
  chain filter-input {{
    type filter hook input priority filter
    ct state new jump refuse
    ct state new fib daddr type local goto refuse-node-ports
  }}
  chain filter-forward {{
    type filter hook forward priority filter
    ct state new jump refuse
    ct state new goto closed
  }}
  chain filter-output {{
    type filter hook output priority filter
    ct state new jump refuse
    ct state new goto closed
  }}
}}
"#,
        table = config.table,
    )
}

/// Where node ports are open: on the addresses named, or on all of the node but loopback.
fn node_address(config: &Config, words: &Words) -> String {
    if config.node_port_addresses.is_empty() {
        return format!("{} daddr != {}", words.ip, words.loopback);
    }
    match of_family(&config.node_port_addresses, words.family) {
        Some(addresses) => format!("{} daddr {{ {addresses} }}", words.ip),
        // None of this family.
        None => format!("{0} daddr {1} {0} daddr != {1}", words.ip, words.loopback),
    }
}

/// What no Service has: other ports of a cluster IP, and addresses of no Service.
fn closed(config: &Config, words: &Words) -> String {
    let Words { ip, family, .. } = words;
    let mut text = format!("    {ip} daddr @cluster-ips-{family} goto reject-it\n");
    if let Some(cidrs) = of_family(&config.service_cidrs, *family) {
        let _ = writeln!(text, "    {ip} daddr {{ {cidrs} }} drop");
    }
    text
}

fn declarations(words: &Words) -> String {
    let Words {
        family,
        ip,
        address,
        ..
    } = words;
    let port = "inet_proto . inet_service";
    let mut text = String::new();
    let mut declare = |kind: &str, name: &str, lines: &str| {
        let _ = writeln!(text, "  {kind} {name}-{family} {{\n    {lines}\n  }}");
    };
    declare(
        "map",
        "services",
        &format!("type {address} . {port} : verdict"),
    );
    declare("map", "node-ports", &format!("type {port} : verdict"));
    declare(
        "map",
        "refused",
        &format!("type {address} . {port} : verdict"),
    );
    declare(
        "map",
        "refused-node-ports",
        &format!("type {port} : verdict"),
    );
    declare("set", "cluster-ips", &format!("type {address}"));
    declare("set", "hairpin", &format!("type {address} . {address}"));
    declare("set", "firewalled", &format!("type {address} . {port}"));
    let allowed = format!("type {address} . {port} . {address}\n    flags interval");
    declare("set", "allowed", &allowed);
    for (protocol, node_port, local) in lists() {
        let name = list_map(*family, protocol, node_port, local);
        let key = list_key(ip, node_port);
        let _ = writeln!(
            text,
            "  map {name} {{\n    typeof {key} . numgen random mod 2 : {ip} daddr . {protocol} dport\n  }}"
        );
    }
    text
}
