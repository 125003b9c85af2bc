//! The OpenID Connect documents by which others can verify service-account tokens.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::ServiceAccounts;

const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
const KEYS_PATH: &str = "/openid/v1/jwks";

/// Which document a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    Configuration,
    Keys,
}

impl Discovery {
    pub fn at(path: &str) -> Option<Self> {
        match path {
            CONFIGURATION_PATH => Some(Discovery::Configuration),
            KEYS_PATH => Some(Discovery::Keys),
            _ => None,
        }
    }
}

/// Answers with a document. `address` is where this server is reached from outside, as
/// `host:port`.
pub fn discovery(
    accounts: &ServiceAccounts,
    document: Discovery,
    address: &str,
) -> Response<Body> {
    let keys = accounts.verifying_keys();
    let (content_type, json) = match document {
        Discovery::Configuration => {
            let mut algorithms: Vec<_> = keys.iter().map(|key| key.algorithm()).collect();
            algorithms.sort_unstable();
            algorithms.dedup();
            let configuration = json!({
                "issuer": accounts.issuer(),
                "jwks_uri": format!("https://{address}{KEYS_PATH}"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": algorithms,
            });
            ("application/json", configuration)
        }
        Discovery::Keys => {
            let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
            ("application/jwk-set+json", json!({ "keys": keys }))
        }
    };
    let mut response = Response::new(Body::from(json.to_string()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    response
}
