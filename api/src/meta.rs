//! The rules for `metadata` that hold for every kind, and for what many kinds embed: label
//! selectors, conditions and the options of requests.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`,
//! `pkg/apis/meta/v1/validation`, and `k8s.io/apiserver/pkg/registry/rest`.

mod kinds;
mod options;
mod validate;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use kinds::{validate_changed, validate_created};
pub use options::{
    validate_create_options, validate_delete_options, validate_field_manager,
    validate_forced_delete_options, validate_patch_options,
};
pub use validate::{
    validate, validate_annotations, validate_conditions, validate_finalizer, validate_label_name,
    validate_label_selector, validate_labels, validate_update,
};

/// What upstream says of a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// The most bytes that all annotations of an object may have, keys and values together.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 << 10;

/// Keeps what no update may change, before the update is validated.
pub fn prepare_for_update(new: &mut ObjectMeta, old: &ObjectMeta) {
    if new.uid.as_deref().unwrap_or("").is_empty() {
        new.uid.clone_from(&old.uid);
    }
    if old.creation_timestamp.is_some() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if old.deletion_grace_period_seconds.is_some() && new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
}

/// A name made from `metadata.generateName`. `random` are any bytes.
///
/// The alphabet has no vowels and nothing that looks like something else, as upstream's.
pub fn generate_name(prefix: &str, random: [u8; 5]) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const MAX_PREFIX: usize = crate::names::LABEL_MAX_LENGTH - 5;
    let mut end = prefix.len().min(MAX_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    name.extend(
        random
            .iter()
            .map(|&byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])),
    );
    name
}
