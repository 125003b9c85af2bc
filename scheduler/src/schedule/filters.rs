//! The filters that a pod's nodes go through.

use std::sync::Arc;

use coracle_metrics::Tally;

use crate::{
    cluster::Cluster,
    devices::binding::Plan,
    framework::{Filter, Listed, Rejection},
    metrics::Point,
    node::NodeInfo,
    pod::PodInfo,
};

/// The filters of the plugins that have something to say on a pod.
#[derive(Default)]
pub(crate) struct Filters(Vec<Counted>);

/// A filter, and how often it was asked.
struct Counted {
    filter: Box<dyn Filter>,
    asked: Tally,
}

impl Filters {
    pub fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.0.iter().try_for_each(|counted| {
            counted.asked.inc();
            counted.filter.check(node)
        })
    }

    pub fn pod_added(&mut self, pod: &PodInfo, node: &NodeInfo) {
        for counted in &mut self.0 {
            counted.filter.pod_added(pod, node);
        }
    }

    pub fn pod_removed(&mut self, pod: &PodInfo, node: &NodeInfo) {
        for counted in &mut self.0 {
            counted.filter.pod_removed(pod, node);
        }
    }

    pub fn devices_on(&self, node: &str) -> Plan {
        let mut plans = self.all().filter_map(|filter| filter.devices_on(node));
        plans.next().unwrap_or_default()
    }

    pub fn duplicate(&self) -> Filters {
        let duplicate = |counted: &Counted| Counted {
            filter: counted.filter.duplicate(),
            asked: counted.asked.another(),
        };
        Filters(self.0.iter().map(duplicate).collect())
    }

    pub fn all(&self) -> impl Iterator<Item = &dyn Filter> {
        self.0.iter().map(|counted| &*counted.filter)
    }

    pub fn add(&mut self, filter: Box<dyn Filter>, of: &Listed) {
        let asked = of.evaluated.tally(Point::Filter);
        self.0.push(Counted { filter, asked });
    }

    /// As [`Filters::check`], and leaves the room that pods of at least the same priority were
    /// promised by preemption.
    pub fn check_with_nominated(
        &self,
        pod: &PodInfo,
        node: &NodeInfo,
        cluster: &Cluster<'_>,
    ) -> Result<(), Rejection> {
        let promised: Vec<&Arc<PodInfo>> = cluster
            .nominator
            .on(&node.name)
            .iter()
            .filter(|other| other.priority >= pod.priority && other.key != pod.key)
            .collect();
        if !promised.is_empty() {
            let (mut filters, mut node) = (self.duplicate(), node.clone());
            for other in promised {
                node.add_pod(other.clone());
                filters.pod_added(other, &node);
            }
            filters.check(&node)?;
        }
        // Without them too: the pod may not depend on pods that are not there yet.
        self.check(node)
    }
}
