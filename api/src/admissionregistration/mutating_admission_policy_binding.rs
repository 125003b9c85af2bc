//! MutatingAdmissionPolicyBinding.

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for MutatingAdmissionPolicyBinding {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
