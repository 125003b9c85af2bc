//! An APIService for every group and version that this server serves itself, as upstream's: made at
//! start where it is missing, and said to be available.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use coracle_api::Kind;
use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Per group: its version, and where group and version stand in discovery. Upstream's figures
/// (`pkg/controlplane/apiserver/aggregator.go` and `pkg/controlplane/instance.go`).
const PRIORITIES: &[(&str, &str, i32, i32)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 21),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    // Upstream leaves it to an add-on, whose manifest says this.
    ("metrics.k8s.io", "v1beta1", 100, 100),
];

/// Registers the groups and versions of `served`, but for the registry of APIServices itself.
///
/// # Errors
/// The API's.
pub async fn register(client: &Client, served: &[Arc<Kind>]) -> anyhow::Result<()> {
    let versions: BTreeSet<(&str, &str)> = served
        .iter()
        .map(|kind| (kind.group.as_str(), kind.version.as_str()))
        .collect();
    let api: Api<APIService> = Api::all(client.clone());
    for &(group, version, group_priority, version_priority) in PRIORITIES {
        if !versions.contains(&(group, version)) {
            continue;
        }
        let name = format!("{version}.{group}");
        let service = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            },
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": group_priority,
                "versionPriority": version_priority,
            },
        }))?;
        match api.create(&PostParams::default(), &service).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => continue,
            other => other.with_context(|| format!("cannot create APIService {name}"))?,
        };
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(available()))
            .await
            .with_context(|| format!("cannot say that APIService {name} is available"))?;
    }
    Ok(())
}

fn available() -> Value {
    json!({"status": {"conditions": [{
        "type": "Available",
        "status": "True",
        "reason": "Local",
        "message": "Local APIServices are always available",
        "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()),
    }]}})
}

#[cfg(test)]
mod tests {
    use coracle_api::{kinds, metrics};

    use super::*;

    #[test]
    fn every_served_version_is_known() {
        let registered = |kind: &Kind| {
            PRIORITIES
                .iter()
                .any(|(group, version, ..)| (*group, *version) == (&*kind.group, &*kind.version))
        };
        let metrics = metrics::kinds();
        let served = kinds::builtin().iter().chain(&metrics);
        let unknown: BTreeSet<String> = served
            .filter(|kind| kind.group != "apiregistration.k8s.io" && !registered(kind))
            .map(|kind| kind.api_version())
            .collect();
        assert_eq!(unknown, BTreeSet::new());
    }
}
