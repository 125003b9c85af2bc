//! What claims have been given of devices.

use std::collections::{BTreeSet, HashMap};

use coracle_api::quantity::Amount;
use k8s_openapi::api::resource::v1::AllocationResult;

use super::{capacity::Consumed, pools::Candidate};

/// What is taken of one device.
#[derive(Debug, Default)]
pub(crate) struct TakenDevice {
    /// One claim has it for itself.
    pub dedicated: bool,
    /// What claims that share it have of its capacity.
    pub consumed: Consumed,
    shares: BTreeSet<String>,
}

type ByName<T> = HashMap<String, T>;

/// By driver, pool and device.
#[derive(Debug, Default)]
pub(crate) struct Taken(ByName<ByName<ByName<TakenDevice>>>);

impl Taken {
    /// Takes what was allocated. With administrative access nothing is taken.
    pub fn add(&mut self, allocation: &AllocationResult) {
        let devices = allocation.devices.as_ref();
        let results = devices.and_then(|devices| devices.results.as_ref());
        for result in results.into_iter().flatten() {
            if result.admin_access == Some(true) {
                continue;
            }
            let pools = self.0.entry(result.driver.clone()).or_default();
            let devices = pools.entry(result.pool.clone()).or_default();
            let device = devices.entry(result.device.clone()).or_default();
            let Some(share) = &result.share_id else {
                device.dedicated = true;
                continue;
            };
            if !device.shares.insert(share.clone()) {
                continue;
            }
            for (name, amount) in result.consumed_capacity.iter().flatten() {
                let sum = device.consumed.entry(name.clone()).or_insert(Amount::ZERO);
                *sum = sum.plus(Amount::from(amount));
            }
        }
    }

    /// `None`: all of it is free.
    pub(super) fn of(&self, candidate: &Candidate<'_>) -> Option<&TakenDevice> {
        let spec = &candidate.slice.spec;
        let pools = self.0.get(&spec.driver)?;
        pools.get(&spec.pool.name)?.get(&candidate.device.name)
    }
}
