//! Extended resources, as `example.com/gpu: 2`, that a class of devices stands behind: on a node
//! whose kubelet does not offer the resource itself the pod gets a claim of its own for them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Container, ContainerExtendedResourceRequest, Pod},
        resource::v1::{
            DeviceClaim, DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim,
            ResourceClaimSpec,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::Devices;
use crate::{pod::PodInfo, resources};

/// Before the name of a class: the resource that stands for the class's devices.
pub(crate) const CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";
/// Marks the claim that is made for a pod's extended resources.
const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";

/// The classes that stand behind some of the pod's resources, by the resource's name.
pub(crate) type Classes = BTreeMap<String, Arc<DeviceClass>>;

/// Whether a class of devices may stand behind a resource of that name.
pub(crate) fn may_be_devices(name: &str) -> bool {
    resources::is_extended(name) || name.starts_with(CLASS_PREFIX)
}

/// The class behind each of the pod's resources that has one. Of several the newest class wins.
pub(crate) fn classes_of(pod: &PodInfo, devices: &dyn Devices) -> Classes {
    let mut found = Classes::new();
    let scalars = pod.requests.resources.scalars.iter();
    let names = scalars.filter(|(name, amount)| **amount > 0 && may_be_devices(name));
    let names: Vec<&String> = names.map(|(name, _)| name).collect();
    if names.is_empty() {
        return found;
    }
    let created = |class: &DeviceClass| class.metadata.creation_timestamp.clone();
    let mut classes = devices.classes();
    classes.sort_by(|one, other| {
        let by_age = created(other).cmp(&created(one));
        by_age.then_with(|| one.metadata.name.cmp(&other.metadata.name))
    });
    for name in names {
        let stands_behind = |class: &&Arc<DeviceClass>| {
            class.spec.extended_resource_name.as_ref() == Some(name)
                || name.strip_prefix(CLASS_PREFIX) == class.metadata.name.as_deref()
        };
        if let Some(class) = classes.iter().find(stands_behind) {
            found.insert(name.clone(), class.clone());
        }
    }
    found
}

/// The claim that was made for the pod's extended resources, if it was.
pub(crate) fn claim_of(pod: &PodInfo, devices: &dyn Devices) -> Option<Arc<ResourceClaim>> {
    let is_ours = |claim: &Arc<ResourceClaim>| {
        let metadata = &claim.metadata;
        let annotations = metadata.annotations.as_ref();
        let marked = annotations.and_then(|annotations| annotations.get(ANNOTATION));
        let mut owners = metadata.owner_references.iter().flatten();
        metadata.namespace.as_deref() == Some(pod.namespace())
            && marked.is_some_and(|marked| marked == "true")
            && owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid())
    };
    devices.claims().into_iter().find(is_ours)
}

/// The claim to be made for the pod, and which container gets what of it. `uid` stands for it
/// until it is made.
pub(crate) fn claim_for(
    pod: &PodInfo,
    classes: &Classes,
    uid: &str,
) -> (ResourceClaim, Vec<ContainerExtendedResourceRequest>) {
    let (requests, mappings) = requests(&pod.pod, classes);
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let marked = BTreeMap::from([(ANNOTATION.to_owned(), "true".to_owned())]);
    let claim = ResourceClaim {
        metadata: ObjectMeta {
            namespace: Some(pod.namespace().to_owned()),
            generate_name: Some(format!("{}-extended-resources-", pod.name())),
            uid: Some(uid.to_owned()),
            owner_references: Some(vec![owner]),
            annotations: Some(marked),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec {
            devices: Some(DeviceClaim {
                requests: Some(requests),
                ..DeviceClaim::default()
            }),
        },
        status: None,
    };
    (claim, mappings)
}

/// A container as far as its devices are concerned.
struct Asking<'a> {
    container: &'a Container,
    index: usize,
    /// It is over before those after it start, so that they get its devices.
    short: bool,
}

impl Asking<'_> {
    /// The request for what the container needs beyond `reusable`, and where it finds it all.
    fn request(
        &self,
        resource: &str,
        class: &str,
        reusable: &[&DeviceRequest],
    ) -> (Option<DeviceRequest>, Vec<ContainerExtendedResourceRequest>) {
        let resources = self.container.resources.as_ref();
        let asked = resources.and_then(|resources| resources.requests.as_ref());
        let Some(asked) = asked else {
            return (None, Vec::new());
        };
        let amount = resources::Resources::of(asked).scalar(resource);
        if amount == 0 {
            return (None, Vec::new());
        }
        let mapping = |request: &str| ContainerExtendedResourceRequest {
            container_name: self.container.name.clone(),
            resource_name: resource.to_owned(),
            request_name: request.to_owned(),
        };
        let (mut mappings, mut sum) = (Vec::new(), 0);
        for request in reusable {
            sum += count(request);
            mappings.push(mapping(&request.name));
            if sum >= amount {
                return (None, mappings);
            }
        }
        let position = asked.keys().position(|name| name == resource);
        let name = format!(
            "container-{}-request-{}",
            self.index,
            position.unwrap_or_default()
        );
        mappings.push(mapping(&name));
        let exactly = ExactDeviceRequest {
            device_class_name: class.to_owned(),
            allocation_mode: Some("ExactCount".to_owned()),
            count: Some(amount - sum),
            ..ExactDeviceRequest::default()
        };
        let request = DeviceRequest {
            name,
            exactly: Some(exactly),
            first_available: None,
        };
        (Some(request), mappings)
    }
}

fn count(request: &DeviceRequest) -> i64 {
    let exactly = request.exactly.as_ref();
    exactly.and_then(|exactly| exactly.count).unwrap_or(0)
}

/// What the containers ask for of each class. Init containers that end share one request, and
/// use what the containers after them get.
fn requests(
    pod: &Pod,
    classes: &Classes,
) -> (Vec<DeviceRequest>, Vec<ContainerExtendedResourceRequest>) {
    let Some(spec) = &pod.spec else {
        return (Vec::new(), Vec::new());
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let containers = init.iter().chain(&spec.containers).enumerate();
    let containers: Vec<Asking<'_>> = containers
        .map(|(index, container)| Asking {
            container,
            index,
            short: index < init.len() && container.restart_policy.as_deref() != Some("Always"),
        })
        .collect();
    let (mut all, mut all_mappings) = (Vec::new(), Vec::new());
    for (resource, class) in classes {
        let class = class.metadata.name.as_deref().unwrap_or_default();
        let mut long: Vec<(usize, DeviceRequest)> = Vec::new();
        for asking in containers.iter().filter(|asking| !asking.short) {
            let (request, mappings) = asking.request(resource, class, &[]);
            long.extend(request.map(|request| (asking.index, request)));
            all_mappings.extend(mappings);
        }
        let mut largest: Option<DeviceRequest> = None;
        let (mut names, mut short_mappings) = (Vec::new(), Vec::new());
        for asking in containers.iter().filter(|asking| asking.short) {
            let later: Vec<&DeviceRequest> = long
                .iter()
                .filter(|(index, _)| *index >= asking.index)
                .map(|(_, request)| request)
                .collect();
            let (request, mappings) = asking.request(resource, class, &later);
            short_mappings.extend(mappings);
            if let Some(request) = request {
                names.push(request.name.clone());
                if largest
                    .as_ref()
                    .is_none_or(|it| count(it) < count(&request))
                {
                    largest = Some(request);
                }
            }
        }
        if let Some(largest) = largest {
            for mapping in &mut short_mappings {
                if names.contains(&mapping.request_name) {
                    mapping.request_name.clone_from(&largest.name);
                }
            }
            all.push(largest);
        }
        all.extend(long.into_iter().map(|(_, request)| request));
        all_mappings.append(&mut short_mappings);
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    (all, all_mappings)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, pod};

    fn container(name: &str, gpus: i64) -> Value {
        json!({ "name": name, "resources": { "requests": {
            "cpu": "1", "example.com/gpu": gpus.to_string() } } })
    }

    fn told(value: Value) -> (Vec<String>, Vec<String>) {
        let mut world = World::default();
        let devices = &mut world.surroundings.devices;
        devices.add_class(json!({ "metadata": { "name": "gpus" },
            "spec": { "extendedResourceName": "example.com/gpu" } }));
        let pod = pod(value);
        let classes = classes_of(&pod, &world.surroundings.devices);
        let (claim, mappings) = claim_for(&pod, &classes, "u");
        let requests = super::super::request::requests(&claim).iter();
        let requests = requests.map(|request| format!("{} {}", request.name, count(request)));
        let mappings = mappings
            .iter()
            .map(|mapping| format!("{} {}", mapping.container_name, mapping.request_name));
        (requests.collect(), mappings.collect())
    }

    #[test]
    fn containers_get_requests_and_those_that_end_share() {
        let (requests, mappings) = told(json!({ "spec": {
            "containers": [container("a", 1), container("b", 2), { "name": "c" }] } }));
        assert_eq!(
            requests,
            ["container-0-request-1 1", "container-1-request-1 2"]
        );
        assert_eq!(
            mappings,
            ["a container-0-request-1", "b container-1-request-1"]
        );

        let mut sidecar = container("s", 1);
        sidecar["restartPolicy"] = json!("Always");
        let (requests, mappings) = told(json!({ "spec": {
            "initContainers": [container("i", 5), container("j", 3), sidecar],
            "containers": [container("a", 1)] } }));
        assert_eq!(
            requests,
            [
                "container-0-request-1 3",
                "container-2-request-1 1",
                "container-3-request-1 1"
            ]
        );
        assert_eq!(
            mappings,
            [
                "s container-2-request-1",
                "a container-3-request-1",
                "i container-2-request-1",
                "i container-3-request-1",
                "i container-0-request-1",
                "j container-2-request-1",
                "j container-3-request-1",
                "j container-0-request-1",
            ]
        );
    }

    #[test]
    fn the_newest_class_stands_behind_a_resource() {
        let mut world = World::default();
        let devices = &mut world.surroundings.devices;
        for (name, hour) in [("old", 1), ("new", 2), ("same", 2)] {
            devices.add_class(json!({ "metadata": { "name": name,
                "creationTimestamp": format!("2026-01-01T{hour:02}:00:00Z") },
                "spec": { "extendedResourceName": "example.com/gpu" } }));
        }
        let asking = pod(
            json!({ "spec": { "containers": [{ "name": "c", "resources": {
            "requests": { "example.com/gpu": "1", "example.com/other": "1",
                "deviceclass.resource.kubernetes.io/old": "1" } } }] } }),
        );
        let classes = classes_of(&asking, &world.surroundings.devices);
        let found: Vec<(&str, &str)> = classes
            .iter()
            .map(|(name, class)| (name.as_str(), class.metadata.name.as_deref().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                ("deviceclass.resource.kubernetes.io/old", "old"),
                ("example.com/gpu", "new")
            ]
        );
    }
}
