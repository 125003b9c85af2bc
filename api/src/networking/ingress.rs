//! Ingress.

use k8s_openapi::api::networking::v1::Ingress;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Ingress {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
