//! Node.

use k8s_openapi::api::core::v1::Node;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for Node {
    const SHAPE: Shape<Self> = shape!(status);
}
