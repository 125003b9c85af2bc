//! MutatingAdmissionPolicy.

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for MutatingAdmissionPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
