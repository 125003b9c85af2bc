//! CertificateSigningRequest. Who asks is filled in by admission, which knows the user.

use jiff::{Span, Timestamp};
use k8s_openapi::{
    api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::validation::{self, Writes};
use crate::{
    field::ErrorList,
    shape,
    strategy::{Behaviour, Column, Shape, Subresource},
    table::{AGE, NAME, age, column, human_duration, name},
    zero::text,
};

impl Behaviour for CertificateSigningRequest {
    const SHAPE: Shape<Self> = shape!(status);

    const SELECTABLE_FIELDS: &'static [&'static str] = &["spec.signerName"];

    fn selectable_fields(&self) -> Vec<String> {
        vec![self.spec.signer_name.clone()]
    }

    fn prepare_for_update(&mut self, old: &Self) {
        self.spec = old.spec.clone();
    }

    fn prepare_for_subresource(&mut self, old: &Self, subresource: Subresource) {
        self.spec = old.spec.clone();
        if subresource == Subresource::Status {
            keep_decisions(self, old);
            date_conditions(self, old);
            return;
        }
        date_conditions(self, old);
        let conditions = self.status.take().and_then(|status| status.conditions);
        self.status.clone_from(&old.status);
        self.status.get_or_insert_default().conditions = conditions;
    }

    fn validate(&self) -> ErrorList {
        validation::of_new(self)
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        validation::of_change(self, old, Writes::Metadata)
    }

    fn validate_subresource(&self, old: &Self, subresource: Subresource) -> ErrorList {
        let writes = match subresource {
            Subresource::Status => Writes::Certificate,
            _ => Writes::Decision,
        };
        validation::of_change(self, old, writes)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            AGE,
            column(
                "SignerName",
                "string",
                "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
            ),
            column("Requestor", "string", "Base64-encoded PKCS#10 CSR data"),
            column(
                "RequestedDuration",
                "string",
                "expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer may issue a certificate with a different validity duration so a client must check the delta between the notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds is 600, i.e. 10 minutes.",
            ),
            column(
                "Condition",
                "string",
                "Conditions applied to the request, such as approval or denial.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let signer = match self.spec.signer_name.as_str() {
            "" => "<none>",
            signer => signer,
        };
        let duration = self.spec.expiration_seconds.map_or_else(
            || "<none>".to_owned(),
            |seconds| human_duration(Span::new().seconds(seconds)),
        );
        vec![
            name(&self.metadata),
            age(&self.metadata, now),
            Value::from(signer),
            Value::from(text(&self.spec.username)),
            Value::from(duration),
            Value::from(condition(self)),
        ]
    }
}

pub(super) fn conditions(request: &CertificateSigningRequest) -> &[Condition] {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default()
}

fn conditions_mut(request: &mut CertificateSigningRequest) -> &mut [Condition] {
    let status = request.status.as_mut();
    let conditions = status.and_then(|status| status.conditions.as_deref_mut());
    conditions.unwrap_or_default()
}

/// Who writes the status writes no approval or denial: those that are there stay as they are.
fn keep_decisions(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    for kind in ["Approved", "Denied"] {
        let of_kind = |condition: &&Condition| condition.type_ == kind;
        let kept: Vec<&Condition> = conditions(old).iter().filter(of_kind).collect();
        if conditions(new).iter().filter(of_kind).count() != kept.len() {
            // Validation says so.
            continue;
        }
        let given = conditions_mut(new).iter_mut();
        let given = given.filter(|condition| condition.type_ == kind);
        for (given, kept) in given.zip(kept) {
            given.clone_from(kept);
        }
    }
}

/// Gives conditions without times those of now, or of the same condition before.
fn date_conditions(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    let now = Timestamp::now();
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    for condition in conditions_mut(new) {
        if condition.last_update_time.is_none() {
            condition.last_update_time = Some(now.clone());
        }
        if condition.last_transition_time.is_none() {
            let before = conditions(old).iter().find(|before| {
                before.type_ == condition.type_
                    && before.status == condition.status
                    && before.last_transition_time.is_some()
            });
            let before = before.and_then(|before| before.last_transition_time.clone());
            condition.last_transition_time = before.or_else(|| Some(now.clone()));
        }
    }
}

fn condition(request: &CertificateSigningRequest) -> String {
    let has = |kind: &str| {
        let mut conditions = conditions(request).iter();
        conditions.any(|condition| condition.type_ == kind)
    };
    let decision = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let is_issued = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|certificate| !certificate.0.is_empty());
    let issued = if is_issued { ",Issued" } else { "" };
    format!("{decision}{failed}{issued}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let yaml = include_str!("../../testdata/certificate_signing_request.yaml");
        crate::testing::run::<CertificateSigningRequest>(yaml);
    }
}
