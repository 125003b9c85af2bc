//! The encodings of objects beside JSON.

pub mod protobuf;
