//! The control groups above those of single pods.

use coracle_api::core::pod::resources::QosClass;

use super::{Manager, Running};
use crate::{
    cgroups::{Limits, MIN_SHARES, milli_cpu_to_shares},
    pods::{
        resources::{class_group, requested_milli_cpu},
        spec::spec,
    },
};

impl Manager {
    /// Makes the groups that those of pods are made in.
    pub(super) async fn make_groups(&self, running: &mut Running) {
        let node = self.services.node.borrow().clone();
        let milli_cpu = coracle_api::quantity::amount_in(&node.allocatable, "cpu").milli_value();
        let shares = |cpu_shares| Limits {
            cpu_shares: Some(cpu_shares),
            ..Limits::default()
        };
        let kubepods = self.services.kubepods();
        let groups = [
            (kubepods.clone(), shares(milli_cpu_to_shares(milli_cpu))),
            (
                class_group(&kubepods, QosClass::BestEffort),
                shares(MIN_SHARES),
            ),
            (
                class_group(&kubepods, QosClass::Burstable),
                shares(MIN_SHARES),
            ),
        ];
        running.burstable_shares = MIN_SHARES;
        let cgroups = self.services.cgroups.clone();
        let made = tokio::task::spawn_blocking(move || {
            groups
                .iter()
                .try_for_each(|(group, limits)| cgroups.ensure(group, limits))
        });
        if let Ok(Err(error)) = made.await {
            tracing::warn!(%error, "cannot make the cgroups of pods");
        }
    }

    /// Burstable pods together weigh as much as they request.
    pub(super) fn update_shares(&self, running: &mut Running) {
        let known = self.known.lock();
        let requested: i64 = known
            .values()
            .filter(|known| known.rejected.is_none())
            .map(|known| spec(&known.pod))
            .filter(|spec| QosClass::of(spec) == QosClass::Burstable)
            .map(requested_milli_cpu)
            .sum();
        drop(known);
        let shares = milli_cpu_to_shares(requested);
        if shares == running.burstable_shares {
            return;
        }
        running.burstable_shares = shares;
        let group = class_group(&self.services.kubepods(), QosClass::Burstable);
        let cgroups = self.services.cgroups.clone();
        tokio::task::spawn_blocking(move || {
            let limits = Limits {
                cpu_shares: Some(shares),
                ..Limits::default()
            };
            if let Err(error) = cgroups.ensure(&group, &limits) {
                tracing::debug!(%error, "cannot weigh burstable pods");
            }
        });
    }
}
