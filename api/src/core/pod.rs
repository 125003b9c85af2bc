//! Pod.

use k8s_openapi::api::core::v1::Pod;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Pod {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
