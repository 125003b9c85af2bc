//! PriorityLevelConfiguration.

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for PriorityLevelConfiguration {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::Keep);
}
