//! Service.

use k8s_openapi::api::core::v1::Service;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Service {
    const SHAPE: Shape<Self> = shape!(status);
}
