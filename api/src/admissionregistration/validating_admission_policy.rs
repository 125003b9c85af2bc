//! ValidatingAdmissionPolicy.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};

impl Behaviour for ValidatingAdmissionPolicy {
    const SHAPE: Shape<Self> = shape!(generation: spec, status, StatusMeta::Keep);
}
