//! The API server: HTTP, verbs, watch, authentication, authorization, admission.

pub mod admission;
pub mod authn;
pub mod authz;
pub mod error;
pub mod pki;
mod query;
pub mod request_info;

pub use error::ApiError;
pub use request_info::RequestInfo;
