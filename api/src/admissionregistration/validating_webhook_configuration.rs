//! ValidatingWebhookConfiguration.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};

impl Behaviour for ValidatingWebhookConfiguration {
    const SHAPE: Shape<Self> = shape!(generation: webhooks);
}
