//! The rules, one file each, with upstream's weights.

#[cfg(test)]
mod cases;
pub(crate) mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod scheduling_gates;
mod taint_toleration;
pub(crate) mod volume_binding;
mod volume_restrictions;
mod volume_zone;

pub(crate) use scheduling_gates::SCHEDULING_GATES;

use crate::framework::Listed;

/// All plugins, in the order in which they look at a node: the first that rejects it is heard.
pub(crate) fn table() -> Vec<Listed> {
    vec![
        Listed::new(scheduling_gates::SchedulingGates),
        Listed::new(node_unschedulable::NodeUnschedulable),
        Listed::new(node_name::NodeName),
        Listed::new(taint_toleration::TaintToleration),
        Listed::new(node_affinity::NodeAffinity),
        Listed::new(node_ports::NodePorts),
        Listed::new(node_resources::Fit),
        Listed::new(volume_restrictions::VolumeRestrictions),
        Listed::new(node_volume_limits::NodeVolumeLimits),
        Listed::new(volume_binding::VolumeBinding),
        Listed::new(volume_zone::VolumeZone),
        Listed::new(pod_topology_spread::PodTopologySpread),
        Listed::new(inter_pod_affinity::InterPodAffinity),
        Listed::new(dynamic_resources::DynamicResources),
        Listed::new(node_resources::BalancedAllocation),
        Listed::new(image_locality::ImageLocality),
        Listed::new(node_declared_features::NodeDeclaredFeatures),
    ]
}
