//! PodTemplate.

use k8s_openapi::api::core::v1::PodTemplate;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for PodTemplate {
    const SHAPE: Shape<Self> = shape!(generation: template);
}
