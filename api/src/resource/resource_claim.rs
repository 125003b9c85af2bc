//! ResourceClaim.

use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for ResourceClaim {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);
}
