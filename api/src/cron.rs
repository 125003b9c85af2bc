//! Schedules of CronJobs.
//!
//! [`Schedule::parse`] reads what upstream's parser reads (five fields, names of months and
//! weekdays, `@daily` and its like, `@every 1h30m`, a leading `TZ=`) and refuses the rest in its
//! words; [`Schedule::next_after`] says when to run.

use jiff::{SignedDuration, Timestamp, ToSpan, Unit, Zoned, ZonedRound, tz::TimeZone};

/// Years after which a schedule that did not come is one that never comes, such as 30 February.
const MAX_YEARS: i16 = 5;

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

type Result<T> = std::result::Result<T, ScheduleError>;

fn error<T>(message: String) -> Result<T> {
    Err(ScheduleError(message))
}

/// When a CronJob runs.
#[derive(Clone, Debug)]
pub struct Schedule {
    times: Times,
    /// The zone that the schedule itself names.
    zone: Option<TimeZone>,
}

#[derive(Clone, Debug)]
enum Times {
    Every(SignedDuration),
    At(Box<Fields>),
}

/// The minutes and so on that match, one bit each.
#[derive(Clone, Debug)]
struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

#[derive(Clone, Copy, Debug, Default)]
struct Field {
    bits: u64,
    /// Written as `*`: of the day and the weekday, the other decides then.
    any: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        self.bits & (1 << value) != 0
    }
}

/// Which values a field may have.
struct Bounds {
    min: u64,
    max: u64,
    /// Names of values, from `min` up.
    names: &'static [&'static str],
}

const MINUTE: Bounds = bounds(0, 59, &[]);
const HOUR: Bounds = bounds(0, 23, &[]);
const DAY: Bounds = bounds(1, 31, &[]);
const MONTH: Bounds = bounds(1, 12, MONTHS);
const WEEKDAY: Bounds = bounds(0, 6, WEEKDAYS);

const fn bounds(min: u64, max: u64, names: &'static [&'static str]) -> Bounds {
    Bounds { min, max, names }
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// In the words of upstream's parser, which go into the validation error.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return error("empty spec string".to_owned());
        }
        let (zone, text) = split_zone(text)?;
        let times = match text.strip_prefix('@') {
            Some(_) => descriptor(text)?,
            None => fields(text)?,
        };
        Ok(Schedule { times, zone })
    }

    /// The first time after `after`. `zone` is that of the CronJob, which counts unless the
    /// schedule names one. `None`: never, such as on 30 February.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.times {
            Times::Every(delay) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*delay).ok()
            }
            Times::At(fields) => {
                let zone = self.zone.as_ref().unwrap_or(zone);
                Some(
                    fields
                        .next_after(&after.to_zoned(zone.clone()))?
                        .timestamp(),
                )
            }
        }
    }
}

impl Fields {
    fn next_after(&self, after: &Zoned) -> Option<Zoned> {
        let last_year = after.year() + MAX_YEARS;
        let mut time = next_unit(after, Unit::Minute)?;
        while time.year() <= last_year {
            if !self.month.has(time.month()) {
                time = time.first_of_month().ok()?.checked_add(1.month()).ok()?;
                time = time.start_of_day().ok()?;
            } else if !self.has_day(&time) {
                time = time.tomorrow().ok()?.start_of_day().ok()?;
            } else if !self.hour.has(time.hour()) {
                time = next_unit(&time, Unit::Hour)?;
            } else if !self.minute.has(time.minute()) {
                time = next_unit(&time, Unit::Minute)?;
            } else {
                return Some(time);
            }
        }
        None
    }

    /// A day matches by one of both where both are given, otherwise by the one that is.
    fn has_day(&self, time: &Zoned) -> bool {
        let day = self.day.has(time.day());
        let weekday = self.weekday.has(time.weekday().to_sunday_zero_offset());
        if self.day.any || self.weekday.any {
            day && weekday
        } else {
            day || weekday
        }
    }
}

/// The start of the next minute or hour, in time that passes: an hour that the clocks skip does
/// not come, one that they repeat comes twice.
fn next_unit(time: &Zoned, unit: Unit) -> Option<Zoned> {
    let floor = ZonedRound::new()
        .smallest(unit)
        .mode(jiff::RoundMode::Floor);
    let step = match unit {
        Unit::Hour => SignedDuration::from_hours(1),
        _ => SignedDuration::from_mins(1),
    };
    time.round(floor).ok()?.checked_add(step).ok()
}

/// Splits off `TZ=` or `CRON_TZ=` and the name of a zone.
fn split_zone(text: &str) -> Result<(Option<TimeZone>, &str)> {
    let Some(rest) = text
        .strip_prefix("TZ=")
        .or_else(|| text.strip_prefix("CRON_TZ="))
    else {
        return Ok((None, text));
    };
    let Some((name, rest)) = rest.split_once(' ') else {
        let start = text.len() - rest.len();
        return error(format!(
            "invalid schedule format: runtime error: slice bounds out of range [{start}:-1]"
        ));
    };
    let zone = time_zone(name)
        .map_err(|problem| ScheduleError(format!("provided bad location {name}: {problem}")))?;
    Ok((Some(zone), rest.trim()))
}

/// The time zone of a name, which is spelt exactly as the time zone database does.
///
/// # Errors
/// `unknown time zone X`.
pub fn time_zone(name: &str) -> std::result::Result<TimeZone, String> {
    if matches!(name, "" | "UTC") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name)
        .ok()
        .filter(|zone| zone.iana_name() == Some(name))
        .ok_or_else(|| format!("unknown time zone {name}"))
}

fn fields(text: &str) -> Result<Times> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let &[minute, hour, day, month, weekday] = fields.as_slice() else {
        return error(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    };
    Ok(Times::At(Box::new(Fields {
        minute: field(minute, &MINUTE)?,
        hour: field(hour, &HOUR)?,
        day: field(day, &DAY)?,
        month: field(month, &MONTH)?,
        weekday: field(weekday, &WEEKDAY)?,
    })))
}

fn descriptor(text: &str) -> Result<Times> {
    match text {
        "@yearly" | "@annually" => fields("0 0 1 1 *"),
        "@monthly" => fields("0 0 1 * *"),
        "@weekly" => fields("0 0 * * 0"),
        "@daily" | "@midnight" => fields("0 0 * * *"),
        "@hourly" => fields("0 * * * *"),
        _ => match text.strip_prefix("@every ") {
            None => error(format!("unrecognized descriptor: {text}")),
            Some(delay) => match go_duration(delay) {
                Err(problem) => error(format!("failed to parse duration {text}: {problem}")),
                // Whole seconds, one at least.
                Ok(delay) => Ok(Times::Every(SignedDuration::from_secs(
                    delay.as_secs().max(1),
                ))),
            },
        },
    }
}

/// A list of ranges.
fn field(text: &str, bounds: &Bounds) -> Result<Field> {
    let mut field = Field::default();
    for text in text.split(',').filter(|text| !text.is_empty()) {
        let range = range(text, bounds)?;
        field.bits |= range.bits;
        field.any |= range.any;
    }
    Ok(field)
}

/// `5`, `1-5`, `*`, each with or without `/step`; `5/2` means from 5 on.
fn range(text: &str, bounds: &Bounds) -> Result<Field> {
    let (ends, step) = text.split_once('/').unzip();
    let ends: Vec<&str> = ends.unwrap_or(text).split('-').collect();
    let any = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends.as_slice() {
        _ if any => (bounds.min, bounds.max),
        [one] => {
            let value = value(one, bounds.names, bounds.min)?;
            (value, value)
        }
        [start, end] => (
            value(start, bounds.names, bounds.min)?,
            value(end, bounds.names, bounds.min)?,
        ),
        _ => return error(format!("too many hyphens: {text}")),
    };
    if step.is_some_and(|step| step.contains('/')) {
        return error(format!("too many slashes: {text}"));
    }
    let step = match step {
        None => 1,
        Some(step) => {
            if ends.len() == 1 {
                end = bounds.max;
            }
            value(step, &[], 0)?
        }
    };
    check_range(start, end, step, text, bounds)?;
    let mut bits = 0;
    let mut bit = start;
    while bit <= end {
        bits |= 1 << bit;
        bit = bit.saturating_add(step);
    }
    Ok(Field {
        bits,
        any: any && step == 1,
    })
}

fn check_range(start: u64, end: u64, step: u64, text: &str, bounds: &Bounds) -> Result<()> {
    let Bounds { min, max, .. } = bounds;
    if start < *min {
        return error(format!(
            "beginning of range ({start}) below minimum ({min}): {text}"
        ));
    }
    if end > *max {
        return error(format!(
            "end of range ({end}) above maximum ({max}): {text}"
        ));
    }
    if start > end {
        return error(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == 0 {
        return error(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

/// A number, or the name of one.
fn value(text: &str, names: &[&str], first: u64) -> Result<u64> {
    let lower = text.to_lowercase();
    if let Some(index) = names.iter().position(|name| *name == lower) {
        return Ok(first + index as u64);
    }
    let number: i64 = text.parse().or_else(|problem: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let problem = match problem.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        error(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {problem}"
        ))
    })?;
    u64::try_from(number)
        .or_else(|_| error(format!("negative number ({number}) not allowed: {text}")))
}

/// A duration as Go writes them: `1h30m`, `1.5s`.
fn go_duration(text: &str) -> std::result::Result<SignedDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let length = end_of(rest, |letter| letter == '.' || letter.is_ascii_digit());
        let (number, after) = rest.split_at(length);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let length = end_of(after, |letter| letter != '.' && !letter.is_ascii_digit());
        let (unit, after) = after.split_at(length);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        seconds += number * unit;
        rest = after;
    }
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    // Go counts nanoseconds in 64 bits.
    if seconds * 1e9 > i64::MAX as f64 {
        return Err(invalid());
    }
    SignedDuration::try_from_secs_f64(sign * seconds).map_err(|_| invalid())
}

fn end_of(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|letter| !is_part(letter)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_come_in_time() {
        let cases = [
            (
                "* * * * *",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:01:00Z",
            ),
            (
                "*/15 * * * *",
                "UTC",
                "2026-01-01T00:07:30Z",
                "2026-01-01T00:15:00Z",
            ),
            (
                "0 3 * * mon-FRI",
                "UTC",
                "2026-01-02T04:00:00Z",
                "2026-01-05T03:00:00Z",
            ),
            // Both days given: either will do.
            (
                "0 0 13 * 5",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00Z",
            ),
            (
                "0 0 29 feb ?",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            (
                "5/20 10 * * *",
                "UTC",
                "2026-01-01T10:05:00Z",
                "2026-01-01T10:25:00Z",
            ),
            (
                "@monthly",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2026-02-01T00:00:00Z",
            ),
            (
                "@every 90s",
                "UTC",
                "2026-01-01T00:00:00.5Z",
                "2026-01-01T00:01:30Z",
            ),
            (
                "@daily",
                "Asia/Tokyo",
                "2026-01-01T00:00:00Z",
                "2026-01-01T15:00:00Z",
            ),
            (
                "TZ=Asia/Tokyo 0 0 * * *",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2026-01-01T15:00:00Z",
            ),
            // The hour that the clocks skip does not come, the repeated one does twice.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T12:00:00Z",
                "2026-03-30T00:30:00Z",
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
            ),
        ];
        for (schedule, zone, after, next) in cases {
            let schedule_ = Schedule::parse(schedule).expect(schedule);
            let after = after.parse().expect("a time");
            let zone = time_zone(zone).expect("a zone");
            let actual = schedule_.next_after(after, &zone);
            assert_eq!(actual, next.parse().ok(), "{schedule}");
        }
        let never = Schedule::parse("0 0 30 2 *").expect("a schedule");
        assert_eq!(
            never.next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC),
            None
        );
    }

    #[test]
    fn bad_schedules_are_refused() {
        let cases = [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("@often", "unrecognized descriptor: @often"),
            (
                "@every x",
                "failed to parse duration @every x: time: invalid duration \"x\"",
            ),
            (
                "@every 5",
                "failed to parse duration @every 5: time: missing unit in duration \"5\"",
            ),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "error * * * *",
                "failed to parse int from error: strconv.Atoi: parsing \"error\": invalid syntax",
            ),
            (
                "TZ=Moon * * * * *",
                "provided bad location Moon: unknown time zone Moon",
            ),
            (
                "TZ=0",
                "invalid schedule format: runtime error: slice bounds out of range [3:-1]",
            ),
        ];
        for (schedule, message) in cases {
            let problem = Schedule::parse(schedule).expect_err(schedule);
            assert_eq!(problem.to_string(), message, "{schedule}");
        }
    }
}
