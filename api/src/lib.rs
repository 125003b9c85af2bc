//! What an object is: the table of kinds, and per kind its defaults, validation, update
//! strategy, selectable fields and columns.
//!
//! Enter at [`kinds::builtin`], the table, and [`Strategy`], what differs between kinds.
//! Nothing here does any input or output.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
pub mod certificates;
mod coordination;
pub mod core;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;

pub mod apply;
pub mod check;
pub mod claims;
pub mod codec;
pub mod cron;
pub mod decode;
pub mod duration;
pub mod expression;
pub mod field;
pub mod formats;
mod go_print;
mod identity;
mod internal;
pub mod kinds;
pub mod meta;
pub mod metrics;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod published;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod strategy;
pub mod table;
#[cfg(test)]
mod testing;
pub mod zero;

pub use identity::Identity;
pub use kinds::{Kind, Verb};
pub use object::Object;
pub use strategy::{Strategy, Subresource};

/// The version of Kubernetes that this is, with ours behind it.
pub const VERSION: &str = "v1.36.2+coracle1";
