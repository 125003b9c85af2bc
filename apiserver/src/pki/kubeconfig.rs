//! Kubeconfig files: how a client finds the API server and says who it is.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{Pair, PkiError, files};

/// What a kubeconfig says. Cluster, user and context are called `default`, as in k3s.
pub struct Kubeconfig<'a> {
    /// For example `https://127.0.0.1:6443`.
    pub server: &'a str,
    pub server_ca_pem: &'a str,
    pub client: &'a Pair,
}

/// Writes the file, readable by its owner only, replacing it whole.
pub fn write_kubeconfig(path: &Path, kubeconfig: &Kubeconfig<'_>) -> Result<(), PkiError> {
    let file_error = |source| PkiError::File {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(file_error)?;
    }
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": {
            "server": kubeconfig.server,
            "certificate-authority-data": STANDARD.encode(kubeconfig.server_ca_pem),
        }}],
        "users": [{"name": "default", "user": {
            "client-certificate-data": STANDARD.encode(&kubeconfig.client.certificate_pem),
            "client-key-data": STANDARD.encode(&kubeconfig.client.key_pem),
        }}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "current-context": "default",
        "preferences": {},
    });
    let yaml = serde_yaml_ng::to_string(&content).expect("a JSON value is valid YAML");
    files::write(path, yaml.as_bytes()).map_err(file_error)
}
