//! API priority and fairness: who has to wait when there is more to do than the server can.
//!
//! Enter at [`FlowControl::admit`]. A request belongs to the first FlowSchema that matches it
//! and so to a priority level; a level has a share of the seats of the server, lends those it
//! does not use, and lets requests wait in fair queues. The rules are upstream's (KEP 1040);
//! lending happens at once instead of every ten seconds.

mod rules;
mod seats;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use coracle_api::Identity;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use tokio::time::timeout;

use crate::{
    Lister,
    error::ApiError,
    metrics::{
        flow::{self, Dispatched, Of},
        in_flight,
    },
    registry::Registry,
    request_info::RequestInfo,
};

use rules::{Found, Schemas, hash};
use seats::{Refused, Seats};

pub use seats::Seat;

/// How long a request waits for a seat, as upstream.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// Decides when requests are handled.
pub struct FlowControl {
    schemas: Lister<FlowSchema>,
    levels: Lister<PriorityLevelConfiguration>,
    current: ArcSwapOption<Current>,
    seats: Seats,
}

/// The configuration as it was at some generations of its objects.
struct Current {
    generations: (u64, u64),
    schemas: Schemas,
}

/// What a request was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Empty for the classification that is built in.
    pub schema_uid: String,
    pub level_uid: String,
}

/// A request that may be handled. Its seat is free again when this is dropped.
pub struct Admitted {
    pub class: Class,
    _seat: Option<Seat>,
    _counted: Dispatched,
}

impl FlowControl {
    /// `total`: the requests that may be handled at once. `None` when the registry does not
    /// serve the kinds that configure it, as in tests of a few kinds.
    pub fn new(registry: &Registry, total: usize) -> Option<Self> {
        const GROUP: &str = "flowcontrol.apiserver.k8s.io";
        registry.find(GROUP, "v1", "flowschemas")?;
        registry.find(GROUP, "v1", "prioritylevelconfigurations")?;
        Some(FlowControl {
            schemas: registry.lister(),
            levels: registry.lister(),
            current: ArcSwapOption::empty(),
            seats: Seats::new(total),
        })
    }

    /// Waits for a seat.
    ///
    /// # Errors
    /// 429 when too many wait already, or a seat does not come free in time.
    pub async fn admit(&self, user: &Identity, info: &RequestInfo) -> Result<Admitted, ApiError> {
        let current = self.current();
        let found = current.schemas.classify(user, info);
        let seat = if found.exempt {
            None
        } else {
            let flow = hash(&found.schema, found.distinguisher(user, info));
            let since = Instant::now();
            let seat = self.seat(found, flow, info).await;
            of(found).waited(since.elapsed(), seat.is_ok());
            Some(seat.map_err(|reason| {
                of(found).reject(reason);
                too_many()
            })?)
        };
        Ok(Admitted {
            class: found.class.clone(),
            _seat: seat,
            _counted: of(found).dispatch(),
        })
    }

    /// A seat, or why there is none.
    async fn seat(
        &self,
        found: &Found,
        flow: u64,
        info: &RequestInfo,
    ) -> Result<Seat, &'static str> {
        let waiting = match self.seats.take(&found.level, flow) {
            Ok(seat) => return Ok(seat),
            Err(Refused::Wait(waiting)) => waiting,
            Err(Refused::Full) => return Err("queue-full"),
            Err(Refused::NoQueue) => return Err("concurrency-limit"),
        };
        let _counted = (of(found).wait(), in_flight::wait(info));
        match timeout(MAX_WAIT, waiting).await {
            Ok(Ok(seat)) => Ok(seat),
            Ok(Err(_)) | Err(_) => Err("time-out"),
        }
    }

    /// Lets `/metrics` show how many seats each level has.
    pub fn measure(&self) {
        self.current();
        for counts in self.seats.counts() {
            flow::limits(&counts.level, counts.limits);
        }
    }

    fn current(&self) -> Arc<Current> {
        let generations = (self.schemas.generation(), self.levels.generation());
        if let Some(current) = &*self.current.load()
            && current.generations == generations
        {
            return current.clone();
        }
        let levels = self.levels.list("");
        let current = Arc::new(Current {
            generations,
            schemas: Schemas::new(&self.schemas.list(""), &levels),
        });
        self.seats.configure(&levels);
        self.current.store(Some(current.clone()));
        current
    }
}

fn of(found: &Found) -> Of<'_> {
    Of {
        schema: &found.schema,
        level: &found.level,
    }
}

fn too_many() -> ApiError {
    ApiError::too_many_requests("Too many requests, please try again later.", 1)
}
