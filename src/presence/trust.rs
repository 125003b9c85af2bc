//! `kube-system/extension-apiserver-authentication`: what an extension API server, or any component
//! that lets the API server authenticate for it, needs to know its callers. Keys and form are
//! upstream's; what other servers have put there stays.

use anyhow::Context as _;
use coracle_client::ensure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::json;
use x509_parser::pem::Pem;

const NAMESPACE: &str = "kube-system";
pub const NAME: &str = "extension-apiserver-authentication";
const CLIENT_CA: &str = "client-ca-file";
const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";
const FRONT_PROXY_NAMES: &str = "requestheader-allowed-names";

/// Selects the one ConfigMap.
pub fn field_selector() -> String {
    format!("metadata.namespace={NAMESPACE},metadata.name={NAME}")
}

/// Whom this API server believes.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Signs clients, as PEM.
    pub client_ca: String,
    /// Signs front proxies, as PEM.
    pub front_proxy_ca: String,
    /// The common names that a front proxy may have.
    pub front_proxies: Vec<String>,
}

impl Trust {
    /// Says so.
    pub async fn ensure(&self, client: &Client) -> anyhow::Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let failed = || format!("cannot publish {NAMESPACE}/{NAME}");
        let found = api.get_opt(NAME).await.with_context(failed)?;
        let wanted = self.config_map(&found.unwrap_or_default())?;
        ensure(client, NAMESPACE, &wanted)
            .await
            .with_context(failed)
    }

    fn config_map(&self, found: &ConfigMap) -> anyhow::Result<ConfigMap> {
        let of = |key: &str| {
            let data = found.data.as_ref();
            data.and_then(|data| data.get(key))
                .map_or("", String::as_str)
        };
        let mut names: Vec<String> =
            serde_json::from_str(of(FRONT_PROXY_NAMES)).unwrap_or_default();
        for name in &self.front_proxies {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Ok(serde_json::from_value(json!({
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {
                CLIENT_CA: with_certificates(of(CLIENT_CA), &self.client_ca),
                FRONT_PROXY_CA: with_certificates(of(FRONT_PROXY_CA), &self.front_proxy_ca),
                FRONT_PROXY_NAMES: serde_json::to_string(&names)?,
                "requestheader-username-headers": r#"["X-Remote-User"]"#,
                "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
                "requestheader-group-headers": r#"["X-Remote-Group"]"#,
                "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            },
        }))?)
    }
}

/// The certificates of `bundle` that have not expired, and `own` if it is not one of them. Their
/// order stays, or servers would put it right in turns.
fn with_certificates(bundle: &str, own: &str) -> String {
    let certificates = bundle.split_inclusive("-----END CERTIFICATE-----\n");
    let mut kept: String = certificates.filter(|text| is_valid(text)).collect();
    if !kept.contains(own) {
        kept.push_str(own);
    }
    kept
}

fn is_valid(text: &str) -> bool {
    let Some(Ok(pem)) = Pem::iter_from_buffer(text.as_bytes()).next() else {
        return false;
    };
    pem.parse_x509()
        .is_ok_and(|certificate| certificate.validity().is_valid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        params
            .self_signed(&key)
            .unwrap()
            .pem()
            .replace("\r\n", "\n")
    }

    #[test]
    fn authorities_of_other_servers_stay_until_they_expire() {
        let (other, expired, own) = (certificate(4000), certificate(2020), certificate(4000));
        let bundle = format!("{other}{expired}rubbish");
        let once = with_certificates(&bundle, &own);
        assert_eq!(once, format!("{other}{own}"));
        assert_eq!(with_certificates(&once, &own), once);
        assert_eq!(with_certificates(&once, &other), once);
        assert_eq!(with_certificates("", &own), own);
    }

    #[test]
    fn names_are_added_to_those_found() {
        let trust = Trust {
            client_ca: certificate(4000),
            front_proxy_ca: certificate(4000),
            front_proxies: vec!["front-proxy-client".to_owned()],
        };
        let found = serde_json::from_value(json!({"data": {FRONT_PROXY_NAMES: r#"["a"]"#}}));
        let data = trust.config_map(&found.unwrap()).unwrap().data.unwrap();
        assert_eq!(data[FRONT_PROXY_NAMES], r#"["a","front-proxy-client"]"#);
        assert_eq!(data[CLIENT_CA], trust.client_ca);
    }
}
