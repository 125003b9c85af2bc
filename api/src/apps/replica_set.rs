//! ReplicaSet.

use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for ReplicaSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
