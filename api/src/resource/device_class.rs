//! DeviceClass.

use k8s_openapi::api::resource::v1::DeviceClass;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for DeviceClass {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
