//! ResourceSlice.

use k8s_openapi::api::resource::v1::ResourceSlice;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for ResourceSlice {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
