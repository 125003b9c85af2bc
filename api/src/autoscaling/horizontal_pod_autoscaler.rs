//! HorizontalPodAutoscaler.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for HorizontalPodAutoscaler {
    const SHAPE: Shape<Self> = shape!(status);
}
