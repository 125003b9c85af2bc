//! One entry of a container's log file, in the CRI's format or Docker's JSON.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

/// Which of the container's outputs an entry is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// An entry: a line, or a part of a line that was too long for one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub timestamp: Timestamp,
    /// The timestamp as it was written, in its own zone.
    pub timestamp_text: Cow<'a, str>,
    pub output: Output,
    /// Ends with a newline unless the line goes on in the next entry.
    pub content: Cow<'a, [u8]>,
}

/// How a file is written; its first line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Cri,
    DockerJson,
}

impl Format {
    pub fn of(line: &[u8]) -> Option<Self> {
        [Format::Cri, Format::DockerJson]
            .into_iter()
            .find(|format| format.parse(line).is_some())
    }

    /// Reads a line of the file; it ends with a newline unless the file ends before.
    pub fn parse(self, line: &[u8]) -> Option<Entry<'_>> {
        match self {
            Format::Cri => parse_cri(line),
            Format::DockerJson => parse_json(line),
        }
    }
}

/// `2016-10-06T00:17:09.669794202Z stdout P content`, with F (full) or P (partial) as the
/// first of the tags.
fn parse_cri(line: &[u8]) -> Option<Entry<'_>> {
    let (timestamp, line) = split(line)?;
    let (output, line) = split(line)?;
    let (tags, mut content) = split(line)?;
    let text = std::str::from_utf8(timestamp).ok()?;
    let partial = tags.split(|&byte| byte == b':').next() == Some(b"P".as_slice());
    if partial {
        content = content.strip_suffix(b"\n").unwrap_or(content);
    }
    Some(Entry {
        timestamp: text.parse().ok()?,
        timestamp_text: Cow::Borrowed(text),
        output: parse_output(output)?,
        content: Cow::Borrowed(content),
    })
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', line)?;
    Some((&line[..space], &line[space + 1..]))
}

fn parse_output(name: &[u8]) -> Option<Output> {
    match name {
        b"stdout" => Some(Output::Stdout),
        b"stderr" => Some(Output::Stderr),
        _ => None,
    }
}

#[derive(Deserialize)]
struct JsonEntry {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: String,
}

/// `{"log":"content\n","stream":"stdout","time":"2016-10-20T18:39:20.57606443Z"}`
fn parse_json(line: &[u8]) -> Option<Entry<'_>> {
    let entry: JsonEntry = serde_json::from_slice(line).ok()?;
    Some(Entry {
        timestamp: entry.time.parse().ok()?,
        timestamp_text: Cow::Owned(entry.time),
        output: parse_output(entry.stream.as_bytes())?,
        content: Cow::Owned(entry.log.into_bytes()),
    })
}

/// The timestamp with nine digits after the point, as Kubernetes prints it.
pub fn fixed_width(timestamp: &str) -> String {
    let time_start = timestamp.find('T').map_or(0, |position| position + 1);
    let zone_start = timestamp[time_start..]
        .find(['Z', '+', '-'])
        .map_or(timestamp.len(), |position| time_start + position);
    let (clock, zone) = timestamp.split_at(zone_start);
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    format!("{seconds}.{fraction:0<9}{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(Output, String)> {
        let entry = Format::of(line.as_bytes())?.parse(line.as_bytes())?;
        let content = String::from_utf8(entry.content.into_owned()).unwrap();
        Some((entry.output, content))
    }

    #[test]
    fn entries_as_runtimes_write_them() {
        let cases = [
            (
                "2016-10-06T00:17:09.669794202Z stdout F log content 1\n",
                Some((Output::Stdout, "log content 1\n")),
            ),
            (
                "2016-10-06T00:17:09.669794203Z stderr P part\n",
                Some((Output::Stderr, "part")),
            ),
            (
                "2016-10-06T00:17:09+02:00 stderr F:later \n",
                Some((Output::Stderr, "\n")),
            ),
            (
                r#"{"log":"content 1\n","stream":"stdout","time":"2016-10-20T18:39:20.57606443Z"}"#,
                Some((Output::Stdout, "content 1\n")),
            ),
            ("unix stderr F text\n", None),
            ("2016-10-06T00:17:09.669794203Z stdin F text\n", None),
            ("2016-10-06T00:17:09.669794203Z stdout text\n", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(output, text)| (output, text.to_owned()));
            assert_eq!(parsed(line), expected, "{line}");
        }
    }

    #[test]
    fn timestamps_are_printed_with_nine_digits() {
        let cases = [
            ("2016-10-06T00:17:09.6Z", "2016-10-06T00:17:09.600000000Z"),
            ("2016-10-06T00:17:09Z", "2016-10-06T00:17:09.000000000Z"),
            (
                "2016-10-06T00:17:09.123456789+02:00",
                "2016-10-06T00:17:09.123456789+02:00",
            ),
            (
                "2016-10-06T00:17:09.5-07:00",
                "2016-10-06T00:17:09.500000000-07:00",
            ),
        ];
        for (written, printed) in cases {
            assert_eq!(fixed_width(written), printed);
        }
    }
}
