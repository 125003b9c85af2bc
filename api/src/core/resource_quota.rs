//! ResourceQuota.

use k8s_openapi::api::core::v1::ResourceQuota;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for ResourceQuota {
    const SHAPE: Shape<Self> = shape!(status);
}
