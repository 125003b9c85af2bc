//! Who owns which field of an object, and server-side apply.
//!
//! Enter at [`Writer`]: [`Writer::update`] for every write of an object, [`Writer::apply`] for an
//! apply. The rest are their parts: [`Set`], which fields; [`Model`], what the schema says of a
//! value; [`compare`], what differs between two objects; [`merge`] and [`remove_items`].
//!
//! Behaves as `structured-merge-diff` and `apimachinery/pkg/util/managedfields`. Pure: objects
//! are JSON values, times and conversions between versions come from the caller.

mod applier;
mod element;
mod fields;
mod filter;
mod merge;
mod model;
mod owners;
mod reconcile;
mod remove;
mod set;
#[cfg(test)]
mod tests;
mod update;
mod validate;

pub use applier::{Applied, ApplyError, Conflict, conflicts_without, still_as_applied};
pub use element::{ElementError, PathElement};
pub use fields::{Comparison, compare, fields_of};
pub use filter::Filter;
pub use merge::merge;
pub use model::{ItemError, Model};
pub use owners::{
    MAX_UPDATE_MANAGERS, Manager, Operation, Owned, Owners, OwnersError, decode, encode, is_reset,
    same_but_for_times,
};
pub use reconcile::{reconcile, with_named_fields};
pub use remove::{extract_items, remove_items};
pub use set::{Node, Set, SetError, ShowPath};
pub use update::{UpdateError, Versions, Writer};
pub use validate::{Duplicates, Problem, Problems, validate};
