//! PersistentVolume.

use k8s_openapi::api::core::v1::PersistentVolume;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for PersistentVolume {
    const SHAPE: Shape<Self> = shape!(status);
}
