//! CSIDriver.

use k8s_openapi::api::storage::v1::CSIDriver;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for CSIDriver {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
