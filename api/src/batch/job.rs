//! Job.

use k8s_openapi::api::batch::v1::Job;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Job {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
