//! When a CronJob is due.

use std::time::Duration;

use coracle_api::cron::Schedule;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::batch::v1::CronJob;

/// Upstream looks a little after the time itself, so that clocks agree that it has come.
const MARGIN: Duration = Duration::from_millis(100);

/// Times that passed without a run, beyond which something is wrong.
const MANY: i64 = 100;

/// A schedule in its time zone.
pub(super) struct Clock {
    pub schedule: Schedule,
    pub zone: TimeZone,
}

/// How a CronJob stands with its schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The last time that has come and at which there was no run.
    pub time: Option<Timestamp>,
    pub missed_many: bool,
}

struct Recent {
    earliest: Timestamp,
    time: Option<Timestamp>,
    missed: i64,
}

impl Clock {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next_after(after, &self.zone)
    }

    /// The most recent time since the last run, or since the CronJob is there. `bounded` leaves out
    /// what is too long ago for `startingDeadlineSeconds`.
    fn recent(&self, object: &CronJob, now: Timestamp, bounded: bool) -> Result<Recent, String> {
        let status = object.status.as_ref();
        let last = status.and_then(|status| status.last_schedule_time.as_ref());
        let created = object.metadata.creation_timestamp.as_ref();
        let mut earliest = last.or(created).map_or(now, |time| time.0);
        let deadline = object.spec.starting_deadline_seconds;
        if bounded && let Some(seconds) = deadline {
            let bound = now.checked_sub(SignedDuration::from_secs(seconds));
            earliest = earliest.max(bound.unwrap_or(Timestamp::MIN));
        }
        let none = Recent {
            earliest,
            time: None,
            missed: 0,
        };
        let Some(first) = self.next(earliest).filter(|first| *first <= now) else {
            return Ok(none);
        };
        let Some(second) = self.next(first).filter(|second| *second <= now) else {
            return Ok(Recent {
                time: Some(first),
                ..none
            });
        };
        let between = second.duration_since(first).as_secs();
        if between < 1 {
            return Err("time difference between two schedules is less than 1 second".to_owned());
        }
        let missed = now.duration_since(first).as_secs() / between + 1;
        // Not from the first on, which may be years ago. Schedules are not regular, so some steps
        // may be left.
        let skipped = SignedDuration::from_secs((missed - 2) * between);
        let start = first.checked_add(skipped).unwrap_or(now);
        let mut time = None;
        let mut candidate = self.next(start);
        while let Some(at) = candidate.filter(|at| *at <= now) {
            time = Some(at);
            candidate = self.next(at);
        }
        Ok(Recent {
            earliest,
            time,
            missed,
        })
    }

    pub fn due(&self, object: &CronJob, now: Timestamp) -> Result<Due, String> {
        let recent = self.recent(object, now, true)?;
        Ok(Due {
            time: recent.time,
            missed_many: recent.missed > MANY,
        })
    }

    /// How long it is to the next time; `None` when there is none.
    pub fn wait(&self, object: &CronJob, now: Timestamp) -> Option<Duration> {
        let after = match self.recent(object, now, false) {
            Ok(recent) if recent.missed == 0 => recent.time.unwrap_or(recent.earliest),
            Ok(recent) => recent.time.unwrap_or(now),
            Err(_) => now,
        };
        let next = self.next(after)?;
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        Some(wait + MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn clock(schedule: &str) -> Clock {
        Clock {
            schedule: Schedule::parse(schedule).expect("a schedule"),
            zone: TimeZone::UTC,
        }
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-01-01T{time}Z").parse().expect("a time")
    }

    fn object(last: Option<&str>, deadline: Option<i64>) -> CronJob {
        serde_json::from_value(json!({
            "metadata": { "creationTimestamp": "2026-01-01T00:00:30Z" },
            "spec": { "schedule": "", "startingDeadlineSeconds": deadline,
                "jobTemplate": { "spec": { "template": {} } } },
            "status": { "lastScheduleTime": last.map(|last| at(last).to_string()) },
        }))
        .expect("a cron job")
    }

    fn due(schedule: &str, last: Option<&str>, deadline: Option<i64>, now: &str) -> Due {
        let object = object(last, deadline);
        clock(schedule).due(&object, at(now)).expect("a decision")
    }

    #[test]
    fn the_last_time_that_has_come_counts() {
        let some = |time: &str| Due {
            time: Some(at(time)),
            missed_many: false,
        };
        let none = Due {
            time: None,
            missed_many: false,
        };
        let hourly = "0 * * * *";
        assert_eq!(due(hourly, None, None, "00:59:59"), none);
        assert_eq!(due(hourly, None, None, "01:00:00"), some("01:00:00"));
        assert_eq!(due(hourly, Some("01:00:00"), None, "01:30:00"), none);
        assert_eq!(
            due(hourly, Some("01:00:00"), None, "05:30:00"),
            some("05:00:00")
        );
        let minutes = due("* * * * *", None, None, "05:00:10");
        assert_eq!(minutes.time, Some(at("05:00:00")));
        assert!(minutes.missed_many);
        // Only the time within the deadline counts.
        let bounded = due("* * * * *", None, Some(90), "05:00:10");
        assert_eq!(bounded, some("05:00:00"));
        assert_eq!(due(hourly, None, Some(60), "05:30:00"), none);
    }

    #[test]
    fn the_wait_is_for_the_time_after() {
        let wait = |last, now| clock("0 * * * *").wait(&object(last, None), at(now));
        let seconds = |seconds| Some(Duration::from_secs(seconds) + MARGIN);
        assert_eq!(wait(None, "00:30:00"), seconds(1800));
        assert_eq!(wait(Some("01:00:00"), "01:00:01"), seconds(3599));
        assert_eq!(wait(Some("01:00:00"), "05:59:00"), seconds(60));
        // Never: there is no 30 February.
        let never = clock("0 0 30 2 *");
        assert_eq!(never.wait(&object(None, None), at("00:30:00")), None);
    }
}
