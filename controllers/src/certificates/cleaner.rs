//! Certificate signing requests that nobody needs any more go: an hour after they were answered, or
//! a day after nobody has.
//!
//! Enter at [`run`]. Upstream: `pkg/controller/certificates/cleaner`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{ResourceExt as _, api::DeleteParams};
use tokio_util::sync::CancellationToken;

use crate::{
    Context, Error,
    changes::{self, Pace},
    objects::Objects,
    work::{Done, Key},
};

const NAME: &str = "certificatesigningrequest-cleaner-controller";
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Runs the cleaner.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let requests: Objects<CertificateSigningRequest> = context.objects();
    let pace = Pace {
        name: NAME,
        queue: "certificate",
        workers: 1,
    };
    let sync = |key| sync(&requests, key);
    changes::follow(pace, &requests.cache, &shutdown, changes::applied, sync).await;
    Ok(())
}

async fn sync(requests: &Objects<CertificateSigningRequest>, key: Key) -> Result<Done, Error> {
    let Some(request) = requests.get("", &key.name) else {
        return Ok(Done::Settled);
    };
    let Some(end) = end(&request) else {
        return Ok(Done::Settled);
    };
    let left = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
    if !left.is_zero() {
        return Ok(Done::Again(left));
    }
    requests.delete(&request, DeleteParams::default()).await?;
    Ok(Done::Settled)
}

/// When the request goes.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let answers = conditions
        .unwrap_or_default()
        .iter()
        .filter(|condition| matches!(condition.type_.as_str(), "Approved" | "Denied" | "Failed"));
    let answered = answers.clone().filter_map(|condition| {
        let at = condition.last_update_time.as_ref()?.0;
        at.checked_add(ANSWERED).ok()
    });
    let created = request.creation_timestamp()?.0;
    // A request that is approved and has no certificate yet is still to be answered.
    let waiting = answers
        .clone()
        .all(|condition| condition.type_ == "Approved")
        && status.is_none_or(|status| status.certificate.is_none());
    if waiting {
        return created.checked_add(PENDING).ok();
    }
    answered.min()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_go_when_nobody_needs_them() {
        let of = |conditions: &[&str], certificate: Value| {
            let conditions: Vec<_> = conditions
                .iter()
                .map(|type_| {
                    json!({ "type": type_, "status": "True",
                        "lastUpdateTime": "2026-01-01T05:00:00Z" })
                })
                .collect();
            let request = serde_json::from_value(json!({
                "metadata": { "name": "r", "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "request": "", "signerName": "example.com/s" },
                "status": { "conditions": conditions, "certificate": certificate },
            }));
            end(&request.expect("a request")).map(|end| end.to_string())
        };
        let pending = Some("2026-01-02T00:00:00Z".to_owned());
        let answered = Some("2026-01-01T06:00:00Z".to_owned());
        assert_eq!(of(&[], Value::Null), pending);
        assert_eq!(of(&["Approved"], Value::Null), pending);
        assert_eq!(of(&["Approved"], json!("Y2VydA==")), answered);
        assert_eq!(of(&["Denied"], Value::Null), answered);
        assert_eq!(of(&["Approved", "Failed"], Value::Null), answered);
    }
}
