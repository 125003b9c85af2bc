//! The API server: HTTP, verbs, watch, authentication, authorization, admission.
//!
//! Enter at [`ApiServer`]: `Registry::new(store, kinds)` → `ApiServer::new(config, registry,
//! plugins)` → `run(shutdown)`. It is a `tower` service that the HTTPS listener and the clients
//! in this process call alike. What happens to a request is written down in
//! [`ApiServer::handle`]; where its data comes from, in [`cache`].

pub mod admission;
pub mod audit;
pub mod authn;
pub mod authz;
mod body;
pub mod cache;
mod component_status;
mod config;
mod decode;
pub mod encryption;
pub mod error;
pub mod flow;
pub mod handler;
mod lister;
mod lookup;
pub mod metrics;
pub mod node_proxy;
pub mod openapi;
mod options;
mod ownership;
mod paths;
pub mod pki;
mod query;
pub mod registry;
pub mod request_info;
pub mod resource_metrics;
mod respond;
pub mod selector;
mod server;
mod services;
pub mod standard;
mod strategy;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod verbs;
mod websocket;
mod yaml;

pub use config::Config;
pub use error::ApiError;
pub use lister::{Lister, Shared};
pub use lookup::Lookup;
pub use paths::{Health, Probe};
pub use registry::Registry;
pub use request_info::RequestInfo;
pub use server::{ApiServer, Context, Plugins, forbidden};
