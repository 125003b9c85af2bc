//! `/containerLogs`: what a container wrote.
//!
//! Enter at [`parse_options`] and [`stream`]. A log that is followed is read across rotations;
//! otherwise only the current file is, as upstream does.

mod entry;
mod follow;
mod reader;
mod watch;

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use super::query::Query;
use entry::Output;
pub use follow::{CHUNKS_AHEAD, Liveness, stream};
pub use reader::LogOptions;

/// Why the query is no `PodLogOptions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// A value cannot be read at all.
    Undecodable,
    /// A value is out of range, or two exclude one another.
    Invalid,
}

/// Reads the query of a log request.
pub fn parse_options(query: &Query<'_>, now: Timestamp) -> Result<LogOptions, OptionsError> {
    let since_seconds: Option<i64> = number(query, "sinceSeconds")?;
    let since_time: Option<Timestamp> = number(query, "sinceTime")?;
    let tail_lines: Option<i64> = match query.get("tail") {
        Some("all") => None,
        Some(_) => number(query, "tail")?,
        None => number(query, "tailLines")?,
    };
    let limit_bytes: Option<i64> = number(query, "limitBytes")?;
    let output = match query.get("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(Output::Stdout),
        Some("Stderr") => Some(Output::Stderr),
        Some(_) => return Err(OptionsError::Invalid),
    };
    if since_seconds.is_some_and(|seconds| seconds < 1 || since_time.is_some())
        || limit_bytes.is_some_and(|bytes| bytes < 1)
    {
        return Err(OptionsError::Invalid);
    }
    let since = since_seconds.map(|seconds| {
        now.checked_sub(SignedDuration::from_secs(seconds))
            .unwrap_or(Timestamp::MIN)
    });
    let unsigned = |number: i64| u64::try_from(number).map_err(|_| OptionsError::Invalid);
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since: since.or(since_time),
        tail_lines: tail_lines.map(unsigned).transpose()?,
        limit_bytes: limit_bytes.map(unsigned).transpose()?,
        output,
    })
}

fn number<T: FromStr>(query: &Query<'_>, name: &str) -> Result<Option<T>, OptionsError> {
    match query.get(name) {
        None | Some("") => Ok(None),
        Some(value) => value
            .parse()
            .map(Some)
            .map_err(|_| OptionsError::Undecodable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_as_upstream_reads_them() {
        let now: Timestamp = "2020-01-01T00:01:00Z".parse().unwrap();
        let parse = |query: &str| parse_options(&Query::parse(query), now);
        assert_eq!(parse(""), Ok(LogOptions::default()));
        let options = parse("follow=true&sinceSeconds=60&tailLines=3&timestamps=1").unwrap();
        assert!(options.follow && options.timestamps && !options.previous);
        assert_eq!(options.since, Some("2020-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(options.tail_lines, Some(3));
        assert_eq!(parse("tail=all").unwrap().tail_lines, None);
        assert_eq!(parse("tail=7").unwrap().tail_lines, Some(7));
        for undecodable in ["tailLines=x", "sinceTime=yesterday", "limitBytes=1.5"] {
            assert_eq!(parse(undecodable), Err(OptionsError::Undecodable));
        }
        for invalid in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z",
            "stream=Both",
        ] {
            assert_eq!(parse(invalid), Err(OptionsError::Invalid), "{invalid}");
        }
    }
}
