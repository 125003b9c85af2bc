//! CronJob.

use k8s_openapi::api::batch::v1::CronJob;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for CronJob {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
