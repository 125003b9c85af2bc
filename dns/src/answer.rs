//! From a name of the cluster's zone to its records.
//!
//! The Kubernetes DNS specification
//! (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>), and CoreDNS'
//! behaviour where it leaves room.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr as _,
};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
};

use crate::index::{Index, Port, Ready, ServiceNames};

/// Seconds for which an answer may be kept: short, because endpoints come and go.
pub const TTL: u32 = 5;

/// What a name of the zone stands for.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Records of the type asked for; none when the name only has records of other types.
    Records(Vec<Record>),
    /// An alias, to be followed.
    Alias { record: Box<Record>, target: Name },
    /// No such name.
    NxDomain,
}

/// The labels of `name` below `zone`, from left to right and in lower case; `None` when it is
/// not below it.
pub fn below(name: &Name, zone: &Name) -> Option<Vec<String>> {
    if !zone.zone_of(name) {
        return None;
    }
    let depth = usize::from(name.num_labels()) - usize::from(zone.num_labels());
    let labels = name.iter().take(depth);
    Some(
        labels
            .map(|label| String::from_utf8_lossy(label).to_lowercase())
            .collect(),
    )
}

/// What the zone says of `name`, whose labels below the zone are `labels`.
pub fn answer(
    index: &Index,
    zone: &Name,
    name: &Name,
    labels: &[String],
    kind: RecordType,
) -> Answer {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [] => apex(zone, name, kind),
        ["dns-version"] => {
            let version = RData::TXT(TXT::new(vec!["1.1.0".to_owned()]));
            of_kind(name, kind, [version])
        }
        ["svc" | "pod"] => Answer::Records(Vec::new()),
        [namespace, "svc" | "pod"] => if_exists(index.has_namespace(namespace)),
        [address, namespace, "pod"] => pod(index, name, address, namespace, kind),
        [.., service, namespace, "svc"] => match index.service(namespace, service) {
            Some(names) => in_service(zone, name, &labels, &names, kind),
            None => Answer::NxDomain,
        },
        _ => Answer::NxDomain,
    }
}

/// The SOA record that goes with a negative answer.
pub fn soa(zone: &Name) -> Record {
    let below_zone = |label| Name::from_ascii(label).and_then(|name| name.append_domain(zone));
    let server = below_zone("ns.dns").unwrap_or_else(|_| zone.clone());
    let mailbox = below_zone("hostmaster").unwrap_or_else(|_| zone.clone());
    let soa = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL);
    Record::from_rdata(zone.clone(), TTL, RData::SOA(soa))
}

/// The records of an address' reverse name, if the address is the cluster's.
pub fn reverse(index: &Index, zone: &Name, name: &Name, address: IpAddr) -> Vec<Record> {
    index
        .names_of(address)
        .iter()
        .filter_map(|relative| Name::from_ascii(relative).ok()?.append_domain(zone).ok())
        .map(|target| record(name, RData::PTR(PTR(target))))
        .collect()
}

fn apex(zone: &Name, name: &Name, kind: RecordType) -> Answer {
    Answer::Records(match kind {
        RecordType::SOA => vec![soa(zone)],
        RecordType::NS => {
            match Name::from_ascii("ns.dns").and_then(|name| name.append_domain(zone)) {
                Ok(server) => vec![record(name, RData::NS(NS(server)))],
                Err(_) => Vec::new(),
            }
        }
        _ => Vec::new(),
    })
}

fn if_exists(exists: bool) -> Answer {
    if exists {
        Answer::Records(Vec::new())
    } else {
        Answer::NxDomain
    }
}

/// `10-42-0-7.default.pod`: any address, as CoreDNS' mode "insecure" answers.
fn pod(index: &Index, name: &Name, address: &str, namespace: &str, kind: RecordType) -> Answer {
    let address = Ipv4Addr::from_str(&address.replace('-', "."))
        .map(IpAddr::from)
        .or_else(|_| address.replace('-', ":").parse());
    match address {
        Ok(address) if index.has_namespace(namespace) => of_kind(name, kind, [data(address)]),
        _ => Answer::NxDomain,
    }
}

fn in_service(
    zone: &Name,
    name: &Name,
    labels: &[&str],
    names: &ServiceNames,
    kind: RecordType,
) -> Answer {
    let service_labels = labels.len() - 3;
    if let Some(target) = &names.external_name {
        return match (service_labels, Name::from_ascii(target)) {
            (0, Ok(mut target)) => {
                target.set_fqdn(true);
                Answer::Alias {
                    record: Box::new(record(name, RData::CNAME(CNAME(target.clone())))),
                    target,
                }
            }
            _ => Answer::NxDomain,
        };
    }
    let base = labels[service_labels..].join(".");
    match labels[..service_labels] {
        [] if kind == RecordType::SRV => Answer::Records(srv(zone, name, &base, names, |_| true)),
        [] if names.cluster_ips.is_empty() => of_kind(
            name,
            kind,
            names
                .endpoints
                .iter()
                .map(|endpoint| data(endpoint.address)),
        ),
        [] => of_kind(
            name,
            kind,
            names.cluster_ips.iter().map(|address| data(*address)),
        ),
        [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
            let records = srv(zone, name, &base, names, |known| {
                known.name == port[1..] && known.protocol == protocol[1..]
            });
            match (records.is_empty(), kind) {
                (true, _) => Answer::NxDomain,
                (false, RecordType::SRV) => Answer::Records(records),
                (false, _) => Answer::Records(Vec::new()),
            }
        }
        [endpoint] => {
            let addresses: Vec<RData> = names
                .endpoints
                .iter()
                .filter(|known| known.name == endpoint)
                .map(|known| data(known.address))
                .collect();
            if addresses.is_empty() {
                Answer::NxDomain
            } else {
                of_kind(name, kind, addresses)
            }
        }
        _ => Answer::NxDomain,
    }
}

/// The SRV records of the ports that fit: to the Service's name if it has an address, to its
/// endpoints' names if it is headless.
fn srv(
    zone: &Name,
    name: &Name,
    base: &str,
    names: &ServiceNames,
    fits: impl Fn(&Port) -> bool,
) -> Vec<Record> {
    let target = |relative: &str| Name::from_ascii(relative).ok()?.append_domain(zone).ok();
    let to = |port: &Port, target: Name, weight: u16| {
        record(name, RData::SRV(SRV::new(0, weight, port.port, target)))
    };
    if !names.cluster_ips.is_empty() {
        let ports = names.ports.iter().filter(|port| fits(port));
        return ports
            .filter_map(|port| Some(to(port, target(base)?, 100)))
            .collect();
    }
    let fitting: Vec<(&Ready, &Port)> = names
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.ports.iter().map(move |port| (endpoint, port)))
        .filter(|(_, port)| fits(port))
        .collect();
    let weight = u16::try_from(100 / fitting.len().max(1))
        .unwrap_or(1)
        .max(1);
    fitting
        .into_iter()
        .filter_map(|(endpoint, port)| {
            Some(to(
                port,
                target(&format!("{}.{base}", endpoint.name))?,
                weight,
            ))
        })
        .collect()
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn of_kind(name: &Name, kind: RecordType, data: impl IntoIterator<Item = RData>) -> Answer {
    let fits = |data: &RData| kind == RecordType::ANY || data.record_type() == kind;
    Answer::Records(
        data.into_iter()
            .filter(fits)
            .map(|data| record(name, data))
            .collect(),
    )
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn index() -> Index {
        let index = Index::default();
        index.apply_namespace("default");
        for service in [
            serde_json::json!({"metadata": {"name": "web", "namespace": "default"},
                "spec": {"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"],
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}}),
            serde_json::json!({"metadata": {"name": "db", "namespace": "default"},
                "spec": {"clusterIP": "None", "clusterIPs": ["None"],
                    "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}}),
            serde_json::json!({"metadata": {"name": "out", "namespace": "default"},
                "spec": {"type": "ExternalName", "externalName": "example.net"}}),
        ] {
            index.apply_service(Arc::new(serde_json::from_value(service).unwrap()));
        }
        let slice = serde_json::json!({
            "metadata": {"name": "db-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.42.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.42.0.6"], "conditions": {}},
                {"addresses": ["10.42.0.9"], "conditions": {"ready": false}},
            ],
        });
        index.apply_slice(Arc::new(serde_json::from_value(slice).unwrap()));
        index
    }

    /// Each record's data as text; `NXDOMAIN`, or `-> TARGET` for an alias.
    fn ask(index: &Index, name: &str, kind: RecordType) -> String {
        let zone = Name::from_ascii("cluster.local.").unwrap();
        let name = Name::from_ascii(format!("{name}.cluster.local.")).unwrap();
        let labels = below(&name, &zone).unwrap();
        match answer(index, &zone, &name, &labels, kind) {
            Answer::Records(records) => {
                let texts: Vec<String> = records
                    .iter()
                    .map(|record| record.data.to_string())
                    .collect();
                texts.join(", ")
            }
            Answer::Alias { target, .. } => format!("-> {target}"),
            Answer::NxDomain => "NXDOMAIN".to_owned(),
        }
    }

    #[test]
    fn names_have_the_records_of_the_specification() {
        use RecordType as T;
        let index = index();
        for (name, kind, expected) in [
            ("web.default.svc", T::A, "10.43.0.7"),
            ("WEB.default.SVC", T::A, "10.43.0.7"),
            ("web.default.svc", T::AAAA, ""),
            (
                "web.default.svc",
                T::SRV,
                "0 100 80 web.default.svc.cluster.local.",
            ),
            (
                "_http._tcp.web.default.svc",
                T::SRV,
                "0 100 80 web.default.svc.cluster.local.",
            ),
            ("_http._tcp.web.default.svc", T::A, ""),
            ("_nope._tcp.web.default.svc", T::SRV, "NXDOMAIN"),
            ("db.default.svc", T::A, "10.42.0.5, 10.42.0.6"),
            ("db-0.db.default.svc", T::A, "10.42.0.5"),
            ("10-42-0-6.db.default.svc", T::A, "10.42.0.6"),
            ("10-42-0-9.db.default.svc", T::A, "NXDOMAIN"),
            (
                "_sql._tcp.db.default.svc",
                T::SRV,
                "0 50 5432 db-0.db.default.svc.cluster.local., 0 50 5432 10-42-0-6.db.default.svc.cluster.local.",
            ),
            ("out.default.svc", T::A, "-> example.net."),
            ("none.default.svc", T::A, "NXDOMAIN"),
            ("default.svc", T::A, ""),
            ("nowhere.svc", T::A, "NXDOMAIN"),
            ("10-42-0-77.default.pod", T::A, "10.42.0.77"),
            ("10-42-0-77.nowhere.pod", T::A, "NXDOMAIN"),
            ("words.default.pod", T::A, "NXDOMAIN"),
            ("dns-version", T::TXT, "1.1.0"),
            ("nonsense", T::A, "NXDOMAIN"),
        ] {
            assert_eq!(ask(&index, name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn addresses_have_names_until_their_service_goes() {
        let index = index();
        assert_eq!(
            index.names_of("10.43.0.7".parse().unwrap()),
            ["web.default.svc"]
        );
        assert_eq!(
            index.names_of("10.42.0.5".parse().unwrap()),
            ["db-0.db.default.svc"]
        );
        let gone = serde_json::json!({"metadata": {"name": "db", "namespace": "default"}});
        index.delete_service(&serde_json::from_value(gone).unwrap());
        assert!(index.names_of("10.42.0.5".parse().unwrap()).is_empty());
        assert_eq!(ask(&index, "db.default.svc", RecordType::A), "NXDOMAIN");
    }
}
