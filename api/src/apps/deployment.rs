//! Deployment.

use k8s_openapi::api::apps::v1::Deployment;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for Deployment {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::KeepLabels);
}
