//! What pods and their claims tell of each other, and the claim that a template makes.

use k8s_openapi::{
    api::{
        core::v1::{Pod, PodResourceClaim},
        resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::ResourceExt as _;

use crate::{owner, pods};

/// Which of the pod's claims a generated one is.
pub(super) const POD_CLAIM: &str = "resource.kubernetes.io/pod-claim-name";
/// Leaves room for a hyphen and five random characters in a name of 63.
const LONGEST_BASE: usize = 57;

pub(super) fn pod_claims(pod: &Pod) -> &[PodResourceClaim] {
    let claims = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.resource_claims.as_deref());
    claims.unwrap_or_default()
}

/// What the pod's claim is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Called<'a> {
    Name(&'a str),
    /// It was found that the pod needs none.
    NotNeeded,
    /// Nobody has made it yet.
    NotMade,
}

pub(super) fn called<'a>(pod: &'a Pod, claim: &'a PodResourceClaim) -> Called<'a> {
    if let Some(name) = &claim.resource_claim_name {
        return Called::Name(name);
    }
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.resource_claim_statuses.as_ref());
    let mut statuses = statuses.into_iter().flatten();
    match statuses.find(|status| status.name == claim.name) {
        None => Called::NotMade,
        Some(status) => match &status.resource_claim_name {
            Some(name) => Called::Name(name),
            None => Called::NotNeeded,
        },
    }
}

/// The names of the claims that the pod uses, also of the one that the scheduler made for it.
pub(crate) fn names(pod: &Pod) -> Vec<&str> {
    let extended = pod
        .status
        .as_ref()
        .and_then(|status| status.extended_resource_claim_status.as_ref());
    let named = pod_claims(pod)
        .iter()
        .filter_map(|claim| match called(pod, claim) {
            Called::Name(name) => Some(name),
            _ => None,
        });
    named
        .chain(extended.map(|status| status.resource_claim_name.as_str()))
        .collect()
}

/// Whether the pod has ended, or goes without ever having had a node.
pub(super) fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || pods::is_terminating(pod) && pods::node_name(pod).is_empty()
}

pub(super) fn is_of(claim: &ResourceClaim, pod: &Pod) -> bool {
    owner::is_controlled_by(&claim.metadata, &pod.metadata)
}

pub(crate) fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    let status = claim.status.as_ref();
    let consumers = status.and_then(|status| status.reserved_for.as_deref());
    consumers.unwrap_or_default()
}

pub(super) fn is_allocated(claim: &ResourceClaim) -> bool {
    let status = claim.status.as_ref();
    status.is_some_and(|status| status.allocation.is_some())
}

pub(crate) fn is_pod(consumer: &ResourceClaimConsumerReference) -> bool {
    consumer.resource == "pods" && consumer.api_group.as_deref().unwrap_or_default().is_empty()
}

/// What the name of a claim begins with. When it is too long, both parts are cut in proportion.
fn base_of_name(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= LONGEST_BASE {
        return whole;
    }
    let cut = |part: &str| part[..part.len() * LONGEST_BASE / whole.len()].to_owned();
    format!("{}-{}", cut(pod), cut(claim))
}

pub(super) fn from_template(
    pod: &Pod,
    claim: &PodResourceClaim,
    template: &ResourceClaimTemplate,
) -> ResourceClaim {
    let meta = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM.to_owned(), claim.name.clone());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base_of_name(&pod.name_any(), &claim.name)),
            namespace: pod.metadata.namespace.clone(),
            annotations: Some(annotations),
            labels: meta.labels,
            owner_references: Some(vec![OwnerReference {
                // As upstream's: the pod does not wait for its claim.
                block_owner_deletion: None,
                ..owner::controller_reference(pod)
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    #[test]
    fn a_claim_has_the_name_that_spec_or_status_tell() {
        let pod = pod(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "resourceClaims": [
                {"name": "own", "resourceClaimName": "shared"},
                {"name": "made", "resourceClaimTemplateName": "t"},
                {"name": "not-needed", "resourceClaimTemplateName": "t"},
                {"name": "not-made", "resourceClaimTemplateName": "t"},
            ]},
            "status": {
                "resourceClaimStatuses": [
                    {"name": "made", "resourceClaimName": "p-made-x"},
                    {"name": "not-needed"},
                ],
                "extendedResourceClaimStatus": {
                    "resourceClaimName": "extended",
                    "requestMappings": [],
                },
            },
        }));
        let found: Vec<_> = pod_claims(&pod)
            .iter()
            .map(|claim| called(&pod, claim))
            .collect();
        let wanted = [
            Called::Name("shared"),
            Called::Name("p-made-x"),
            Called::NotNeeded,
            Called::NotMade,
        ];
        assert_eq!(found, wanted);
        assert_eq!(names(&pod), ["shared", "p-made-x", "extended"]);
    }

    #[test]
    fn long_names_are_cut_in_proportion() {
        assert_eq!(base_of_name("pod", "claim"), "pod-claim-");
        let cut = base_of_name(&"p".repeat(90), &"c".repeat(30));
        assert_eq!(cut, format!("{}-{}", "p".repeat(42), "c".repeat(14)));
        assert!(cut.len() <= LONGEST_BASE);
    }

    #[test]
    fn a_pod_is_done_when_it_has_ended_or_never_gets_a_node() {
        let cases = [
            (json!({"status": {"phase": "Running"}}), false),
            (json!({"status": {"phase": "Succeeded"}}), true),
            (json!({"status": {"phase": "Failed"}}), true),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                true,
            ),
            (
                json!({
                    "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
                    "spec": {"containers": [], "nodeName": "n"},
                }),
                false,
            ),
        ];
        for (value, done) in cases {
            assert_eq!(is_done(&pod(value.clone())), done, "{value}");
        }
    }

    #[test]
    fn a_claim_from_a_template_belongs_to_the_pod() {
        let pod = pod(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}));
        let wanted = PodResourceClaim {
            name: "gpu".to_owned(),
            resource_claim_template_name: Some("t".to_owned()),
            ..PodResourceClaim::default()
        };
        let template: ResourceClaimTemplate = serde_json::from_value(json!({
            "metadata": {"name": "t"},
            "spec": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"devices": {"requests": [
                    {"name": "r", "exactly": {"deviceClassName": "gpu"}}
                ]}},
            },
        }))
        .expect("a template");
        let claim = from_template(&pod, &wanted, &template);
        assert!(is_of(&claim, &pod));
        assert_eq!(claim.annotations()[POD_CLAIM], "gpu");
        assert_eq!(claim.labels()["a"], "b");
        assert_eq!(claim.spec, template.spec.spec);
    }
}
