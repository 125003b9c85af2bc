//! DaemonSet.

use k8s_openapi::api::apps::v1::DaemonSet;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for DaemonSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
