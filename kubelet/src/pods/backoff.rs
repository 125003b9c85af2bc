//! How long containers that end wait before they are started again.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

const BASE: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    /// When the delay was last raised.
    at: Timestamp,
}

/// The delays of one pod's containers: 10 s, doubled by each end, at most 5 minutes, and afresh
/// after 10 minutes without one (client-go's `flowcontrol.Backoff`).
#[derive(Clone, Debug, Default)]
pub struct CrashLoop(HashMap<String, Entry>);

/// Whether a container may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Start,
    /// Not before then; the whole delay is told too.
    Wait {
        until: Timestamp,
        delay: Duration,
    },
}

impl CrashLoop {
    /// Looks whether a container that ended at `finished_at` may start, and counts the start.
    pub fn ask(&mut self, container: &str, finished_at: Timestamp, now: Timestamp) -> Verdict {
        let expired = |entry: &Entry| since(entry.at, finished_at) > MAX * 2;
        let known = self
            .0
            .get(container)
            .copied()
            .filter(|entry| !expired(entry));
        if let Some(entry) = known
            && since(finished_at, now) < entry.delay
        {
            return Verdict::Wait {
                until: finished_at + entry.delay,
                delay: entry.delay,
            };
        }
        let delay = known.map_or(BASE, |entry| (entry.delay * 2).min(MAX));
        let entry = Entry { delay, at: now };
        self.0.insert(container.to_owned(), entry);
        Verdict::Start
    }
}

fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    let milliseconds = later.as_millisecond() - earlier.as_millisecond();
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// A duration of whole seconds as Go prints it: `10s`, `2m40s`.
pub fn print(delay: Duration) -> String {
    match (delay.as_secs() / 60, delay.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn delays_double_up_to_five_minutes() {
        let mut backoff = CrashLoop::default();
        let mut now = 1000;
        let mut delays = Vec::new();
        for _ in 0..8 {
            let finished = at(now);
            match backoff.ask("c", finished, finished) {
                Verdict::Start => delays.push("0".to_owned()),
                Verdict::Wait { until, delay } => {
                    delays.push(print(delay));
                    now = until.as_second();
                    assert_eq!(backoff.ask("c", finished, until), Verdict::Start);
                }
            }
        }
        assert_eq!(
            delays,
            ["0", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]
        );
    }

    #[test]
    fn a_container_that_ran_long_starts_at_once() {
        let mut backoff = CrashLoop::default();
        assert_eq!(backoff.ask("c", at(0), at(0)), Verdict::Start);
        assert_eq!(backoff.ask("c", at(100), at(110)), Verdict::Start);
        let late = at(110 + 601);
        assert_eq!(backoff.ask("c", late, late), Verdict::Start);
        let Verdict::Wait { delay, .. } = backoff.ask("c", late, late) else {
            panic!("it ended at once");
        };
        assert_eq!(delay, BASE);
    }
}
