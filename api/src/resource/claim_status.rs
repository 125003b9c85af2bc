//! Checks of a ResourceClaim's status: who uses it, what it was given, and what drivers say of
//! that.
//!
//! Upstream: `validateResourceClaimStatusUpdate` of `pkg/apis/resource/validation`.

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceRequest, DeviceRequestAllocationResult,
    NetworkDeviceData, ResourceClaim, ResourceClaimStatus,
};

use super::{
    device_validation::binding_conditions,
    resource_slice::pool_name,
    validation::{is_short, request_reference},
};
use crate::{
    check,
    core::pod::validation::remote_volumes::csi_driver_name,
    field::{BadValue, ErrorList, Path},
    formats, internal,
    zero::{list, text},
};

const MAX_USERS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_IPS: usize = 16;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;

/// Checks a change of the status.
pub fn update(new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
    let mut errors = ErrorList::new();
    let none = ResourceClaimStatus::default();
    let status = new.status.as_ref().unwrap_or(&none);
    let old_status = old.status.as_ref().unwrap_or(&none);
    let path = Path::new("status");
    users(status, &path.child("reservedFor"), &mut errors);
    devices(status, &path.child("devices"), &mut errors);
    let (users, users_path) = (list(&status.reserved_for), path.child("reservedFor"));
    if !users.is_empty() && status.allocation.is_none() {
        errors.push(users_path.forbidden("may not be specified when `allocated` is not set"));
    } else if new.metadata.deletion_timestamp.is_some() {
        let before = list(&old_status.reserved_for);
        if users.iter().any(|user| !before.contains(user)) {
            errors.push(users_path.forbidden(
                "new entries may not be added while `deallocationRequested` or \
                 `deletionTimestamp` are set",
            ));
        }
    }
    let path = path.child("allocation");
    match (&status.allocation, &old_status.allocation) {
        (Some(_), Some(_)) => internal::immutable(
            "AllocationResult",
            &status.allocation,
            &old_status.allocation,
            &path,
            &mut errors,
        ),
        (Some(allocation), None) => {
            let devices = new.spec.devices.as_ref();
            let requests = devices.map_or(&[][..], |devices| list(&devices.requests));
            allocated(allocation, requests, &path, &mut errors);
        }
        (None, _) => {}
    }
    errors
}

fn users(status: &ResourceClaimStatus, path: &Path, errors: &mut ErrorList) {
    let users = list(&status.reserved_for);
    if !is_short(users, MAX_USERS, path, errors) {
        return;
    }
    for (index, user) in users.iter().enumerate() {
        let path = path.index(index);
        check::required(&user.resource, &path.child("resource"), errors);
        check::required(&user.name, &path.child("name"), errors);
        check::required(&user.uid, &path.child("uid"), errors);
    }
    for (index, user) in users.iter().enumerate() {
        if users[..index].iter().any(|other| other.uid == user.uid) {
            errors.push(path.index(index).duplicate(user.uid.as_str()));
        }
    }
}

fn allocated(
    allocation: &AllocationResult,
    requests: &[DeviceRequest],
    path: &Path,
    errors: &mut ErrorList,
) {
    let results = results(allocation);
    let results_path = path.child("devices.results");
    if is_short(results, MAX_RESULTS, &results_path, errors) {
        for (index, result) in results.iter().enumerate() {
            let path = results_path.index(index);
            request_reference(&result.request, requests, &path.child("request"), errors);
            csi_driver_name(&result.driver, &path.child("driver"), errors);
            pool_name(&result.pool, &path.child("pool"), errors);
            check::dns_label(&result.device, &path.child("device"), errors);
            let (awaited, failures) = (
                &result.binding_conditions,
                &result.binding_failure_conditions,
            );
            binding_conditions(awaited, failures, &path, errors);
        }
    }
    if let Some(selector) = &allocation.node_selector {
        check::node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

fn results(allocation: &AllocationResult) -> &[DeviceRequestAllocationResult] {
    let devices = allocation.devices.as_ref();
    devices.map_or(&[], |devices| list(&devices.results))
}

/// What drivers say of the devices: only of those that the claim was given.
fn devices(status: &ResourceClaimStatus, path: &Path, errors: &mut ErrorList) {
    let results = status.allocation.as_ref().map_or(&[][..], results);
    let devices = list(&status.devices);
    for (index, device) in devices.iter().enumerate() {
        let path = path.index(index);
        csi_driver_name(&device.driver, &path.child("driver"), errors);
        pool_name(&device.pool, &path.child("pool"), errors);
        check::dns_label(&device.device, &path.child("device"), errors);
        let is_given = results.iter().any(|result| {
            (&result.driver, &result.pool, &result.device)
                == (&device.driver, &device.pool, &device.device)
                && text(&result.share_id) == text(&device.share_id)
        });
        if !is_given {
            let detail = "must be an allocated device in the claim";
            errors.push(path.invalid(identity(device), detail));
        }
        let device_path = path;
        let (conditions, path) = (list(&device.conditions), device_path.child("conditions"));
        if conditions.len() > MAX_CONDITIONS {
            errors.push(path.too_many(conditions.len(), MAX_CONDITIONS));
        }
        check::conditions(conditions, &path, errors);
        if let Some(data) = &device.network_data {
            network_data(data, &device_path.child("networkData"), errors);
        }
    }
}

/// What a driver says of a network device.
fn network_data(data: &NetworkDeviceData, path: &Path, errors: &mut ErrorList) {
    for (field, value, max) in [
        ("interfaceName", &data.interface_name, MAX_INTERFACE_NAME),
        (
            "hardwareAddress",
            &data.hardware_address,
            MAX_HARDWARE_ADDRESS,
        ),
    ] {
        if text(value).len() > max {
            errors.push(path.child(field).too_long(max));
        }
    }
    let (ips, path) = (list(&data.ips), path.child("ips"));
    if ips.len() > MAX_IPS {
        errors.push(path.too_many(ips.len(), MAX_IPS));
        return;
    }
    for (index, ip) in ips.iter().enumerate() {
        check::each(
            &path.index(index),
            ip.as_str(),
            formats::interface_address(ip),
            errors,
        );
    }
    for (index, ip) in ips.iter().enumerate() {
        if ips[..index].contains(ip) {
            errors.push(path.index(index).duplicate(ip.as_str()));
        }
    }
}

fn identity(device: &AllocatedDeviceStatus) -> BadValue {
    BadValue::Struct(vec![
        ("Driver", device.driver.as_str().into()),
        ("Pool", device.pool.as_str().into()),
        ("Device", device.device.as_str().into()),
        ("ShareID", text(&device.share_id).into()),
    ])
}
