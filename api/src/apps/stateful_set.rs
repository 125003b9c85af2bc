//! StatefulSet.

use k8s_openapi::api::apps::v1::StatefulSet;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for StatefulSet {
    const SHAPE: Shape<Self> = shape!(generation: spec, status);
}
