//! Fields that are absent or hold a zero value, which upstream mostly does not tell apart.
//!
//! Decoding makes an empty list and the zero value of a plain field absent (see
//! [`crate::decode`]); what stays is one `Option` around everything that upstream may omit, which
//! these functions look through.

use std::collections::BTreeMap;

/// A type with a zero value in upstream's encoding.
pub trait Zero {
    fn is_zero(&self) -> bool;
}

impl Zero for bool {
    fn is_zero(&self) -> bool {
        !self
    }
}

impl Zero for i32 {
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Zero for i64 {
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Zero for String {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Zero for Vec<T> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Zero for BTreeMap<K, V> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

/// Makes a field that holds the zero value absent.
pub fn drop_zero<T: Zero>(field: &mut Option<T>) {
    if field.as_ref().is_some_and(Zero::is_zero) {
        *field = None;
    }
}

/// A list that may be absent, as a slice.
pub(crate) fn list<T>(field: &Option<Vec<T>>) -> &[T] {
    field.as_deref().unwrap_or_default()
}

/// A list that may be absent, for changing its items.
pub(crate) fn list_mut<T>(field: &mut Option<Vec<T>>) -> &mut [T] {
    field.as_deref_mut().unwrap_or_default()
}

/// A string that may be absent; absent is empty.
pub(crate) fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// Sets a string that is absent or empty.
pub(crate) fn default_text(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Sets a number that is absent or zero.
pub(crate) fn default_number<T: Zero>(field: &mut Option<T>, value: T) {
    if field.as_ref().is_none_or(Zero::is_zero) {
        *field = Some(value);
    }
}
