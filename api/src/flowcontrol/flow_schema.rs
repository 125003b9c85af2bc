//! FlowSchema.

use k8s_openapi::api::flowcontrol::v1::FlowSchema;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for FlowSchema {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::Keep);
}
