//! CertificateSigningRequest.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for CertificateSigningRequest {
    const SHAPE: Shape<Self> = shape!(status);
}
