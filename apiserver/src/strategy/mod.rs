//! What happens to every object around its kind's own strategy: system metadata, generic
//! validation, generation, deletion.
//!
//! Pure functions; the verbs do the reading and writing around them.

mod delete;

use bytes::Bytes;
use coracle_api::{Kind, Object, Subresource, field::ErrorList, meta};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::{admission::Warnings, cache::Entry, error::ApiError, registry::Resource};

pub use delete::{Deletion, check_preconditions, plan_deletion, ready_to_go};

/// This second, as stored times have no fractions.
pub fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Drops what a client may not choose when it creates an object.
pub fn wipe_system_fields(meta: &mut ObjectMeta) {
    meta.creation_timestamp = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.uid = None;
    meta.self_link = None;
}

/// Makes the object's namespace that of the URL.
///
/// # Errors
/// It names another one.
pub fn match_namespace(
    meta: &mut ObjectMeta,
    namespaced: bool,
    namespace: &str,
) -> Result<(), ApiError> {
    if !namespaced {
        meta.namespace = None;
        return Ok(());
    }
    match meta.namespace.as_deref() {
        None | Some("") => meta.namespace = Some(namespace.to_owned()),
        Some(given) if given == namespace => {}
        Some(_) => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Fills in system metadata and lets the kind drop what clients may not set. `generate`: the
/// name is made from `generateName`, anew at each call.
pub fn prepare_for_create(kind: &Kind, object: &mut dyn Object, generate: bool) {
    let meta = object.meta_mut();
    meta.resource_version = None;
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.creation_timestamp = Some(now());
    if generate {
        meta.name = meta.generate_name.as_deref().map(generate_name);
    }
    meta.generation = None;
    kind.strategy.prepare_for_create(object);
    if kind.strategy.generation_changed(object, object).is_some() {
        object.meta_mut().generation = Some(1);
    }
}

/// Checks a new object, metadata first, and collects the kind's warnings.
pub fn validate_create(
    kind: &Kind,
    object: &dyn Object,
    warnings: &Warnings,
) -> Result<(), ApiError> {
    let mut errors = meta::validate_created(kind, object.meta());
    errors.extend(kind.strategy.validate_create(object));
    let expressions = kind.strategy.expressions(object);
    errors.extend(coracle_cel::check(&expressions, &[]));
    fail_if_any(kind, object, &errors)?;
    for warning in kind.strategy.warnings(object, None, None) {
        warnings.add(warning);
    }
    Ok(())
}

/// Keeps what an update may not change, and raises the generation when the kind says so.
pub fn prepare_for_update(
    kind: &Kind,
    new: &mut dyn Object,
    old: &dyn Object,
    subresource: Option<Subresource>,
) {
    new.meta_mut().generation = old.meta().generation;
    kind.strategy.prepare_for_update(new, old, subresource);
    let changed = kind.strategy.generation_changed(new, old);
    let meta = new.meta_mut();
    let old = old.meta();
    meta.generation = match changed {
        // A status tells of a generation; it never makes one, whatever metadata comes with it.
        Some(true) if subresource != Some(Subresource::Status) => {
            Some(old.generation.unwrap_or(0) + 1)
        }
        Some(_) => old.generation,
        // The kind has none, or counts on its own.
        None => meta.generation,
    };
    meta::prepare_for_update(meta, old);
    meta.self_link.clone_from(&old.self_link);
}

/// Checks a changed object and the change, and collects the kind's warnings.
pub fn validate_update(
    kind: &Kind,
    new: &dyn Object,
    old: &dyn Object,
    subresource: Option<Subresource>,
    warnings: &Warnings,
) -> Result<(), ApiError> {
    let mut errors = meta::validate_changed(kind, new.meta(), old.meta(), subresource);
    errors.extend(kind.strategy.validate_update(new, old, subresource));
    if subresource.is_none() {
        let (new, old) = (
            kind.strategy.expressions(new),
            kind.strategy.expressions(old),
        );
        errors.extend(coracle_cel::check(&new, &old));
    }
    fail_if_any(kind, new, &errors)?;
    for warning in kind.strategy.warnings(new, Some(old), subresource) {
        warnings.add(warning);
    }
    Ok(())
}

fn fail_if_any(kind: &Kind, object: &dyn Object, errors: &ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object.meta().name.as_deref().unwrap_or_default();
    // Upstream names the kind that it stores.
    let (group, _, stored) = kind.stored_as();
    Err(ApiError::invalid(group, stored, name, errors))
}

/// The object as it is stored: without resourceVersion, in the stored version.
pub fn to_bytes(resource: &Resource, object: &dyn Object) -> Bytes {
    let versioned = object.meta().resource_version.is_some();
    match resource.conversion {
        Some(conversion) => stored_bytes(resource, conversion.to_stored(object)),
        None if versioned => stored_bytes(resource, object.clone_object()),
        None => {
            let mut bytes = Vec::with_capacity(1024);
            object.write_json(&mut bytes);
            expect(resource, exact(bytes), object)
        }
    }
}

/// Whether the object, as it would be stored, is what is stored. It comes back as it was.
pub fn is_stored_as(resource: &Resource, object: &mut dyn Object, entry: &Entry) -> bool {
    let version = object.meta_mut().resource_version.take();
    let mut bytes = Vec::with_capacity(entry.stored().len());
    match resource.conversion {
        Some(conversion) => conversion.to_stored(object).write_json(&mut bytes),
        None => object.write_json(&mut bytes),
    }
    object.meta_mut().resource_version = version;
    entry.is_stored_as(&bytes)
}

/// [`to_bytes`] of an object that is no longer needed.
pub fn into_bytes(resource: &Resource, object: Box<dyn Object>) -> Bytes {
    match resource.conversion {
        Some(conversion) => stored_bytes(resource, conversion.to_stored(&*object)),
        None => stored_bytes(resource, object),
    }
}

fn stored_bytes(resource: &Resource, mut object: Box<dyn Object>) -> Bytes {
    object.meta_mut().resource_version = None;
    let mut bytes = Vec::with_capacity(1024);
    object.write_json(&mut bytes);
    expect(resource, exact(bytes), &*object)
}

/// Without spare capacity, which the store and the watch cache would keep as long as the object.
fn exact(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

fn expect(resource: &Resource, bytes: Bytes, stored: &dyn Object) -> Bytes {
    if let Some(cache) = &resource.cache {
        cache.expect(&bytes, stored);
    }
    bytes
}

/// Drops owners that are named twice, as upstream does, and says so.
pub fn drop_duplicate_owners(meta: &mut ObjectMeta, admitted: bool, warnings: &Warnings) {
    let Some(owners) = &mut meta.owner_references else {
        return;
    };
    let mut seen: Vec<OwnerReference> = Vec::with_capacity(owners.len());
    let mut twice: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if seen.contains(&owner) {
            if !twice.contains(&owner.uid) {
                twice.push(owner.uid);
            }
        } else {
            seen.push(owner);
        }
    }
    *owners = seen;
    if !twice.is_empty() {
        let when = if admitted {
            " after mutating admission happens"
        } else {
            ""
        };
        warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        ));
    }
}

/// A name that begins with `prefix`, another one at each call.
fn generate_name(prefix: &str) -> String {
    let mut random = [0_u8; 5];
    // The system's generator does not fail once it is seeded; zeros would only collide.
    let _ = SystemRandom::new().fill(&mut random);
    meta::generate_name(prefix, random)
}
