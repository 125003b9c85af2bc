//! Namespace.

use k8s_openapi::api::core::v1::Namespace;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Namespace {
    const SHAPE: Shape<Self> = shape!(status);
}
