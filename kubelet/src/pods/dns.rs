//! The resolver configuration of a pod (pkg/kubelet/network/dns of upstream).

use std::net::IpAddr;

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};
use kube::ResourceExt as _;

use super::spec::{describe, is_host_network, spec};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;
const MAX_DOMAIN_LENGTH: usize = 253;

/// The cluster's DNS.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// An event that the configuration gives reason to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub reason: &'static str,
    pub message: String,
}

/// Reads a resolver configuration file.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                config.searches = words
                    .filter(|domain| *domain != ".")
                    .map(|domain| domain.trim_end_matches('.').to_owned())
                    .collect();
            }
            Some("options") => {
                for option in words {
                    set_option(&mut config.options, option.to_owned());
                }
            }
            _ => {}
        }
    }
    config
}

fn set_option(options: &mut Vec<String>, option: String) {
    fn name(option: &str) -> &str {
        option.split(':').next().unwrap_or_default()
    }
    match options
        .iter_mut()
        .find(|known| name(known) == name(&option))
    {
        Some(known) => *known = option,
        None => options.push(option),
    }
}

/// The configuration of a pod on a host that has `host`'s, and what to warn of.
pub fn for_pod(pod: &Pod, host: DnsConfig, cluster: &Cluster) -> (DnsConfig, Vec<Warning>) {
    let mut warnings = Vec::new();
    let mut config = host;
    let policy = spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let by_cluster = match policy {
        "None" => {
            config = DnsConfig::default();
            false
        }
        "Default" => false,
        "ClusterFirst" => !is_host_network(pod),
        _ => true,
    };
    if by_cluster && cluster.servers.is_empty() {
        warnings.push(Warning {
            reason: "MissingClusterDNS",
            message: format!(
                "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod \
                 using \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
                describe(pod)
            ),
        });
    } else if by_cluster {
        config.servers = cluster.servers.iter().map(IpAddr::to_string).collect();
        config.searches = searches(pod, &cluster.domain, config.searches);
        config.options = vec!["ndots:5".to_owned()];
    }
    if let Some(own) = &spec(pod).dns_config {
        append(&mut config, own);
    }
    fit(&mut config, &mut warnings);
    (config, warnings)
}

fn searches(pod: &Pod, domain: &str, host: Vec<String>) -> Vec<String> {
    if domain.is_empty() {
        return host;
    }
    let namespace = pod.namespace().unwrap_or_default();
    let cluster = [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.to_owned(),
    ];
    unique(cluster.into_iter().chain(host))
}

fn unique(items: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut unique = Vec::new();
    for item in items {
        if !unique.contains(&item) {
            unique.push(item);
        }
    }
    unique
}

fn append(config: &mut DnsConfig, own: &PodDNSConfig) {
    let more = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let servers = std::mem::take(&mut config.servers);
    config.servers = unique(servers.into_iter().chain(more(&own.nameservers)));
    let searches = std::mem::take(&mut config.searches);
    config.searches = unique(searches.into_iter().chain(more(&own.searches)));
    for option in own.options.iter().flatten() {
        let name = option.name.clone().unwrap_or_default();
        set_option(
            &mut config.options,
            match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            },
        );
    }
}

/// Cuts off what resolvers do not take.
fn fit(config: &mut DnsConfig, warnings: &mut Vec<Warning>) {
    if config.servers.len() > MAX_NAMESERVERS {
        config.servers.truncate(MAX_NAMESERVERS);
        warnings.push(Warning {
            reason: "DNSConfigForming",
            message: format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the \
                 applied nameserver line is: {}",
                config.servers.join(" ")
            ),
        });
    }
    let before = config.searches.len();
    config.searches.truncate(MAX_SEARCH_PATHS);
    config
        .searches
        .retain(|domain| domain.len() <= MAX_DOMAIN_LENGTH);
    while config.searches.join(" ").len() > MAX_SEARCH_LENGTH {
        config.searches.pop();
    }
    if config.searches.len() < before {
        warnings.push(Warning {
            reason: "DNSConfigForming",
            message: format!(
                "Search Line limits were exceeded, some search paths have been omitted, the \
                 applied search line is: {}",
                config.searches.join(" ")
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn dns(spec: Value) -> (DnsConfig, Vec<Warning>) {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        pod["spec"] = spec;
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let host = parse(
            "# a comment\nnameserver 9.9.9.9\nsearch a.example. b.example\noptions ndots:2 rotate\n",
        );
        let cluster = Cluster {
            servers: vec!["10.43.0.10".parse().expect("an address")],
            domain: "cluster.local".to_owned(),
        };
        for_pod(&pod, host, &cluster)
    }

    #[test]
    fn policies_choose_between_cluster_and_host() {
        let cluster = [
            "n.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "a.example",
            "b.example",
        ];
        let host = ["a.example", "b.example"];
        let cases: [(Value, &str, &[&str]); 5] = [
            (json!({}), "10.43.0.10", &cluster),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                "9.9.9.9",
                &host,
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                "10.43.0.10",
                &cluster,
            ),
            (json!({"dnsPolicy": "Default"}), "9.9.9.9", &host),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"]}}),
                "1.1.1.1",
                &["x"],
            ),
        ];
        for (mut spec, server, searches) in cases {
            spec["containers"] = json!([]);
            let (config, warnings) = dns(spec.clone());
            assert_eq!(config.servers, [server], "{spec}");
            assert_eq!(config.searches, searches, "{spec}");
            assert!(warnings.is_empty());
        }
    }

    #[test]
    fn the_pods_own_options_win_and_limits_are_told_of() {
        let (config, warnings) = dns(json!({
            "containers": [],
            "dnsConfig": {
                "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
            },
        }));
        assert_eq!(config.options, ["ndots:2", "edns0"]);
        assert_eq!(config.servers, ["10.43.0.10", "1.1.1.1", "2.2.2.2"]);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0]
                .message
                .ends_with("line is: 10.43.0.10 1.1.1.1 2.2.2.2")
        );
    }
}
