//! APIService.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for APIService {
    const SHAPE: Shape<Self> = shape!(status);
}
