//! Pods with scheduling gates wait in the queue until the last gate is removed.

use crate::{
    cluster::Cluster,
    event::{Event, PodChanges},
    framework::Plugin,
    pod::PodInfo,
};

pub(crate) const SCHEDULING_GATES: &str = "SchedulingGates";

pub(crate) struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        SCHEDULING_GATES
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        matches!(event, Event::PodUpdated { new, changes: PodChanges { ungated: true, .. }, .. }
            if new.uid() == pod.uid())
    }
}
