//! CustomResourceDefinition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for CustomResourceDefinition {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::Keep);
}
