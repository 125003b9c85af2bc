//! `admissionregistration.k8s.io`: one file per kind, one line per kind in [`kinds`].

mod columns;
mod defaults;
mod expressions;
mod mutating_admission_policy;
mod mutating_admission_policy_binding;
mod mutating_webhook_configuration;
mod policy_validation;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
pub(crate) mod validation;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        ValidatingWebhookConfiguration,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{kinds::Kind, zero::text};

/// What the group serves.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::cluster::<MutatingAdmissionPolicy>("mutatingadmissionpolicy")
            .categories(&["api-extensions"])
            .no_unconditional_update(),
        Kind::cluster::<MutatingAdmissionPolicyBinding>("mutatingadmissionpolicybinding")
            .categories(&["api-extensions"])
            .no_unconditional_update(),
        Kind::cluster::<MutatingWebhookConfiguration>("mutatingwebhookconfiguration")
            .categories(&["api-extensions"])
            .no_unconditional_update(),
        Kind::cluster::<ValidatingAdmissionPolicy>("validatingadmissionpolicy")
            .categories(&["api-extensions"])
            .no_unconditional_update()
            .status(),
        Kind::cluster::<ValidatingAdmissionPolicyBinding>("validatingadmissionpolicybinding")
            .categories(&["api-extensions"])
            .no_unconditional_update(),
        Kind::cluster::<ValidatingWebhookConfiguration>("validatingwebhookconfiguration")
            .categories(&["api-extensions"])
            .no_unconditional_update(),
    ]
}

/// What upstream says about names that only files of its own manifests may have.
fn reserved_name_warnings(metadata: &ObjectMeta) -> Vec<String> {
    const SUFFIX: &str = ".static.k8s.io";
    if !text(&metadata.name).ends_with(SUFFIX) {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: names ending with {SUFFIX:?} are reserved for static manifest-based \
         configurations and cannot be managed via the API"
    )]
}
