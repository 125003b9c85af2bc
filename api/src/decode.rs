//! From JSON to typed objects, as upstream's decoder reads them.
//!
//! Enter at [`from_slice`] and [`from_value`]. What is unknown or given twice is collected with
//! its path, so that the caller can warn or refuse (`fieldValidation`). What Go does not tell
//! apart is made one: an empty list or map is absent, and so is a zero value unless upstream has a
//! pointer there; an object that upstream always encodes is there, be it empty; quantities and
//! times are put in canonical form. Errors have Go's words, because clients show them.

pub mod go;
mod members;
mod names;
mod node;
mod path;
mod typed;

use std::{borrow::Cow, cell::RefCell};

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::{
    node::Node,
    path::Path,
    typed::{Failure, Typed},
};
use crate::{schema, strategy::DecodeError};

/// Upstream's decoder reports no more problems than this.
const MAX_PROBLEMS: usize = 100;

/// What is known while one object is decoded.
#[derive(Default)]
struct Context {
    problems: RefCell<Vec<String>>,
}

impl Context {
    fn report(&self, problem: impl FnOnce() -> String) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            let problem = problem();
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
}

/// Reads a typed object.
///
/// `problems` takes what strict decoding would refuse, in the order of the document:
/// `unknown field "spec.foo"`, `duplicate field "spec.replicas"`. An unknown field is left out;
/// of a duplicate one the last value counts.
///
/// # Errors
/// When it is no JSON, or a field has a value of another type.
pub fn from_slice<T: DeserializeOwned>(
    json: &[u8],
    problems: &mut Vec<String>,
) -> Result<T, DecodeError> {
    let json = as_text(json);
    let node: Node<'_> = serde_json::from_str(&json).map_err(|error| {
        let why = go::syntax_error(json.as_bytes());
        DecodeError::Other(why.unwrap_or_else(|| error.to_string()))
    })?;
    typed(node, problems)
}

/// The text, in which what is no UTF-8 is replaced, as Go does.
pub fn as_text(json: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(json)
}

/// Reads a typed object from JSON that was parsed before. See [`from_slice`].
pub fn from_value<T: DeserializeOwned>(
    value: &Value,
    problems: &mut Vec<String>,
) -> Result<T, DecodeError> {
    typed(Node::from(value), problems)
}

/// Reads JSON of no known type and notes what is given twice.
pub fn untyped(json: &[u8], problems: &mut Vec<String>) -> Result<Value, DecodeError> {
    from_slice(json, problems)
}

/// What an empty JSON object decodes to: the type's zero value as upstream would encode it.
///
/// # Panics
/// When the type cannot be made from an empty object; every type of the API can.
pub fn empty<T: DeserializeOwned>() -> T {
    typed(Node::Object(Vec::new()), &mut Vec::new())
        .unwrap_or_else(|error| panic!("{}: {error}", std::any::type_name::<T>()))
}

fn typed<T: DeserializeOwned>(
    node: Node<'_>,
    problems: &mut Vec<String>,
) -> Result<T, DecodeError> {
    let context = Context::default();
    let result = T::deserialize(Typed::root(
        node,
        &Path::Root,
        &context,
        schema::of_rust_type::<T>(),
    ));
    problems.append(&mut context.problems.into_inner());
    result.map_err(|failure| match failure {
        Failure::Mismatch(mismatch) => DecodeError::Mismatch(mismatch),
        Failure::Other(message) => DecodeError::Other(message),
    })
}

#[cfg(test)]
mod tests;
