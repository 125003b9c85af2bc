//! A pod's host name and its `/etc/hosts`.

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use kube::ResourceExt as _;

use coracle_api::names;

use super::spec::{is_host_network, spec};

/// The longest host name that the kernel takes.
const MAX_LENGTH: usize = 63;

/// How a pod calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname {
    pub name: String,
    /// For example `web.default.svc.cluster.local`; may be empty.
    pub domain: String,
}

impl Hostname {
    /// # Errors
    /// In upstream's words, for names that are none.
    pub fn of(pod: &Pod, cluster_domain: &str) -> Result<Self, String> {
        let spec = spec(pod);
        let check =
            |what: &str, name: &str, rule: &str, errors: Vec<String>| match errors.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "pod {what} {name:?} is not a valid {rule}: {}",
                    errors.join(";")
                )),
            };
        if let Some(name) = &spec.hostname_override {
            let errors = names::dns1123_subdomain(name);
            check("HostnameOverride", name, "DNS subdomain", errors)?;
            return Ok(Hostname {
                name: truncated(pod, name)?,
                domain: String::new(),
            });
        }
        let own = spec.hostname.as_deref().filter(|name| !name.is_empty());
        if let Some(name) = own {
            check("Hostname", name, "DNS label", names::dns1123_label(name))?;
        }
        let name = truncated(pod, own.unwrap_or(&pod.name_any()))?;
        let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
        let domain = match subdomain {
            None => String::new(),
            Some(subdomain) => {
                let errors = names::dns1123_label(subdomain);
                check("Subdomain", subdomain, "DNS label", errors)?;
                let namespace = pod.namespace().unwrap_or_default();
                format!("{subdomain}.{namespace}.svc.{cluster_domain}")
            }
        };
        Ok(Hostname { name, domain })
    }

    /// What the kernel in the pod is told.
    ///
    /// # Errors
    /// When the pod wants its full name there and the kernel does not take one as long.
    pub fn for_kernel(&self, pod: &Pod) -> Result<String, String> {
        if spec(pod).set_hostname_as_fqdn != Some(true) || self.domain.is_empty() {
            return Ok(self.name.clone());
        }
        let full = format!("{}.{}", self.name, self.domain);
        if full.len() > 64 {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is \
                 too long (64 characters is the max, {} characters requested)",
                full.len()
            ));
        }
        Ok(full)
    }
}

fn truncated(pod: &Pod, name: &str) -> Result<String, String> {
    if name.len() <= MAX_LENGTH {
        return Ok(name.to_owned());
    }
    let cut = &name[..name.floor_char_boundary(MAX_LENGTH)];
    match cut.trim_end_matches(['-', '.']) {
        "" => Err(format!(
            "hostname for pod {:?} was invalid: {name:?}",
            pod.name_any()
        )),
        cut => Ok(cut.to_owned()),
    }
}

/// The content of the pod's `/etc/hosts`; `node` is the host's own.
pub fn hosts_file(pod: &Pod, ips: &[String], hostname: &Hostname, node: &str) -> String {
    let aliases = spec(pod).host_aliases.as_deref().unwrap_or_default();
    let mut file = if is_host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{node}")
    } else {
        let mut file = "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n"
            .to_owned();
        let Hostname { name, domain } = hostname;
        for ip in ips {
            file.push_str(&match domain.as_str() {
                "" => format!("{ip}\t{name}\n"),
                domain => format!("{ip}\t{name}.{domain}\t{name}\n"),
            });
        }
        file
    };
    file.push_str(&entries(aliases));
    file
}

fn entries(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut entries = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        entries.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": "u"}});
        pod["spec"] = spec;
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn names_follow_the_specification() {
        let long = "a".repeat(62) + "-b";
        let cases = [
            (pod("web", json!({"containers": []})), "web", ""),
            (
                pod(
                    "web",
                    json!({"containers": [], "hostname": "h", "subdomain": "s"}),
                ),
                "h",
                "s.n.svc.cluster.local",
            ),
            (pod(&long, json!({"containers": []})), &long[..62], ""),
        ];
        for (pod, name, domain) in cases {
            let hostname = Hostname::of(&pod, "cluster.local").expect("it is valid");
            assert_eq!(
                (hostname.name.as_str(), hostname.domain.as_str()),
                (name, domain)
            );
        }
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let pod = pod(
            "web",
            json!({
                "containers": [], "subdomain": "s",
                "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}],
            }),
        );
        let hostname = Hostname::of(&pod, "c").expect("it is valid");
        let file = hosts_file(&pod, &["10.0.0.1".to_owned()], &hostname, "");
        assert!(file.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(file.ends_with(
            "10.0.0.1\tweb.s.n.svc.c\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\tx\ty\n"
        ));
    }
}
