//! What is written to a claim once its devices are chosen.

use k8s_openapi::api::{
    core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm},
    resource::v1::{
        AllocationResult, Device, DeviceAllocationConfiguration, DeviceAllocationResult,
        DeviceRequestAllocationResult, DeviceTaint, DeviceToleration, ResourceClaim,
    },
};

use super::{
    pools::Candidate,
    request::{self, Request},
    search::Picked,
};

/// Whether a taint that is not tolerated keeps the device from being used.
pub(super) fn is_tainted(device: &Device, tolerations: &[DeviceToleration]) -> bool {
    let mut taints = device.taints.iter().flatten();
    taints.any(|taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
            && !tolerations.iter().any(|it| tolerates(it, taint))
    })
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let is_or_any = |wanted: &Option<String>, is: &str| {
        wanted
            .as_deref()
            .is_none_or(|wanted| wanted.is_empty() || wanted == is)
    };
    is_or_any(&toleration.effect, &taint.effect)
        && is_or_any(&toleration.key, &taint.key)
        && match toleration.operator.as_deref() {
            None | Some("" | "Equal") => {
                toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
            }
            Some("Exists") => true,
            Some(_) => false,
        }
}

/// # Errors
/// A slice is for nodes that cannot be written down.
pub(super) fn assemble(
    claim: &ResourceClaim,
    requests: &[Request<'_>],
    chosen: &[usize],
    picked: &[Picked],
    candidates: &[Candidate<'_>],
    node: &str,
) -> Result<AllocationResult, String> {
    let results = picked.iter().map(|picked| {
        let alternative = &requests[picked.request][picked.alternative];
        let Candidate { slice, device, .. } = candidates[picked.candidate];
        let consumed = picked.consumed.iter();
        let consumed = consumed.map(|(name, amount)| (name.clone(), amount.to_quantity()));
        let tolerations = alternative.tolerations;
        DeviceRequestAllocationResult {
            admin_access: alternative.admin.then_some(true),
            binding_conditions: device.binding_conditions.clone(),
            binding_failure_conditions: device.binding_failure_conditions.clone(),
            consumed_capacity: (!picked.consumed.is_empty()).then(|| consumed.collect()),
            device: device.name.clone(),
            driver: slice.spec.driver.clone(),
            pool: slice.spec.pool.name.clone(),
            request: alternative.full_name(),
            share_id: picked.share.clone(),
            tolerations: (!tolerations.is_empty()).then(|| tolerations.to_vec()),
        }
    });
    let config = configuration(claim, requests, chosen);
    Ok(AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult {
            config: (!config.is_empty()).then_some(config),
            results: Some(results.collect()),
        }),
        node_selector: node_selector(claim, picked, candidates, node)?,
    })
}

/// The classes' configuration comes first, so that drivers let the claim's win.
fn configuration(
    claim: &ResourceClaim,
    requests: &[Request<'_>],
    chosen: &[usize],
) -> Vec<DeviceAllocationConfiguration> {
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut seen: Vec<(Option<&str>, std::ops::Range<usize>)> = Vec::new();
    for (request, &chosen) in requests.iter().zip(chosen) {
        let alternative = &request[chosen];
        let (class, name) = (alternative.class, alternative.full_name());
        let class_name = class.metadata.name.as_deref();
        if let Some((_, range)) = seen.iter().find(|(seen, _)| *seen == class_name) {
            for config in &mut all[range.clone()] {
                config.requests.get_or_insert_default().push(name.clone());
            }
            continue;
        }
        let start = all.len();
        let configs = class.spec.config.iter().flatten();
        all.extend(configs.map(|config| DeviceAllocationConfiguration {
            opaque: config.opaque.clone(),
            requests: Some(vec![name.clone()]),
            source: "FromClass".to_owned(),
        }));
        seen.push((class_name, start..all.len()));
    }
    let devices = claim.spec.devices.as_ref();
    let configs = devices.and_then(|devices| devices.config.as_ref());
    for config in configs.into_iter().flatten() {
        let ours = || DeviceAllocationConfiguration {
            opaque: config.opaque.clone(),
            requests: config.requests.clone(),
            source: "FromClaim".to_owned(),
        };
        let listed = config.requests.as_deref().unwrap_or_default();
        if listed.is_empty() {
            all.push(ours());
            continue;
        }
        let requested = request::requests(claim).iter().zip(requests).zip(chosen);
        for ((request, alternatives), &chosen) in requested {
            let chosen = alternatives[chosen].full_name();
            if listed.contains(&request.name) || listed.contains(&chosen) {
                all.push(ours());
            }
        }
    }
    all
}

/// The nodes from which all the devices can be used; `None` for all nodes.
fn node_selector(
    claim: &ResourceClaim,
    picked: &[Picked],
    candidates: &[Candidate<'_>],
    node: &str,
) -> Result<Option<NodeSelector>, String> {
    let mut term = NodeSelectorTerm::default();
    for picked in picked {
        let Candidate { slice, device, .. } = candidates[picked.candidate];
        let spec = &slice.spec;
        let (name, selector) = match spec.per_device_node_selection {
            Some(true) => (&device.node_name, &device.node_selector),
            _ => (&spec.node_name, &spec.node_selector),
        };
        if name.is_some() || device.binds_to_node == Some(true) {
            let only = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            };
            term = NodeSelectorTerm {
                match_fields: Some(vec![only]),
                ..NodeSelectorTerm::default()
            };
            break;
        }
        let terms = selector
            .as_ref()
            .map(|it| it.node_selector_terms.as_slice());
        match terms.unwrap_or_default() {
            [] => {}
            [one] => {
                merge(&mut term.match_fields, one.match_fields.as_deref());
                merge(
                    &mut term.match_expressions,
                    one.match_expressions.as_deref(),
                );
            }
            terms => {
                return Err(format!(
                    "create NodeSelector for claim {}: unsupported ResourceSlice.NodeSelector \
                     with {} terms",
                    claim.metadata.name.as_deref().unwrap_or_default(),
                    terms.len()
                ));
            }
        }
    }
    let empty = term.match_fields.is_none() && term.match_expressions.is_none();
    Ok((!empty).then(|| NodeSelector {
        node_selector_terms: vec![term],
    }))
}

fn merge(
    into: &mut Option<Vec<NodeSelectorRequirement>>,
    from: Option<&[NodeSelectorRequirement]>,
) {
    let sorted = |requirement: &NodeSelectorRequirement| {
        let mut values = requirement.values.clone().unwrap_or_default();
        values.sort();
        values
    };
    for requirement in from.into_iter().flatten() {
        let into = into.get_or_insert_default();
        let known = into.iter().any(|known| {
            known.key == requirement.key
                && known.operator == requirement.operator
                && sorted(known) == sorted(requirement)
        });
        if !known {
            into.push(requirement.clone());
        }
    }
}
