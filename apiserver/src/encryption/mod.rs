//! Encryption at rest: between the watch caches and the store, so that the caches hold objects
//! as they are and the store holds what upstream would have written.
//!
//! Enter at [`EncryptedStore`], a [`coracle_store::Store`] around another. What is encrypted with
//! which keys is an upstream EncryptionConfiguration, read by [`Rules::parse`]; without one, an
//! embedded store uses a key of its own ([`OwnKeys`]). [`Control`] is what
//! `coracle secrets-encrypt` asks.

mod configuration;
mod control;
mod own_keys;
mod providers;
mod rules;
mod store;
#[cfg(test)]
mod tests;

pub use configuration::ConfigurationError;
pub use control::{Control, ControlError, REENCRYPT_PATH, ROTATE_PATH, STATUS_PATH};
pub use own_keys::{OwnKeys, OwnKeysError};
pub use rules::Rules;
pub use store::EncryptedStore;

/// What encrypted values start with.
pub(crate) const MARK: &[u8] = b"k8s:enc:";
