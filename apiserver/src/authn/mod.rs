//! Who sent a request.
//!
//! Enter at [`Authenticator`], the seam, and [`Requests`], the union of everything that knows
//! users: client certificates, front proxies, tokens of service accounts, of a file, of OpenID
//! Connect issuers and of bootstrapping nodes, and, where nobody says who they are, anonymity. Requests that carry an
//! [`Identity`] as an extension come from this process and are not asked about.

mod bearer;
mod bootstrap_tokens;
mod certificates;
mod front_proxy;
pub mod impersonation;
pub mod oidc;
mod requests;
pub mod reviews;
pub mod service_accounts;
mod static_tokens;
pub mod token_request;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use coracle_api::Identity;
use http::request::Parts;

pub use bearer::{AudienceAgnostic, TokenAuthenticator, TokenUser, Tokens};
pub use bootstrap_tokens::BootstrapTokens;
pub use certificates::CertificateUsers;
pub use front_proxy::FrontProxy;
pub use requests::Requests;
pub use static_tokens::{StaticTokens, StaticTokensError};

/// What a user's `extra` says of the credential that was used.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
pub const ANONYMOUS: &str = "system:anonymous";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// Why credentials were refused. The client is only told "Unauthorized".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);

impl From<crate::ApiError> for AuthenticationError {
    fn from(error: crate::ApiError) -> Self {
        AuthenticationError(error.to_string())
    }
}

/// Finds out who sent a request from its certificate, token or headers.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The user, or `None` when the request has no credentials that this authenticator knows.
    /// A request that nobody knows is refused.
    ///
    /// # Errors
    /// The request has credentials, and they are not valid.
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identity>, AuthenticationError>;
}

/// Takes every request for one of an administrator. For tests.
pub struct TrustEveryone;

#[async_trait]
impl Authenticator for TrustEveryone {
    async fn authenticate(
        &self,
        _request: &Parts,
    ) -> Result<Option<Identity>, AuthenticationError> {
        Ok(Some(Identity {
            user: "system:admin".to_owned(),
            groups: vec![MASTERS.to_owned()],
            ..Identity::default()
        }))
    }
}
