//! NetworkPolicy.

use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for NetworkPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
