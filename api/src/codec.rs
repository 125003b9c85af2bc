//! The encodings of objects beside JSON.

pub mod protobuf;
pub mod stored;
