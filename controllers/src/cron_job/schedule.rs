//! When a CronJob is due.

use std::time::Duration;

use coracle_api::cron::Schedule;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::api::batch::v1::CronJob;

/// Upstream looks a little after the time itself, so that clocks agree that it has come.
const MARGIN: Duration = Duration::from_millis(100);

/// Times that passed without a run, beyond which something is wrong.
const MANY: i64 = 100;

const TOO_CLOSE: &str = "time difference between two schedules is less than 1 second";

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
        let Some(first) = self.next(earliest) else {
            // Such as every 31 February. Upstream has no other words for it.
            return Err(TOO_CLOSE.to_owned());
        };
        if first > now {
            return Ok(none);
        }
        let Some(second) = self.next(first).filter(|second| *second <= now) else {
            return Ok(Recent {
                time: Some(first),
                ..none
            });
        };
        let between = second.duration_since(first).as_secs();
        if between < 1 {
            return Err(TOO_CLOSE.to_owned());
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
    }

    #[test]
    fn a_schedule_that_never_comes_is_wrong() {
        let never = clock("59 23 31 2 *");
        let object = object(None, None);
        assert_eq!(
            never.due(&object, at("01:00:00")),
            Err(TOO_CLOSE.to_owned())
        );
        assert_eq!(never.wait(&object, at("01:00:00")), None);
    }

    /// Minutes from a Thursday, 10:00.
    fn thursday(minutes: i64) -> Timestamp {
        let hour: Timestamp = "2016-05-19T10:00:00Z".parse().expect("a time");
        hour + SignedDuration::from_mins(minutes)
    }

    fn from_thursday(last: Option<i64>) -> CronJob {
        let mut object = object(None, None);
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
        object.metadata.creation_timestamp = Some(time(thursday(0)));
        let status = object.status.get_or_insert_default();
        status.last_schedule_time = last.map(|last| time(thursday(last)));
        object
    }

    #[test]
    fn times_that_are_not_regular_are_found_by_the_distance_of_the_first_two() {
        const DAY: i64 = 24 * 60;
        // The schedule, the last run, now, the time that is due.
        let cases = [
            ("30 6-16/4 * * 1-5", Some(30), DAY + 31, Some(DAY + 30)),
            (
                "30 6-16/4 * * 1-5",
                Some(30),
                4 * DAY + 31,
                Some(4 * DAY + 30),
            ),
            ("30 6-16/4 * * 1-5", None, DAY + 31, Some(DAY + 30)),
            ("30 10,11,12 * * 1-5", Some(30), 30 * 60 + 30, None),
            ("*/5 * * * *", Some(30), 31, None),
            ("*/5 * * * *", Some(30), 35, Some(35)),
        ];
        for (schedule, last, now, expected) in cases {
            let due = clock(schedule).due(&from_thursday(last), thursday(now));
            let due = due.expect("a decision");
            assert_eq!(due.time, expected.map(thursday), "{schedule} at {now}");
            assert!(!due.missed_many);
        }
        // The schedule, the last run, now, the minutes to the next.
        let cases = [
            ("30 6-16/4 * * 1-5", Some(30), DAY + 31, 3 * 60 + 59),
            ("30 10,11,12 * * 1-5", Some(30), 30 * 60 + 30, 66 * 60),
            ("0 12 * * 4", Some(120), 19 * DAY + 90, 48 * 60 + 30),
        ];
        for (schedule, last, now, minutes) in cases {
            let wait = clock(schedule).wait(&from_thursday(last), thursday(now));
            let expected = Duration::from_secs(minutes * 60) + MARGIN;
            assert_eq!(wait, Some(expected), "{schedule} at {now}");
        }
    }

    #[test]
    fn more_than_a_hundred_missed_times_are_many() {
        let missed = |now| {
            let due = clock("* * * * *").due(&from_thursday(None), thursday(now));
            due.expect("a decision").missed_many
        };
        assert!(!missed(100));
        assert!(missed(101));
    }

    #[test]
    fn a_time_is_meant_in_its_zone_also_when_clocks_change() {
        let berlin = Clock {
            schedule: Schedule::parse("30 8 * * *").expect("a schedule"),
            zone: TimeZone::get("Europe/Berlin").expect("a time zone"),
        };
        let mut object = object(None, None);
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        // The clocks go forward on 29 March.
        for (last, now, due) in [
            (
                "2026-03-27T07:30:00Z",
                "2026-03-28T07:31:00Z",
                "2026-03-28T07:30:00Z",
            ),
            (
                "2026-03-28T07:30:00Z",
                "2026-03-29T06:31:00Z",
                "2026-03-29T06:30:00Z",
            ),
        ] {
            let status = object.status.get_or_insert_default();
            let meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
            status.last_schedule_time = Some(meta(time(last)));
            let found = berlin.due(&object, time(now)).expect("a decision");
            assert_eq!(found.time, Some(time(due)));
        }
    }
}
