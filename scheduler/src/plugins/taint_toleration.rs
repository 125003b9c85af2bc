//! Taints keep pods away that do not tolerate them; `PreferNoSchedule` only lowers the score.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection, normalize},
    node::{self, NodeInfo},
    pod::PodInfo,
    taints,
};

const NAME: &str = "TaintToleration";

pub(crate) struct TaintToleration;

#[derive(Clone)]
struct Tolerations(Arc<PodInfo>);

impl Filter for Tolerations {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if taints::untolerated(node.taints(), self.0.tolerations()) {
            return Err(Rejection::unresolvable(
                NAME,
                "node(s) had untolerated taint(s)",
            ));
        }
        Ok(())
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, _cluster: &Cluster<'_>) -> Prepared {
        Prepared::Check(Box::new(Tolerations(pod.clone())))
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score(
        &self,
        pod: &Arc<PodInfo>,
        _cluster: &Cluster<'_>,
        feasible: &[&NodeInfo],
    ) -> Option<Vec<i64>> {
        let unwelcome = |taint: &&Taint| {
            taint.effect == "PreferNoSchedule" && !taints::any_tolerates(pod.tolerations(), taint)
        };
        let mut scores: Vec<i64> = feasible
            .iter()
            .map(|node| node.taints().iter().filter(unwelcome).count() as i64)
            .collect();
        if scores.iter().all(|count| *count == 0) {
            return None;
        }
        normalize(&mut scores, true);
        Some(scores)
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        let keeps_away = |node| taints::untolerated(node::taints(node), pod.tolerations());
        match event {
            Event::NodeAdded(node) => !keeps_away(node),
            Event::NodeUpdated { old, new, changes } => {
                changes.taints && keeps_away(old) && !keeps_away(new)
            }
            Event::PodUpdated { new, changes, .. } => changes.tolerations && new.uid() == pod.uid(),
            _ => false,
        }
    }
}
