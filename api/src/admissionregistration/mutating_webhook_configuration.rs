//! MutatingWebhookConfiguration.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for MutatingWebhookConfiguration {
    const SHAPE: Shape<Self> = shape!(generation: webhooks);
}
