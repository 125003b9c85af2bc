//! PodDisruptionBudget.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for PodDisruptionBudget {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
