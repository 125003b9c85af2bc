//! The OpenID Connect documents by which others can verify service-account tokens.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::json;

use super::ServiceAccounts;
use crate::{
    error::ApiError,
    handler::{PathCall, PathHandler},
};

const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
const KEYS_PATH: &str = "/openid/v1/jwks";

/// One of the documents.
pub struct Discovery {
    accounts: Arc<ServiceAccounts>,
    document: Document,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Document {
    Configuration,
    Keys,
}

impl Discovery {
    /// Every document, by its path.
    pub fn documents(accounts: &Arc<ServiceAccounts>) -> [(&'static str, Arc<dyn PathHandler>); 2] {
        [
            (CONFIGURATION_PATH, Document::Configuration),
            (KEYS_PATH, Document::Keys),
        ]
        .map(|(path, document)| {
            let accounts = accounts.clone();
            let handler = Discovery { accounts, document };
            (path, Arc::new(handler) as Arc<dyn PathHandler>)
        })
    }
}

#[async_trait]
impl PathHandler for Discovery {
    async fn handle(&self, call: PathCall<'_>) -> Result<Response<Body>, ApiError> {
        if call.context.parts.method != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        Ok(answer(&self.accounts, self.document))
    }
}

fn answer(accounts: &ServiceAccounts, document: Document) -> Response<Body> {
    let address = accounts.external_address();
    let keys = accounts.verifying_keys();
    let (content_type, json) = match document {
        Document::Configuration => {
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
        Document::Keys => {
            let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
            ("application/jwk-set+json", json!({ "keys": keys }))
        }
    };
    let mut response = Response::new(Body::from(json.to_string()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    response
}
