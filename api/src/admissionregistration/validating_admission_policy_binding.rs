//! ValidatingAdmissionPolicyBinding.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for ValidatingAdmissionPolicyBinding {
    const SHAPE: Shape<Self> = shape!(generation: spec);
}
