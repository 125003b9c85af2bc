//! Devices that the pod claims have to be there on its node.

#[cfg(test)]
mod cases;
mod wanted;

use std::sync::Arc;

use self::wanted::Wanted;
use crate::{
    cluster::Cluster,
    devices::{self, Devices, allocation},
    event::{Applied, Event},
    framework::{Plugin, Prepared},
    pod::PodInfo,
};

pub(crate) const NAME: &str = "DynamicResources";

pub(crate) struct DynamicResources;

/// Whether the pod has to wait for its claims before it is tried at all.
pub(crate) fn is_waiting(pod: &PodInfo, devices: &dyn Devices) -> bool {
    devices::claims_of(&pod.pod, devices).is_err()
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, cluster: &Cluster<'_>) -> Prepared {
        match Wanted::of(pod, cluster.surroundings.devices()) {
            Ok(None) => Prepared::Skip,
            Ok(Some(wanted)) => Prepared::Check(Box::new(wanted)),
            Err(rejection) => Prepared::Reject(rejection),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, cluster: &Cluster<'_>) -> bool {
        let devices = cluster.surroundings.devices();
        match event {
            Event::NodeAdded(_)
            | Event::DeviceClass(_)
            | Event::ResourceSlice
            | Event::DevicesReleased => true,
            Event::NodeUpdated { changes, .. } => changes.labels || changes.allocatable,
            Event::PodUpdated { new, changes, .. } => {
                changes.claims && new.uid() == pod.uid() && !is_waiting(new, devices)
            }
            Event::ResourceClaim(Applied { old, new }) => {
                let Ok(claims) = devices::claims_of(&pod.pod, devices) else {
                    return false;
                };
                let freed =
                    old.is_some_and(|old| allocation(old).is_some()) && allocation(new).is_none();
                let uid = devices::uid(new);
                let used = || claims.iter().any(|claim| devices::uid(claim) == uid);
                freed || used() && old.is_none_or(|old| old.status != new.status)
            }
            _ => false,
        }
    }
}
