//! The pods of a stateful set: each has a number, a name, and claims of its own.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{
            PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
        },
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource, ResourceExt as _};

use crate::{history::POD_LABEL, owner, pods};

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The claims there are, by name.
pub(super) type Claims = BTreeMap<String, Arc<PersistentVolumeClaim>>;

/// The name of the set that a name of this form belongs to, and the number.
pub(super) fn parse_name(name: &str) -> Option<(&str, i32)> {
    let (set, ordinal) = name.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| ordinal.parse().ok().map(|ordinal| (set, ordinal)))?
}

/// The pod's number, if its name is one that the set gives.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, ordinal) = parse_name(pod.metadata.name.as_deref()?)?;
    (set.metadata.name.as_deref() == Some(parent)).then_some(ordinal)
}

pub(super) fn replicas(set: &StatefulSet) -> i32 {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
    replicas.unwrap_or(1)
}

pub(super) fn start(set: &StatefulSet) -> i32 {
    let spec = set.spec.as_ref();
    let ordinals = spec.and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// Whether the set, in its present size, has a pod of this number.
pub(super) fn in_range(set: &StatefulSet, ordinal: i32) -> bool {
    let number = i64::from(ordinal) - i64::from(start(set));
    (0..i64::from(replicas(set))).contains(&number)
}

pub(super) fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(POD_LABEL))
        .map_or("", String::as_str)
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| spec.volume_claim_templates.as_deref())
        .unwrap_or_default()
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    let template = template.metadata.name.as_deref().unwrap_or_default();
    let set = set.metadata.name.as_deref().unwrap_or_default();
    format!("{template}-{set}-{ordinal}")
}

/// The names of the claims that the pod of this number has.
pub(super) fn claim_names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = String> {
    let templates = templates(set).iter();
    templates.map(move |template| claim_name(set, template, ordinal))
}

/// The claims of the pod of this number, as they are created.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    let selected = selector.and_then(|selector| selector.match_labels.clone());
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        if let Some(selected) = &selected {
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(selected.clone());
        }
        claim
    };
    templates(set).iter().map(claim).collect()
}

/// A pod of this number, of a template that the set has or had.
pub(super) fn new(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let mut pod = pods::from_template(template, &set.metadata, owner::controller_reference(set));
    let name = format!("{}-{ordinal}", set.name_any());
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    identify(set, &mut pod, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_LABEL.to_owned(), revision.to_owned());
    pod
}

/// Puts the labels and the volumes that a pod of this number has onto it.
pub(super) fn identify(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let name = pod.name_any();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), name);
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    let mut volumes: Vec<Volume> = templates(set)
        .iter()
        .map(|template| Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let spec = pod.spec.get_or_insert_default();
    for volume in spec.volumes.take().unwrap_or_default() {
        if !volumes.iter().any(|claimed| claimed.name == volume.name) {
            volumes.push(volume);
        }
    }
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
}

/// Whether the pod has the label and the volumes of its number.
pub(super) fn is_identified(set: &StatefulSet, pod: &Pod, ordinal: i32) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let named = labels.and_then(|labels| labels.get(NAME_LABEL)) == pod.metadata.name.as_ref();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let claims = |template: &PersistentVolumeClaim| {
        let name = template.metadata.name.as_deref();
        let mut found = volumes.unwrap_or_default().iter();
        let volume = found.find(|volume| Some(volume.name.as_str()) == name);
        volume
            .and_then(|volume| volume.persistent_volume_claim.as_ref())
            .is_some_and(|claim| claim.claim_name == claim_name(set, template, ordinal))
    };
    named && templates(set).iter().all(claims)
}

fn deletes(set: &StatefulSet) -> (bool, bool) {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |policy: Option<&String>| policy.is_some_and(|policy| policy == "Delete");
    (
        deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
        deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
    )
}

/// Whether some claim of the pod still belongs to an earlier pod of the name, and will go with it.
pub(super) fn has_stale_claim(set: &StatefulSet, pod: &Pod, ordinal: i32, known: &Claims) -> bool {
    deletes(set).1
        && claim_names(set, ordinal)
            .any(|name| known.get(&name).is_some_and(|claim| is_stale(claim, pod)))
}

fn is_by_name<O: Resource<DynamicType = ()>>(reference: &OwnerReference, owner: &O) -> bool {
    reference.kind == O::kind(&())
        && reference.api_version == O::api_version(&())
        && Some(&reference.name) == owner.meta().name.as_ref()
}

fn references(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    let references = claim.metadata.owner_references.as_deref();
    references.unwrap_or_default()
}

/// Whether the claim names an owner of the same name that is another object.
fn is_stale<O: Resource<DynamicType = ()>>(claim: &PersistentVolumeClaim, owner: &O) -> bool {
    let mut references = references(claim).iter();
    let found = references.find(|reference| is_by_name(reference, owner));
    found.is_some_and(|reference| Some(&reference.uid) != owner.meta().uid.as_ref())
}

/// Whether the claim has a controller that is neither the set nor the pod.
pub(super) fn has_other_controller(
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    pod: &Pod,
) -> bool {
    if deletes(set) == (false, false) {
        return false;
    }
    references(claim).iter().any(|reference| {
        if is_by_name(reference, set) {
            Some(&reference.uid) != set.metadata.uid.as_ref()
        } else if is_by_name(reference, pod) {
            Some(&reference.uid) != pod.metadata.uid.as_ref()
        } else {
            reference.controller == Some(true)
        }
    })
}

/// The owners that the retention policy gives the claim; `None` when it has them. A claim goes with
/// the set, or with the pod when the set has become too small for it.
pub(super) fn owners(
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    pod: &Pod,
    ordinal: i32,
) -> Option<Vec<OwnerReference>> {
    if is_stale(claim, set) || is_stale(claim, pod) {
        return None;
    }
    let known = references(claim);
    let found = |uid: &Option<String>| known.iter().find(|one| Some(&one.uid) == uid.as_ref());
    let (of_set, of_pod) = (found(&set.metadata.uid), found(&pod.metadata.uid));
    let others = || {
        let others = known
            .iter()
            .filter(|one| !is_by_name(one, set) && !is_by_name(one, pod));
        others.cloned().collect::<Vec<_>>()
    };
    if has_other_controller(claim, set, pod) {
        return (of_set.is_some() || of_pod.is_some()).then(others);
    }
    let (when_deleted, when_scaled) = deletes(set);
    let surplus = !in_range(set, ordinal);
    let with_pod = when_scaled && surplus;
    let with_set = when_deleted && !with_pod;
    let controls = |reference: Option<&OwnerReference>| {
        reference.is_none_or(|reference| reference.controller == Some(true))
    };
    let right = of_set.is_some() == with_set
        && of_pod.is_some() == with_pod
        && controls(of_set)
        && controls(of_pod);
    if right {
        return None;
    }
    let mut next = others();
    if with_pod {
        next.push(owner::controller_reference(pod));
    }
    if with_set {
        next.push(owner::controller_reference(set));
    }
    Some(next)
}

/// Whether every claim of the pod that is there has the owners it should have.
pub(super) fn claims_are_owned(set: &StatefulSet, pod: &Pod, ordinal: i32, known: &Claims) -> bool {
    claim_names(set, ordinal).all(|name| {
        known
            .get(&name)
            .is_none_or(|claim| owners(claim, set, pod, ordinal).is_none())
    })
}
