//! CertificateSigningRequest.

use jiff::{Span, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, human_duration, name},
    zero::text,
};

impl Behaviour for CertificateSigningRequest {
    const SHAPE: Shape<Self> = shape!(status);

    const SELECTABLE_FIELDS: &'static [&'static str] = &["spec.signerName"];

    fn selectable_fields(&self) -> Vec<String> {
        vec![self.spec.signer_name.clone()]
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

fn condition(request: &CertificateSigningRequest) -> String {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let has = |kind: &str| {
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == kind)
    };
    let decision = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let is_issued = status
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|certificate| !certificate.0.is_empty());
    let issued = if is_issued { ",Issued" } else { "" };
    format!("{decision}{failed}{issued}")
}
