//! The seam between the scheduler and its plugins.
//!
//! A [`Plugin`] may keep pods from nodes ([`Plugin::prepare`], once for a pod, then a [`Filter`]
//! for each node), rank the nodes that are left ([`Plugin::score`]), and says which events may
//! change its mind ([`Plugin::may_help`]). [`plugins::table`](crate::plugins::table) lists them.

use std::{borrow::Cow, collections::BTreeSet, ops::Deref, sync::Arc};

use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::{
    cluster::Cluster, devices, event::Event, metrics::Evaluated, node::NodeInfo, pod::PodInfo,
};

/// The best score that a plugin gives to a node; the worst is 0.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a pod cannot run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub plugin: &'static str,
    pub reasons: Vec<Cow<'static, str>>,
    /// Removing pods from the node would not help.
    pub unresolvable: bool,
    /// The plugin cannot tell: no node is chosen, and the pod is tried again after a while.
    pub error: bool,
}

impl Rejection {
    /// Removing pods from the node may help.
    pub fn resolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection {
            plugin,
            reasons: vec![reason.into()],
            unresolvable: false,
            error: false,
        }
    }

    /// The plugin cannot tell.
    pub fn error(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection {
            error: true,
            ..Rejection::unresolvable(plugin, reason)
        }
    }

    /// Removing pods from the node would not help.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection {
            unresolvable: true,
            ..Rejection::resolvable(plugin, reason)
        }
    }
}

/// What a plugin makes of a pod before it looks at single nodes.
pub(crate) enum Prepared {
    /// Any node will do.
    Skip,
    /// No node will do.
    Reject(Rejection),
    /// Each node has to be looked at.
    Check(Box<dyn Filter>),
    /// As [`Prepared::Check`], and only these nodes can pass.
    CheckOnly(Box<dyn Filter>, BTreeSet<String>),
}

/// A plugin's view of one pod.
pub(crate) trait Filter: Send {
    /// Whether the pod may run on the node.
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection>;

    /// From now on judge as if `pod` were on the node. `node` itself already has it.
    fn pod_added(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}

    /// From now on judge as if `pod` were not on the node. `node` itself is already without it.
    fn pod_removed(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}

    /// A copy, for what-if questions.
    fn duplicate(&self) -> Box<dyn Filter>;

    /// The devices that the pod gets on a node that passed.
    fn devices_on(&self, _node: &str) -> Option<devices::binding::Plan> {
        None
    }

    /// A weight, and for each node that passed a score from 0 to [`MAX_SCORE`].
    fn score(&self, _feasible: &[&NodeInfo]) -> Option<(i64, Vec<i64>)> {
        None
    }

    /// What can be done when no node passed, apart from preemption.
    fn post_filter(&self) -> Option<PostFilter> {
        None
    }
}

/// What is done for a pod with claims that fits nowhere.
#[derive(Clone, Debug)]
pub(crate) enum PostFilter {
    Nothing,
    /// The claim is used by nobody else and is allocated where the pod cannot run.
    Deallocate(Arc<ResourceClaim>),
    /// The claim was made for the pod's extended resources and does not help it.
    Delete(Arc<ResourceClaim>),
}

/// A rule of scheduling. Plugins hold no state between pods.
pub(crate) trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// Looks at the pod, and the cluster as a whole where nodes depend on each other.
    fn prepare(&self, _pod: &Arc<PodInfo>, _cluster: &Cluster<'_>) -> Prepared {
        Prepared::Skip
    }

    /// How much [`Plugin::score`] counts beside that of other plugins.
    fn weight(&self) -> i64 {
        0
    }

    /// For each node in `feasible` a score from 0 to [`MAX_SCORE`]; `None` when all are alike.
    fn score(
        &self,
        _pod: &Arc<PodInfo>,
        _cluster: &Cluster<'_>,
        _feasible: &[&NodeInfo],
    ) -> Option<Vec<i64>> {
        None
    }

    /// Whether the event may let the pod be scheduled, given that this plugin stood against it.
    fn may_help(&self, _pod: &PodInfo, _event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        false
    }
}

/// A plugin in its place in the table, with what is counted of it.
pub(crate) struct Listed {
    plugin: Box<dyn Plugin>,
    pub evaluated: Evaluated,
}

impl Listed {
    pub fn new(plugin: impl Plugin + 'static) -> Self {
        Listed {
            evaluated: Evaluated::new(plugin.name()),
            plugin: Box::new(plugin),
        }
    }
}

impl Deref for Listed {
    type Target = dyn Plugin;

    fn deref(&self) -> &Self::Target {
        &*self.plugin
    }
}

/// Stretches counts to scores in proportion to the largest; `reverse`: more is worse.
pub(crate) fn normalize(scores: &mut [i64], reverse: bool) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if largest > 0 {
            *score = MAX_SCORE * *score / largest;
        }
        if reverse {
            *score = MAX_SCORE - *score;
        }
    }
}
