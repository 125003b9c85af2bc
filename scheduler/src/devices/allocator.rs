//! Which devices to give to claims on a node: a search with backtracking over the devices in
//! order, as upstream's, so that the same devices are chosen.
//!
//! Enter at [`Inventory::allocate`].

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use coracle_api::quantity::Amount;
use k8s_openapi::api::{
    core::v1::Node,
    resource::v1::{AllocationResult, DeviceClass, DeviceSelector, ResourceClaim, ResourceSlice},
};

use super::{
    capacity::{self, Consumed},
    cel::{DeviceValue, Selectors},
    pools::{self, Candidate, Condition, Pool},
    request::{self, Alternative, Request, key},
    result,
    search::{At, MOST_DEVICES, Search, Stop, Use},
    taken::{Taken, TakenDevice},
};

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This node cannot be used; others may.
    Node(String),
    /// Something is wrong with the claims or classes.
    Fatal(String),
}

/// The devices there are and what is taken of them.
pub(crate) struct Inventory {
    slices: Vec<Arc<ResourceSlice>>,
    on_node: HashMap<String, Vec<usize>>,
    shared: Vec<usize>,
    classes: HashMap<String, Arc<DeviceClass>>,
    taken: Taken,
    selectors: Arc<Selectors>,
}

impl Inventory {
    pub fn new(
        slices: Vec<Arc<ResourceSlice>>,
        classes: impl IntoIterator<Item = Arc<DeviceClass>>,
        taken: Taken,
        selectors: Arc<Selectors>,
    ) -> Self {
        let (mut on_node, mut shared) = (HashMap::<String, Vec<usize>>::new(), Vec::new());
        for (index, slice) in slices.iter().enumerate() {
            let spec = &slice.spec;
            let counters = spec.shared_counters.as_ref();
            match spec.node_name.as_deref() {
                Some(node) if !node.is_empty() && counters.is_none_or(Vec::is_empty) => {
                    on_node.entry(node.to_owned()).or_default().push(index);
                }
                _ => shared.push(index),
            }
        }
        let classes = classes
            .into_iter()
            .filter_map(|class| Some((class.metadata.name.clone()?, class)))
            .collect();
        Inventory {
            slices,
            on_node,
            shared,
            classes,
            taken,
            selectors,
        }
    }

    /// An allocation for each of the claims, or `None` when they cannot all be had on the node.
    pub fn allocate(
        &self,
        node: &Node,
        claims: &[&ResourceClaim],
    ) -> Result<Option<Vec<AllocationResult>>, Failure> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let local = self.on_node.get(name).map_or(&[][..], Vec::as_slice);
        let nearby = local.iter().chain(&self.shared);
        let nearby = nearby.map(|&index| &*self.slices[index]);
        let pools = pools::gather(node, nearby, &self.slices);
        let candidates: Vec<Candidate<'_>> = candidates(&pools);
        let matcher = Matcher {
            inventory: self,
            node,
            values: candidates.iter().map(|_| OnceCell::new()).collect(),
            taken: candidates.iter().map(|it| self.taken.of(it)).collect(),
            candidates: &candidates,
            known: RefCell::default(),
        };
        let mut wanted = Vec::with_capacity(claims.len());
        for (index, claim) in claims.iter().enumerate() {
            wanted.push(
                matcher
                    .wanted(index, claim, &pools)
                    .map_err(Failure::Fatal)?,
            );
        }
        let mut search = Search::new(&matcher, &wanted, &pools).map_err(Failure::Fatal)?;
        match search.next(At::default(), false, 0) {
            Ok(true) => {
                let results = search.claims().zip(&wanted).map(|(state, wanted)| {
                    result::assemble(
                        wanted.claim,
                        &wanted.requests,
                        &state.chosen,
                        &state.picked,
                        &candidates,
                        name,
                    )
                });
                let results: Result<Vec<_>, String> = results.collect();
                results.map(Some).map_err(Failure::Fatal)
            }
            Err(Stop::Fatal(why)) => Err(Failure::Fatal(why)),
            Ok(false) | Err(Stop::TooMany)
                if pools
                    .iter()
                    .any(|pool| pool.condition == Condition::Invalid) =>
            {
                let why = "invalid resource pools were encountered";
                Err(Failure::Node(why.to_owned()))
            }
            Ok(false) | Err(Stop::TooMany) => Ok(None),
        }
    }
}

fn candidates<'a>(pools: &[Pool<'a>]) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for (pool, from) in pools.iter().enumerate() {
        for &slice in &from.slices {
            candidates.extend(pools::devices(slice).iter().map(|device| Candidate {
                slice,
                device,
                pool,
            }));
        }
    }
    candidates
}

/// A claim with its requests made uniform.
pub(super) struct Wanted<'a> {
    pub claim: &'a ResourceClaim,
    pub requests: Vec<Request<'a>>,
}

/// Which devices fulfil a request, asked once each.
pub(super) struct Matcher<'m> {
    inventory: &'m Inventory,
    pub node: &'m Node,
    pub candidates: &'m [Candidate<'m>],
    values: Vec<OnceCell<Result<DeviceValue, String>>>,
    /// What is taken of each candidate.
    pub taken: Vec<Option<&'m TakenDevice>>,
    known: RefCell<HashMap<(At, usize), bool>>,
}

impl<'m> Matcher<'m> {
    /// What is taken of the devices of the whole cluster.
    pub fn taken_anywhere(&self) -> &'m Taken {
        &self.inventory.taken
    }

    fn wanted(
        &self,
        index: usize,
        claim: &'m ResourceClaim,
        pools: &[Pool<'_>],
    ) -> Result<Wanted<'m>, String> {
        let class = |name: &str| self.inventory.classes.get(name).map(|class| &**class);
        let mut requests = Vec::new();
        let mut least = 0_usize;
        for (request_index, request) in request::requests(claim).iter().enumerate() {
            let mut parsed = request::parse(claim, request, class)?;
            for (alternative_index, alternative) in parsed.iter_mut().enumerate() {
                if alternative.all.is_none() {
                    continue;
                }
                let at = At {
                    claim: index,
                    request: request_index,
                    alternative: alternative_index,
                    device: 0,
                };
                let all = self.all(at, claim, alternative, pools)?;
                alternative.count = all.len();
                alternative.all = Some(all);
            }
            let counts = parsed.iter().map(|alternative| alternative.count);
            least = least.saturating_add(counts.min().unwrap_or(0));
            requests.push(parsed);
        }
        if least > MOST_DEVICES {
            return Err(format!(
                "claim {}: number of requested devices {least} exceeds the claim limit of \
                 {MOST_DEVICES}",
                key(claim)
            ));
        }
        Ok(Wanted { claim, requests })
    }

    fn all(
        &self,
        at: At,
        claim: &ResourceClaim,
        alternative: &Alternative<'_>,
        pools: &[Pool<'_>],
    ) -> Result<Vec<usize>, String> {
        for pool in pools {
            let state = match pool.condition {
                Condition::Usable => continue,
                Condition::Incomplete => "being updated",
                Condition::Invalid => "invalid",
            };
            return Err(format!(
                "claim {}, request {}: asks for all devices, but resource pool {} is currently \
                 {state}",
                key(claim),
                alternative.name,
                pool.id()
            ));
        }
        let mut all = Vec::new();
        for candidate in 0..self.candidates.len() {
            if self.selects(at, claim, alternative, candidate)?
                && self.has_capacity(alternative, candidate, None)
            {
                all.push(candidate);
            }
        }
        Ok(all)
    }

    /// Whether the device is one that the request could be given.
    pub fn selects(
        &self,
        at: At,
        claim: &ResourceClaim,
        alternative: &Alternative<'_>,
        candidate: usize,
    ) -> Result<bool, String> {
        let question = (At { device: 0, ..at }, candidate);
        if let Some(&known) = self.known.borrow().get(&question) {
            return Ok(known);
        }
        let class = alternative.class;
        let of_class = class.spec.selectors.as_deref().unwrap_or_default();
        let class_name = class.metadata.name.as_deref().unwrap_or_default();
        let selects = self
            .all_match(candidate, of_class)
            .map_err(|why| format!("class {class_name}: {why}"))?
            && self
                .all_match(candidate, alternative.selectors)
                .map_err(|why| format!("claim {}: {why}", key(claim)))?
            && self.is_for_node(candidate);
        self.known.borrow_mut().insert(question, selects);
        Ok(selects)
    }

    fn is_for_node(&self, candidate: usize) -> bool {
        let Candidate { slice, device, .. } = self.candidates[candidate];
        slice.spec.per_device_node_selection != Some(true)
            || pools::device_is_for(self.node, device)
    }

    fn all_match(&self, candidate: usize, selectors: &[DeviceSelector]) -> Result<bool, String> {
        for (index, selector) in selectors.iter().enumerate() {
            let Some(cel) = &selector.cel else {
                continue;
            };
            let value = self.values[candidate].get_or_init(|| {
                let Candidate { slice, device, .. } = self.candidates[candidate];
                DeviceValue::new(&slice.spec.driver, device)
            });
            let matches = value.as_ref().map_err(String::clone).and_then(|value| {
                let selectors = &self.inventory.selectors;
                selectors.matches(&cel.expression, value)
            });
            if !matches.map_err(|why| format!("selector #{index}: {why}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether enough of the device is left, beside what this search has given away.
    pub fn has_capacity(
        &self,
        alternative: &Alternative<'_>,
        candidate: usize,
        given: Option<&Use>,
    ) -> bool {
        let amount = |consumed: Option<&Consumed>, name: &str| {
            let amount = consumed.and_then(|consumed| consumed.get(name));
            amount.copied().unwrap_or(Amount::ZERO)
        };
        let taken = |name: &str| {
            let before = self.taken[candidate].map(|taken| &taken.consumed);
            amount(before, name).plus(amount(given.map(Use::consumed), name))
        };
        let device = self.candidates[candidate].device;
        capacity::fits(alternative.capacity, device, taken)
    }
}
