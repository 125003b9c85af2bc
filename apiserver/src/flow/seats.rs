//! The seats of the server: who has one, who waits for one.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::rules::CATCH_ALL;
use crate::lister::Shared;
use crate::metrics::flow::Limits;

/// What a request is taken to last before it is known, in seconds.
const EXPECTED_SECONDS: f64 = 0.003;

/// All seats. Cheap to clone.
#[derive(Clone)]
pub struct Seats(Arc<Mutex<State>>);

struct State {
    total: usize,
    executing: usize,
    levels: HashMap<String, Level>,
}

/// One priority level.
struct Level {
    /// Seats that are the level's own.
    nominal: usize,
    /// Of those, what others may use when the level does not.
    lendable: usize,
    /// Seats of others that the level may use.
    borrowing: usize,
    executing: usize,
    waiting: usize,
    queues: Vec<Queue>,
    hand_size: usize,
    queue_length: usize,
    /// The service that the queue served last has had: a queue that begins to be used begins
    /// here, so that it has no credit from before.
    clock: f64,
    /// No longer configured; goes when its last request does.
    gone: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<oneshot::Sender<Seat>>,
    /// Seconds of service that its requests have had.
    served: f64,
}

/// The right to be handled; free again when dropped.
pub struct Seat {
    seats: Seats,
    level: String,
    queue: Option<usize>,
    since: Instant,
}

/// No seat at the moment.
pub enum Refused {
    /// One comes on this channel.
    Wait(oneshot::Receiver<Seat>),
    /// Too many wait already.
    Full,
    /// The level lets nobody wait.
    NoQueue,
}

/// The seats of one level.
pub struct Counts {
    pub level: String,
    /// Those in use.
    #[cfg(test)]
    pub executing: usize,
    pub limits: Limits,
}

impl Seats {
    pub fn new(total: usize) -> Self {
        let mut state = State {
            total,
            executing: 0,
            levels: HashMap::new(),
        };
        // Where everybody is until there is a configuration.
        state.levels.insert(CATCH_ALL.to_owned(), Level::new(total));
        Seats(Arc::new(Mutex::new(state)))
    }

    /// Takes over the priority levels of a new configuration.
    pub fn configure(&self, levels: &[Shared<PriorityLevelConfiguration>]) {
        let configured: Vec<(String, Shape)> = levels
            .iter()
            .filter_map(|level| Some((level.metadata.name.clone()?, shape(level)?)))
            .collect();
        let shares: i64 = configured.iter().map(|(_, shape)| shape.shares).sum();
        let mut state = self.0.lock();
        let total = state.total;
        for level in state.levels.values_mut() {
            level.gone = true;
        }
        for (name, shape) in configured {
            let level = state.levels.entry(name).or_insert_with(|| Level::new(0));
            level.apply(&shape, total, shares);
        }
        if let Some(last) = state.levels.get_mut(CATCH_ALL)
            && last.gone
        {
            last.gone = false;
            last.nominal = if shares == 0 { total } else { 1 };
        }
        state.drop_gone();
    }

    /// A seat of the level for a request of the flow with this hash, or a place in the queue.
    pub fn take(&self, level: &str, flow: u64) -> Result<Seat, Refused> {
        let mut state = self.0.lock();
        let name = if state.levels.contains_key(level) {
            level
        } else {
            CATCH_ALL
        };
        let nobody_waits = state
            .levels
            .get(name)
            .is_none_or(|level| level.waiting == 0);
        if nobody_waits && state.has_seat(name) {
            state.occupy(name);
            return Ok(self.seat(name, None));
        }
        let Some(level) = state.levels.get_mut(name) else {
            return Err(Refused::NoQueue);
        };
        if level.queues.is_empty() {
            return Err(Refused::NoQueue);
        }
        let Some(index) = level.choose_queue(flow) else {
            return Err(Refused::Full);
        };
        let (sender, receiver) = oneshot::channel();
        let clock = level.clock;
        let queue = &mut level.queues[index];
        if queue.waiting.is_empty() {
            queue.served = queue.served.max(clock);
        }
        queue.waiting.push_back(sender);
        level.waiting += 1;
        Err(Refused::Wait(receiver))
    }

    pub fn counts(&self) -> Vec<Counts> {
        let state = self.0.lock();
        let mut counts: Vec<Counts> = state
            .levels
            .iter()
            .map(|(name, level)| Counts {
                level: name.clone(),
                #[cfg(test)]
                executing: level.executing,
                limits: Limits {
                    nominal: level.nominal,
                    current: state.limit(name, level),
                    lower: level.nominal - level.lendable,
                    upper: level
                        .nominal
                        .saturating_add(level.borrowing)
                        .min(state.total),
                },
            })
            .collect();
        counts.sort_by(|a, b| a.level.cmp(&b.level));
        counts
    }

    fn seat(&self, level: &str, queue: Option<usize>) -> Seat {
        Seat {
            seats: self.clone(),
            level: level.to_owned(),
            queue,
            since: Instant::now(),
        }
    }

    /// Gives a seat back and the free ones to those that wait.
    fn release(&self, level: &str, queue: Option<usize>, seconds: f64) {
        let mut granted = Vec::new();
        {
            let mut state = self.0.lock();
            state.executing = state.executing.saturating_sub(1);
            if let Some(level) = state.levels.get_mut(level) {
                level.executing = level.executing.saturating_sub(1);
                if let Some(queue) = queue.and_then(|index| level.queues.get_mut(index)) {
                    queue.served += seconds - EXPECTED_SECONDS;
                }
            }
            while let Some((name, index, sender)) = state.next_waiting() {
                granted.push((sender, self.seat(&name, Some(index))));
            }
            state.drop_gone();
        }
        // Outside of the lock: a seat that nobody waits for any more is released at once.
        for (sender, seat) in granted {
            drop(sender.send(seat));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.seats.release(&self.level, self.queue, seconds);
    }
}

impl State {
    /// Whether the level has a free seat of its own or may borrow one.
    fn has_seat(&self, name: &str) -> bool {
        let level = self.levels.get(name);
        level.is_some_and(|level| {
            level.executing < level.nominal || level.executing < self.limit(name, level)
        })
    }

    /// How many seats the level may have as things are, its own and borrowed.
    fn limit(&self, name: &str, level: &Level) -> usize {
        // What other levels do not use but do not lend either stays free for them.
        let kept: usize = self
            .levels
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(_, other)| (other.nominal - other.lendable).saturating_sub(other.executing))
            .sum();
        let free = self.total.saturating_sub(self.executing + kept);
        let most = level.nominal.saturating_add(level.borrowing);
        most.min(level.executing + free).max(level.nominal)
    }

    fn occupy(&mut self, name: &str) {
        self.executing += 1;
        if let Some(level) = self.levels.get_mut(name) {
            level.executing += 1;
        }
    }

    /// Takes the next request that can be given a seat out of its queue.
    fn next_waiting(&mut self) -> Option<(String, usize, oneshot::Sender<Seat>)> {
        let name = self
            .levels
            .iter()
            .filter(|(_, level)| level.waiting > 0)
            .map(|(name, _)| name)
            .find(|name| self.has_seat(name))?
            .clone();
        let level = self.levels.get_mut(&name)?;
        // When all have given up, none of the level waits any more.
        let Some((index, sender)) = level.pop() else {
            return self.next_waiting();
        };
        self.occupy(&name);
        Some((name, index, sender))
    }

    fn drop_gone(&mut self) {
        self.levels
            .retain(|_, level| !level.gone || level.executing > 0 || level.waiting > 0);
    }
}

/// What a level is configured to be.
struct Shape {
    shares: i64,
    lendable_percent: i64,
    borrowing_percent: Option<i64>,
    queues: usize,
    hand_size: usize,
    queue_length: usize,
}

/// `None` for levels that never wait.
fn shape(level: &PriorityLevelConfiguration) -> Option<Shape> {
    let limited = level.spec.as_ref()?.limited.as_ref()?;
    let queuing = limited
        .limit_response
        .as_ref()
        .and_then(|r| r.queuing.as_ref());
    let number = |value: Option<i32>, default: i32| {
        usize::try_from(value.filter(|value| *value > 0).unwrap_or(default)).unwrap_or(0)
    };
    Some(Shape {
        shares: i64::from(limited.nominal_concurrency_shares.unwrap_or(30)),
        lendable_percent: i64::from(limited.lendable_percent.unwrap_or(0)),
        borrowing_percent: limited.borrowing_limit_percent.map(i64::from),
        queues: queuing.map_or(0, |queuing| number(queuing.queues, 64)),
        hand_size: queuing.map_or(0, |queuing| number(queuing.hand_size, 8)),
        queue_length: queuing.map_or(0, |queuing| number(queuing.queue_length_limit, 50)),
    })
}

impl Level {
    fn new(nominal: usize) -> Self {
        Level {
            nominal,
            lendable: 0,
            borrowing: 0,
            executing: 0,
            waiting: 0,
            queues: Vec::new(),
            hand_size: 0,
            queue_length: 0,
            clock: 0.0,
            gone: false,
        }
    }

    fn apply(&mut self, shape: &Shape, total: usize, shares: i64) {
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        // Rounded up, as upstream.
        let nominal = (total * shape.shares + shares.max(1) - 1) / shares.max(1);
        let seats = |value: i64| usize::try_from(value).unwrap_or(0);
        self.gone = false;
        self.nominal = seats(nominal);
        self.lendable = seats(nominal * shape.lendable_percent / 100).min(self.nominal);
        self.borrowing = match shape.borrowing_percent {
            Some(percent) => seats(nominal * percent / 100),
            None => usize::MAX,
        };
        self.hand_size = shape.hand_size;
        self.queue_length = shape.queue_length;
        // Queues that are no longer wanted stay until they are empty.
        let used = self
            .queues
            .iter()
            .rposition(|queue| !queue.waiting.is_empty());
        let length = shape.queues.max(used.map_or(0, |index| index + 1));
        self.queues.resize_with(length, Queue::default);
    }

    /// The shortest of the few queues that the flow is dealt.
    fn choose_queue(&self, flow: u64) -> Option<usize> {
        deal(flow, self.queues.len(), self.hand_size)
            .min_by_key(|index| self.queues[*index].waiting.len())
            .filter(|index| self.queues[*index].waiting.len() < self.queue_length)
    }

    /// The first of the queue that has had the least service. Those that gave up are passed over.
    fn pop(&mut self) -> Option<(usize, oneshot::Sender<Seat>)> {
        loop {
            let (index, queue) = self
                .queues
                .iter_mut()
                .enumerate()
                .filter(|(_, queue)| !queue.waiting.is_empty())
                .min_by(|(_, a), (_, b)| a.served.total_cmp(&b.served))?;
            let sender = queue.waiting.pop_front()?;
            self.waiting -= 1;
            if sender.is_closed() {
                continue;
            }
            self.clock = self.clock.max(queue.served);
            queue.served += EXPECTED_SECONDS;
            return Some((index, sender));
        }
    }
}

/// Deals `hand` different cards of a deck, the same for the same number.
fn deal(mut number: u64, deck: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    for dealt_before in 0..hand.min(deck) {
        let left = deck - dealt_before;
        let divisor = left as u64;
        let mut card = usize::try_from(number % divisor).unwrap_or(0);
        number /= divisor;
        let mut taken = dealt.clone();
        taken.sort_unstable();
        for other in taken {
            if card >= other {
                card += 1;
            }
        }
        dealt.push(card);
    }
    dealt.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(levels: &[(&str, usize, usize)]) -> Seats {
        let seats = Seats::new(levels.iter().map(|(_, nominal, _)| nominal).sum());
        let mut state = seats.0.lock();
        state.levels.clear();
        for (name, nominal, lendable) in levels {
            let level = Level {
                lendable: *lendable,
                borrowing: usize::MAX,
                queues: (0..4).map(|_| Queue::default()).collect(),
                hand_size: 1,
                queue_length: 2,
                ..Level::new(*nominal)
            };
            state.levels.insert((*name).to_owned(), level);
        }
        drop(state);
        seats
    }

    #[test]
    fn seats_are_lent_but_not_those_that_are_kept() {
        let seats = seats(&[("a", 2, 1), ("b", 2, 0)]);
        let held: Vec<Seat> = (0..2).map_while(|_| seats.take("a", 0).ok()).collect();
        assert_eq!(held.len(), 2);
        assert!(seats.take("a", 0).is_err(), "b lends nothing");
        let own: Vec<Seat> = (0..2).map_while(|_| seats.take("b", 0).ok()).collect();
        assert_eq!(own.len(), 2);
        drop(held);
        assert!(seats.take("b", 0).is_ok(), "a lends one");
    }

    #[tokio::test]
    async fn a_free_seat_goes_to_the_flow_that_had_least() {
        let seats = seats(&[("a", 1, 0)]);
        let first = seats.take("a", 0).ok().unwrap();
        let wait = |flow| match seats.take("a", flow) {
            Err(Refused::Wait(receiver)) => receiver,
            _ => panic!("has to wait"),
        };
        let (greedy, greedy_again, modest) = (wait(0), wait(0), wait(1));
        assert!(matches!(seats.take("a", 0), Err(Refused::Full)));
        drop(first);
        let second = greedy.await.unwrap();
        drop(second);
        let third = modest.await.unwrap();
        drop(third);
        assert!(greedy_again.await.is_ok());
    }

    #[test]
    fn a_place_in_the_queue_that_is_given_up_frees_the_seat() {
        let seats = seats(&[("a", 1, 0)]);
        let first = seats.take("a", 0).ok().unwrap();
        drop(seats.take("a", 0));
        drop(first);
        assert!(seats.take("a", 0).is_ok());
        assert_eq!(seats.counts()[0].executing, 0);
    }

    #[test]
    fn hands_have_no_card_twice() {
        for number in [0, 1, 12_345, u64::MAX] {
            let mut hand: Vec<usize> = deal(number, 16, 8).collect();
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 8);
            assert!(hand.iter().all(|card| *card < 16));
        }
    }
}
