//! PersistentVolumeClaim.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for PersistentVolumeClaim {
    const SHAPE: Shape<Self> = shape!(status);
}
