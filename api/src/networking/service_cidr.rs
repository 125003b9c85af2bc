//! ServiceCIDR.

use k8s_openapi::api::networking::v1::ServiceCIDR;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for ServiceCIDR {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);
}
