//! The cluster's certificates: made at first start, kept in files, renewed before they expire.
//!
//! Enter at [`Pki::open`]. Authorities are separate, as in k3s: one for what serves, one for
//! clients, one for the aggregation layer's front proxy. Certificates are made again whenever
//! their names, their subject or their authority no longer fit.

mod authority;
mod files;
mod kubeconfig;
pub mod shared;

use std::path::{Path, PathBuf};

pub use authority::Authority;
pub use kubeconfig::{Kubeconfig, write_kubeconfig};

/// A certificate with less than this many days left is renewed. It has 365 when it is made.
pub const RENEWAL_DAYS: i64 = 120;

/// Why the certificates are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot access {}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is damaged: {reason}; restore it, or remove it together with its key to have a new one made", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("{} is missing, but its certificate is there: restore it, or remove the certificate to have a new authority made", path.display())]
    KeyMissing { path: PathBuf },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl PkiError {
    fn invalid(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        PkiError::Invalid {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSpec {
    pub common_name: String,
    /// A group, for clients. May be empty.
    pub organization: String,
    /// Host names and addresses, for servers.
    pub names: Vec<String>,
    pub usage: Usage,
}

/// A certificate and its private key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// What the certificates depend on.
#[derive(Clone, Debug)]
pub struct Names {
    pub node_name: String,
    /// Every name and address under which clients reach the API server, beside the standard ones.
    pub api_names: Vec<String>,
    /// Addresses of the node.
    pub node_addresses: Vec<String>,
    /// The first address of the service range, which is the `kubernetes` Service's.
    pub service_address: String,
    /// For example `cluster.local`.
    pub cluster_domain: String,
}

/// The authorities and certificates of one cluster.
pub struct Pki {
    dir: PathBuf,
    names: Names,
    /// Signs what serves: API server and kubelets.
    pub server_ca: Authority,
    /// Signs clients.
    pub client_ca: Authority,
    /// Signs the front proxy of the aggregation layer.
    pub request_header_ca: Authority,
    /// Signs service-account tokens: an ECDSA P-256 key, as PKCS#8 PEM.
    pub service_account_key_pem: String,
    pub leaves: Leaves,
}

/// The certificates in use.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaves {
    /// What the API server presents.
    pub api_server: Pair,
    /// With which the API server speaks to kubelets.
    pub api_server_kubelet_client: Pair,
    /// `system:masters`, for the administrator's kubeconfig.
    pub admin: Pair,
    /// What the kubelet presents.
    pub kubelet_server: Pair,
    /// `system:node:NAME`
    pub kubelet_client: Pair,
    /// With which the API server speaks to aggregated API servers.
    pub front_proxy_client: Pair,
}

impl Pki {
    /// Loads the certificates from a folder, making those that are missing or no longer fit.
    ///
    /// # Errors
    /// When a file cannot be accessed, or an authority's is damaged.
    pub fn open(dir: &Path, names: Names) -> Result<Self, PkiError> {
        std::fs::create_dir_all(dir).map_err(|source| PkiError::File {
            path: dir.to_owned(),
            source,
        })?;
        let server_ca = Authority::open(dir, "server-ca")?;
        let client_ca = Authority::open(dir, "client-ca")?;
        let request_header_ca = Authority::open(dir, "request-header-ca")?;
        let service_account_key_pem = service_account_key(dir)?;
        let folder = Folder { dir };
        let leaves = folder.leaves(&names, &server_ca, &client_ca, &request_header_ca)?;
        Ok(Pki {
            dir: dir.to_owned(),
            names,
            server_ca,
            client_ca,
            request_header_ca,
            service_account_key_pem,
            leaves,
        })
    }

    /// Renews what has less than [`RENEWAL_DAYS`] left. True when anything was renewed.
    pub fn renew(&mut self) -> Result<bool, PkiError> {
        let folder = Folder { dir: &self.dir };
        let leaves = folder.leaves(
            &self.names,
            &self.server_ca,
            &self.client_ca,
            &self.request_header_ca,
        )?;
        let renewed = leaves != self.leaves;
        self.leaves = leaves;
        Ok(renewed)
    }
}

struct Folder<'a> {
    dir: &'a Path,
}

impl Folder<'_> {
    fn leaves(
        &self,
        names: &Names,
        server_ca: &Authority,
        client_ca: &Authority,
        request_header_ca: &Authority,
    ) -> Result<Leaves, PkiError> {
        let client = |common_name: &str, organization: &str| LeafSpec {
            common_name: common_name.to_owned(),
            organization: organization.to_owned(),
            names: Vec::new(),
            usage: Usage::Client,
        };
        let server = |common_name: &str, organization: &str, names: Vec<String>| LeafSpec {
            common_name: common_name.to_owned(),
            organization: organization.to_owned(),
            names,
            usage: Usage::Server,
        };
        let node = format!("system:node:{}", names.node_name);
        let mut node_names = vec![
            names.node_name.clone(),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
        ];
        node_names.extend(names.node_addresses.iter().cloned());
        unique(&mut node_names);
        Ok(Leaves {
            api_server: self.leaf(
                "serving-kube-apiserver",
                server_ca,
                &server("kube-apiserver", "", api_server_names(names)),
            )?,
            api_server_kubelet_client: self.leaf(
                "client-kube-apiserver",
                client_ca,
                &client(
                    "kube-apiserver-kubelet-client",
                    "system:kubelet-api-clients",
                ),
            )?,
            admin: self.leaf(
                "client-admin",
                client_ca,
                &client("system:admin", "system:masters"),
            )?,
            kubelet_server: self.leaf(
                "serving-kubelet",
                server_ca,
                &server(&node, "system:nodes", node_names),
            )?,
            kubelet_client: self.leaf(
                "client-kubelet",
                client_ca,
                &client(&node, "system:nodes"),
            )?,
            front_proxy_client: self.leaf(
                "client-front-proxy",
                request_header_ca,
                &client("front-proxy-client", ""),
            )?,
        })
    }

    fn leaf(&self, name: &str, authority: &Authority, spec: &LeafSpec) -> Result<Pair, PkiError> {
        let path = self.dir.join(format!("{name}.crt"));
        let key_path = self.dir.join(format!("{name}.key"));
        let read = |path: &Path| {
            files::read(path).map_err(|source| PkiError::File {
                path: path.to_owned(),
                source,
            })
        };
        if let (Some(certificate_pem), Some(key_pem)) = (read(&path)?, read(&key_path)?) {
            let pair = Pair {
                certificate_pem,
                key_pem,
            };
            if authority.vouches_for(&pair, spec, RENEWAL_DAYS) {
                return Ok(pair);
            }
        }
        let pair = authority.issue(spec)?;
        for (path, content) in [(&key_path, &pair.key_pem), (&path, &pair.certificate_pem)] {
            files::write(path, content.as_bytes()).map_err(|source| PkiError::File {
                path: path.clone(),
                source,
            })?;
        }
        Ok(pair)
    }
}

/// The names that upstream's API server has, and those that were asked for.
fn api_server_names(names: &Names) -> Vec<String> {
    let mut all: Vec<String> = vec![
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{}", names.cluster_domain),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        names.service_address.clone(),
        names.node_name.clone(),
    ];
    all.extend(names.node_addresses.iter().cloned());
    all.extend(names.api_names.iter().cloned());
    unique(&mut all);
    all
}

fn unique(names: &mut Vec<String>) {
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
}

fn service_account_key(dir: &Path) -> Result<String, PkiError> {
    let path = dir.join("service.key");
    let file_error = |source| PkiError::File {
        path: path.clone(),
        source,
    };
    if let Some(pem) = files::read(&path).map_err(file_error)? {
        rcgen::KeyPair::from_pem(&pem).map_err(|error| PkiError::invalid(&path, &error))?;
        return Ok(pem);
    }
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?.serialize_pem();
    files::write(&path, pem.as_bytes()).map_err(file_error)?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            node_name: "edge-1".to_owned(),
            api_names: vec!["edge.example.net".to_owned()],
            node_addresses: vec!["192.0.2.7".to_owned()],
            service_address: "10.43.0.1".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    #[test]
    fn what_was_made_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path(), names()).unwrap();
        let second = Pki::open(dir.path(), names()).unwrap();
        assert!(first.leaves == second.leaves);
        assert_eq!(
            first.server_ca.certificate_pem(),
            second.server_ca.certificate_pem()
        );
        assert_eq!(
            first.service_account_key_pem,
            second.service_account_key_pem
        );
        use std::os::unix::fs::PermissionsExt as _;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn certificates_follow_their_names_and_survive_damage() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path(), names()).unwrap();
        let mut renamed = names();
        renamed.api_names.push("another.example.net".to_owned());
        let second = Pki::open(dir.path(), renamed.clone()).unwrap();
        assert!(first.leaves.api_server != second.leaves.api_server);
        assert!(first.leaves.admin == second.leaves.admin);

        std::fs::write(dir.path().join("client-admin.crt"), "half a fi").unwrap();
        let third = Pki::open(dir.path(), renamed.clone()).unwrap();
        assert!(third.leaves.admin != second.leaves.admin);

        std::fs::write(dir.path().join("server-ca.crt"), "half a fi").unwrap();
        let error = Pki::open(dir.path(), renamed).err().unwrap().to_string();
        assert!(error.contains("server-ca.crt is damaged"), "{error}");
    }

    #[test]
    fn a_certificate_is_renewed_before_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), names()).unwrap();
        let spec = LeafSpec {
            common_name: "system:admin".to_owned(),
            organization: "system:masters".to_owned(),
            names: Vec::new(),
            usage: Usage::Client,
        };
        assert!(pki.client_ca.vouches_for(&pki.leaves.admin, &spec, 360));
        assert!(!pki.client_ca.vouches_for(&pki.leaves.admin, &spec, 366));
        assert!(
            !pki.server_ca.vouches_for(&pki.leaves.admin, &spec, 1),
            "another authority's"
        );
    }
}
