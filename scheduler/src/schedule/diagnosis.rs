//! Why nodes cannot run a pod, and the message that tells it.

use std::collections::{BTreeMap, BTreeSet};

use crate::framework::Rejection;

/// Which nodes cannot run the pod, and why.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    /// By index in the cache.
    pub rejected: BTreeMap<usize, Rejection>,
    /// Why every node that is not in `rejected` was out of the question.
    pub others: Option<Rejection>,
    /// The rejection came before single nodes were looked at.
    pub at_once: bool,
}

impl Diagnosis {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    pub fn message(&self, nodes: usize) -> String {
        let mut message = format!("0/{nodes} nodes are available:");
        if self.at_once {
            let reasons = self
                .others
                .as_ref()
                .map(|rejection| rejection.reasons.join(", "));
            return format!("{message} {}.", reasons.unwrap_or_default());
        }
        let mut histogram: BTreeMap<&str, usize> = BTreeMap::new();
        for rejection in self.rejected.values() {
            for reason in &rejection.reasons {
                *histogram.entry(reason).or_default() += 1;
            }
        }
        let missing = nodes.saturating_sub(self.rejected.len());
        if let (Some(others), 1..) = (&self.others, missing) {
            for reason in &others.reasons {
                *histogram.entry(reason).or_default() += missing;
            }
        }
        let mut lines: Vec<String> = histogram
            .into_iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        // Upstream sorts the finished texts, so 10 comes before 2.
        lines.sort_unstable();
        if !lines.is_empty() {
            message.push_str(&format!(" {}.", lines.join(", ")));
        }
        message
    }

    pub fn rejectors(&self) -> BTreeSet<&'static str> {
        self.rejected
            .values()
            .chain(&self.others)
            .map(|rejection| rejection.plugin)
            .collect()
    }
}
