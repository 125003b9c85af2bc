//! IngressClass.

use k8s_openapi::api::networking::v1::IngressClass;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for IngressClass {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
