//! Which requests are under way, and which wait for their turn.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use coracle_metrics::{Collect, Description, Gauges, Held, Kind, Page, Stability};

use super::requests::Labels;
use crate::{registry::Registry, request_info::RequestInfo};

static LONGRUNNING: Gauges<7> = Gauges::new(
    "apiserver_longrunning_requests",
    Stability::Stable,
    "Watches, execs and other long-running requests that are open now.",
    Labels::NAMES,
);

pub(super) static ALL: &[&dyn Collect] = &[&LONGRUNNING];

/// How many requests of a sort are under way or wait, and the most there were in the last second:
/// what upstream shows.
pub struct Sort {
    now: AtomicU64,
    /// The second since the start of the process in the upper half, the most in the lower.
    most: AtomicU64,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Sort {
    const fn new() -> Self {
        Sort {
            now: AtomicU64::new(0),
            most: AtomicU64::new(0),
        }
    }

    fn begin(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let second = START.elapsed().as_secs();
        let most = |window: u64| {
            let most = if window >> 32 == second {
                now.max(window & 0xffff_ffff)
            } else {
                now
            };
            Some(second << 32 | most)
        };
        // The closure never declines.
        let _ = self
            .most
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, most);
    }

    fn end(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    fn most(&self) -> u64 {
        let (now, window) = (
            self.now.load(Ordering::Relaxed),
            self.most.load(Ordering::Relaxed),
        );
        let recent = START.elapsed().as_secs().saturating_sub(window >> 32) <= 1;
        if recent {
            now.max(window & 0xffff_ffff)
        } else {
            now
        }
    }
}

/// Requests of a sort, by whether they change something.
struct Sorts {
    mutating: Sort,
    read_only: Sort,
}

impl Sorts {
    const fn new() -> Self {
        Sorts {
            mutating: Sort::new(),
            read_only: Sort::new(),
        }
    }

    fn of(&'static self, info: &RequestInfo) -> Under {
        let sort = if info.read_only() {
            &self.read_only
        } else {
            &self.mutating
        };
        sort.begin();
        Under(sort)
    }
}

static IN_FLIGHT: Sorts = Sorts::new();
static IN_QUEUE: Sorts = Sorts::new();

/// Counts as one of its sort until it is dropped.
pub struct Under(&'static Sort);

impl Drop for Under {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A request under way.
pub enum InFlight {
    Short { _under: Under },
    Long { _held: Held },
}

/// Counts a request as under way until the guard is dropped.
pub fn begin(registry: &Registry, info: &RequestInfo) -> InFlight {
    if info.long_running() {
        let labels = Labels::of(registry, info);
        InFlight::Long {
            _held: LONGRUNNING.with(labels.array()).hold(),
        }
    } else {
        InFlight::Short {
            _under: IN_FLIGHT.of(info),
        }
    }
}

/// Counts a request as waiting for its turn until the guard is dropped.
pub fn wait(info: &RequestInfo) -> Under {
    IN_QUEUE.of(info)
}

pub(super) fn show(page: &mut Page) {
    let executing = Description {
        name: "apiserver_current_inflight_requests",
        stability: Stability::Stable,
        help: "Most requests under way at once in the last second, by kind (mutating or readOnly).",
    };
    let queued = Description {
        name: "apiserver_current_inqueue_requests",
        stability: Stability::Alpha,
        help: "Most requests waiting at once in the last second, by kind (mutating or readOnly).",
    };
    for (description, sorts) in [(executing, &IN_FLIGHT), (queued, &IN_QUEUE)] {
        page.family(&description, Kind::Gauge, &["request_kind"], |samples| {
            samples.add(&["mutating"], sorts.mutating.most() as f64);
            samples.add(&["readOnly"], sorts.read_only.most() as f64);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_the_last_second_is_shown() {
        let sort = Sort::new();
        sort.begin();
        sort.begin();
        sort.end();
        sort.end();
        assert_eq!(sort.most(), 2);
        sort.most
            .store(u64::from(u32::MAX) << 32 | 7, Ordering::Relaxed);
        sort.begin();
        assert_eq!(sort.most(), 1, "another second begins anew");
    }
}
