//! ReplicationController.

use k8s_openapi::api::core::v1::ReplicationController;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for ReplicationController {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
