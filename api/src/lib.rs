//! What an object is: the table of kinds, and per kind its defaults, validation, update
//! strategy, selectable fields and columns.
//!
//! Enter at [`kinds::builtin`], the table, and [`Strategy`], what differs between kinds.
//! Nothing here does any input or output.

pub mod field;
mod identity;
pub mod kinds;
pub mod object;
pub mod strategy;

pub use identity::Identity;
pub use kinds::{Kind, Verb};
pub use object::Object;
pub use strategy::{Strategy, Subresource};
