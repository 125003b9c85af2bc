//! The search for devices: one request after the other takes the first device that fits, and gives
//! it back when a later one then finds none.
//!
//! Enter at [`Search::next`].

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use coracle_api::quantity::Amount;

use super::{
    allocator::{Matcher, Wanted},
    capacity::{self, Consumed},
    pools::{self, Candidate, Counters, Pool},
    request::{Alternative, Constraint, key},
    result,
};

/// A claim gets no more devices than this.
pub(super) const MOST_DEVICES: usize = 32;
/// How long the search may take for one node.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the search is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct At {
    pub claim: usize,
    pub request: usize,
    pub alternative: usize,
    pub device: usize,
}

pub(super) enum Stop {
    /// The claim would get too many devices; another alternative may want fewer.
    TooMany,
    Fatal(String),
}

/// A device that was given to a claim.
pub(super) struct Picked {
    pub candidate: usize,
    pub request: usize,
    pub alternative: usize,
    pub share: Option<String>,
    pub consumed: Consumed,
    counted: bool,
}

/// What this search has given away of a device.
#[derive(Default)]
pub(super) struct Use {
    claims: BTreeSet<usize>,
    shares: usize,
    consumed: Consumed,
}

impl Use {
    /// Of its capacity.
    pub fn consumed(&self) -> &Consumed {
        &self.consumed
    }
}

pub(super) struct ClaimState<'p> {
    constraints: Vec<Constraint<'p>>,
    pub picked: Vec<Picked>,
    /// For each request the alternative.
    pub chosen: Vec<usize>,
}

pub(super) struct Search<'p> {
    matcher: &'p Matcher<'p>,
    wanted: &'p [Wanted<'p>],
    pools: &'p [Pool<'p>],
    claims: Vec<ClaimState<'p>>,
    uses: HashMap<usize, Use>,
    /// What is left of each pool's counters, once asked for.
    counters: HashMap<usize, Counters<'p>>,
    steps: u32,
    deadline: Instant,
}

impl<'p> Search<'p> {
    /// # Errors
    /// A constraint is of a kind that is not known.
    pub fn new(
        matcher: &'p Matcher<'p>,
        wanted: &'p [Wanted<'p>],
        pools: &'p [Pool<'p>],
    ) -> Result<Self, String> {
        let mut claims = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let devices = wanted.claim.spec.devices.as_ref();
            let constraints = devices.and_then(|devices| devices.constraints.as_ref());
            let constraints = constraints.into_iter().flatten().enumerate();
            let constraints = constraints.map(|(index, constraint)| {
                Constraint::of(constraint).ok_or_else(|| {
                    format!(
                        "claim {}, constraint #{index}: empty constraint (unsupported constraint \
                         type?)",
                        key(wanted.claim)
                    )
                })
            });
            claims.push(ClaimState {
                constraints: constraints.collect::<Result<_, _>>()?,
                picked: Vec::new(),
                chosen: vec![0; wanted.requests.len()],
            });
        }
        Ok(Search {
            matcher,
            wanted,
            pools,
            claims,
            uses: HashMap::new(),
            counters: HashMap::new(),
            steps: 0,
            deadline: Instant::now() + PATIENCE,
        })
    }

    /// Whether all that is still wanted from `at` on can be had. `within`: one alternative has
    /// been decided on; `from`: devices before this one were tried already.
    pub fn next(&mut self, at: At, within: bool, from: usize) -> Result<bool, Stop> {
        self.check_time()?;
        let Some(wanted) = self.wanted.get(at.claim) else {
            return Ok(true);
        };
        let Some(request) = wanted.requests.get(at.request) else {
            let claim = at.claim + 1;
            return match self.next(
                At {
                    claim,
                    ..At::default()
                },
                false,
                0,
            ) {
                Err(Stop::TooMany) => Ok(false),
                outcome => outcome,
            };
        };
        if !within
            && request
                .iter()
                .any(|alternative| alternative.parent.is_some())
        {
            return self.choose(at, request.len());
        }
        let alternative = &request[at.alternative];
        if alternative.all.as_ref().is_some_and(Vec::is_empty) {
            return Ok(false);
        }
        if at.device >= alternative.count {
            let next = At {
                claim: at.claim,
                request: at.request + 1,
                ..At::default()
            };
            return self.next(next, false, 0);
        }
        let missing = alternative.count - at.device;
        if self.claims[at.claim].picked.len() + missing > MOST_DEVICES {
            return Err(Stop::TooMany);
        }
        match &alternative.all {
            Some(all) => self.take_this(at, within, all[at.device]),
            None => self.take_any(at, within, from),
        }
    }

    /// What each claim was given.
    pub fn claims(&self) -> impl Iterator<Item = &ClaimState<'p>> {
        self.claims.iter()
    }

    fn check_time(&mut self) -> Result<(), Stop> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(256) && Instant::now() > self.deadline {
            let node = self.matcher.node.metadata.name.as_deref();
            return Err(Stop::Fatal(format!(
                "node {}: timed out trying to allocate devices",
                node.unwrap_or_default()
            )));
        }
        Ok(())
    }

    fn choose(&mut self, at: At, alternatives: usize) -> Result<bool, Stop> {
        let mut all_too_many = true;
        for alternative in 0..alternatives {
            match self.next(At { alternative, ..at }, true, 0) {
                Err(Stop::TooMany) => continue,
                Err(stop) => return Err(stop),
                Ok(true) => {
                    self.claims[at.claim].chosen[at.request] = alternative;
                    return Ok(true);
                }
                Ok(false) => all_too_many = false,
            }
        }
        if all_too_many {
            return Err(Stop::TooMany);
        }
        Ok(false)
    }

    fn take_this(&mut self, at: At, within: bool, candidate: usize) -> Result<bool, Stop> {
        if !self.take(at, candidate, true)? {
            return Ok(false);
        }
        let device = at.device + 1;
        let outcome = self.next(At { device, ..at }, within, 0);
        if !matches!(outcome, Ok(true)) {
            self.give_back(at);
        }
        outcome
    }

    fn take_any(&mut self, at: At, within: bool, from: usize) -> Result<bool, Stop> {
        let wanted = &self.wanted[at.claim];
        let alternative = &wanted.requests[at.request][at.alternative];
        for candidate in from..self.matcher.candidates.len() {
            if self.is_in_use(at, alternative, candidate) {
                continue;
            }
            let selects = self
                .matcher
                .selects(at, wanted.claim, alternative, candidate);
            if !selects.map_err(Stop::Fatal)? || !self.take(at, candidate, false)? {
                continue;
            }
            let device = at.device + 1;
            let outcome = self.next(At { device, ..at }, within, candidate + 1);
            if matches!(outcome, Ok(true)) {
                return outcome;
            }
            self.give_back(at);
            outcome?;
        }
        Ok(false)
    }

    fn is_in_use(&self, at: At, alternative: &Alternative<'_>, candidate: usize) -> bool {
        let given = self.uses.get(&candidate);
        if alternative.admin {
            return given.is_some_and(|given| given.claims.contains(&at.claim));
        }
        let taken = self.matcher.taken[candidate];
        taken.is_some_and(|taken| taken.dedicated)
            || given.is_some_and(|given| !given.claims.is_empty())
    }

    /// Gives the device to the request, if it can be. `must`: the request wants exactly it.
    fn take(&mut self, at: At, candidate: usize, must: bool) -> Result<bool, Stop> {
        let wanted = &self.wanted[at.claim];
        let alternative = &wanted.requests[at.request][at.alternative];
        let Candidate { slice, device, .. } = self.matcher.candidates[candidate];
        let given = self.uses.get(&candidate);
        if self.is_in_use(at, alternative, candidate)
            || result::is_tainted(device, alternative.tolerations)
            || !self.matcher.has_capacity(alternative, candidate, given)
        {
            return Ok(false);
        }
        let multiple = device.allow_multiple_allocations == Some(true);
        let shared = given.is_some_and(|given| given.shares > 0)
            || self.matcher.taken[candidate].is_some_and(|taken| !taken.consumed.is_empty());
        let counted = !(multiple && shared) && pools::consumption(device).next().is_some();
        if counted && !self.take_counters(candidate) {
            return Ok(false);
        }
        let state = &mut self.claims[at.claim];
        let driver = &slice.spec.driver;
        for index in 0..state.constraints.len() {
            if state.constraints[index].add(alternative, driver, device) {
                continue;
            }
            for added in &mut state.constraints[..index] {
                added.remove(alternative);
            }
            if counted {
                self.return_counters(candidate);
            }
            if must {
                return Err(Stop::Fatal(format!(
                    "claim {}, request {}: cannot add device {driver}/{}/{} because a claim \
                     constraint would not be satisfied",
                    key(wanted.claim),
                    alternative.name,
                    slice.spec.pool.name,
                    device.name
                )));
            }
            return Ok(false);
        }
        let mut picked = Picked {
            candidate,
            request: at.request,
            alternative: at.alternative,
            share: None,
            consumed: Consumed::new(),
            counted,
        };
        let given = self.uses.entry(candidate).or_default();
        if multiple {
            picked.share = Some(uuid::Uuid::new_v4().to_string());
            picked.consumed = capacity::consumed(alternative.capacity, device);
            given.shares += 1;
            for (name, amount) in &picked.consumed {
                let sum = given.consumed.entry(name.clone()).or_insert(Amount::ZERO);
                *sum = sum.plus(*amount);
            }
        } else {
            given.claims.insert(at.claim);
        }
        state.picked.push(picked);
        Ok(true)
    }

    /// Takes the claim's last device back.
    fn give_back(&mut self, at: At) {
        let alternative = &self.wanted[at.claim].requests[at.request][at.alternative];
        let state = &mut self.claims[at.claim];
        let Some(picked) = state.picked.pop() else {
            return;
        };
        for constraint in &mut state.constraints {
            constraint.remove(alternative);
        }
        let given = self.uses.entry(picked.candidate).or_default();
        if picked.share.is_some() {
            given.shares -= 1;
            for (name, amount) in &picked.consumed {
                if let Some(sum) = given.consumed.get_mut(name) {
                    *sum = sum.minus(*amount);
                }
            }
        } else {
            given.claims.remove(&at.claim);
        }
        if picked.counted {
            self.return_counters(picked.candidate);
        }
    }

    fn left(&mut self, pool: usize) -> &mut Counters<'p> {
        let (pools, taken) = (self.pools, self.matcher.taken_anywhere());
        self.counters.entry(pool).or_insert_with(|| {
            let pool = &pools[pool];
            let mut left = pool.counters.clone();
            for slice in pool.slices.iter().chain(&pool.elsewhere) {
                for device in pools::devices(slice) {
                    let pool = 0;
                    let of = Candidate {
                        slice,
                        device,
                        pool,
                    };
                    if taken.of(&of).is_none() {
                        continue;
                    }
                    for (counter, amount) in pools::consumption(device) {
                        if let Some(left) = left.get_mut(&counter) {
                            *left = left.minus(amount);
                        }
                    }
                }
            }
            left
        })
    }

    /// Takes what the device needs of its pool's counters, if there is enough.
    fn take_counters(&mut self, candidate: usize) -> bool {
        let Candidate { device, pool, .. } = self.matcher.candidates[candidate];
        let left = self.left(pool);
        for (counter, amount) in pools::consumption(device) {
            if let Some(left) = left.get_mut(&counter) {
                *left = left.minus(amount);
            }
        }
        let enough = left.values().all(|left| !left.is_negative());
        if !enough {
            self.return_counters(candidate);
        }
        enough
    }

    fn return_counters(&mut self, candidate: usize) {
        let Candidate { device, pool, .. } = self.matcher.candidates[candidate];
        let left = self.left(pool);
        for (counter, amount) in pools::consumption(device) {
            if let Some(left) = left.get_mut(&counter) {
                *left = left.plus(amount);
            }
        }
    }
}
