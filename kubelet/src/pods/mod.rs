//! The pods of the node.

pub mod actions;
pub mod admission;
mod backoff;
pub mod container;
pub mod credentials;
pub mod dns;
pub mod env;
pub mod errors;
mod hooks;
pub mod hostname;
pub mod image_name;
pub mod images;
pub mod inbox;
pub mod labels;
pub mod last_words;
pub mod manager;
mod observe;
pub mod observed;
pub mod probe_results;
pub mod reporter;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod services;
pub mod spec;
pub mod status;
mod worker;
