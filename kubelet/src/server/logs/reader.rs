//! Reads a log file forward from where it is to start, and renders what the client asked for.
//! Blocking, and without knowledge of containers: [`super::follow`] drives it.

use std::io::{self, BufRead as _, BufReader, Read, Seek, SeekFrom};

use jiff::Timestamp;

use super::entry::{Format, Output, fixed_width};

/// Bytes read at a time while searching for the start of the last lines.
const TAIL_BLOCK_BYTES: u64 = 64 << 10;
/// Longer lines than runtimes write (16 KiB of content) are broken up rather than buffered.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// What of the log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    /// Only entries at or after this time.
    pub since: Option<Timestamp>,
    /// Entries counted from the end of the file.
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Only this output; both otherwise.
    pub output: Option<Output>,
}

/// How far a [`Reader`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to read.
    More,
    /// The file ends here, for now.
    End,
    /// All that was asked for has been given.
    Complete,
}

/// What outlives a rotation of the file.
#[derive(Debug)]
struct Filter {
    options: LogOptions,
    remaining_bytes: u64,
    /// The next entry begins a line.
    at_line_start: bool,
}

/// Reads one log file.
#[derive(Debug)]
pub struct Reader<F> {
    file: BufReader<F>,
    format: Option<Format>,
    /// Of an entry that was not wholly written yet.
    line: Vec<u8>,
    filter: Filter,
    /// Entries still to give, when their number was fixed at the start.
    remaining_entries: Option<u64>,
}

impl<F: Read + Seek> Reader<F> {
    /// Starts at the entry that the options ask for.
    pub fn new(mut file: F, options: LogOptions) -> io::Result<Self> {
        let start = match options.tail_lines {
            Some(lines) => start_of_tail(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        Ok(Reader {
            file: BufReader::with_capacity(32 << 10, file),
            format: None,
            line: Vec::new(),
            remaining_entries: options.tail_lines.filter(|_| !options.follow),
            filter: Filter {
                remaining_bytes: options.limit_bytes.unwrap_or(u64::MAX),
                at_line_start: true,
                options,
            },
        })
    }

    /// The reader of the file that took this one's place, from its start; `self` is at its end.
    pub fn rotate(self, file: F) -> Self {
        Reader {
            file: BufReader::with_capacity(32 << 10, file),
            format: self.format,
            line: Vec::new(),
            filter: self.filter,
            remaining_entries: self.remaining_entries,
        }
    }

    /// Appends to `out` what the log has, until there are `limit` bytes or more.
    ///
    /// `finished`: nobody writes to the file any more, so that an entry without newline at its
    /// end is given out as it is.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if the file is no log.
    pub fn read(
        &mut self,
        out: &mut Vec<u8>,
        limit: usize,
        finished: bool,
    ) -> io::Result<Progress> {
        while out.len() < limit {
            if self.remaining_entries == Some(0) || self.filter.remaining_bytes == 0 {
                return Ok(Progress::Complete);
            }
            let room = MAX_LINE_BYTES - self.line.len() as u64;
            (&mut self.file)
                .take(room)
                .read_until(b'\n', &mut self.line)?;
            let whole = self.line.ends_with(b"\n") || self.line.len() as u64 == MAX_LINE_BYTES;
            if self.line.is_empty() || !(whole || finished) {
                return Ok(Progress::End);
            }
            self.give(out)?;
            self.line.clear();
            if !whole {
                return Ok(Progress::End);
            }
        }
        Ok(Progress::More)
    }

    /// Renders the line that was read. One that is no entry is left out, unless it is the first.
    fn give(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let format = match self.format {
            Some(format) => format,
            None => *self.format.insert(Format::of(&self.line).ok_or_else(|| {
                let line = String::from_utf8_lossy(&self.line);
                let message =
                    format!("failed to get parse function: unsupported log format: {line:?}");
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?),
        };
        let Some(entry) = format.parse(&self.line) else {
            tracing::debug!("a line of the log file is no log entry");
            return Ok(());
        };
        let filter = &mut self.filter;
        let options = &filter.options;
        let too_old = options.since.is_some_and(|since| entry.timestamp < since);
        let wanted = options.output.is_none_or(|output| output == entry.output);
        if !too_old && wanted {
            let start = out.len();
            if options.timestamps && filter.at_line_start {
                out.extend(fixed_width(&entry.timestamp_text).as_bytes());
                out.push(b' ');
            }
            out.extend(&*entry.content);
            let length = (out.len() - start) as u64;
            let kept = length.min(filter.remaining_bytes);
            filter.remaining_bytes -= kept;
            out.truncate(start + kept as usize);
        }
        filter.at_line_start = entry.content.is_empty() || entry.content.ends_with(b"\n");
        if let Some(remaining) = &mut self.remaining_entries {
            *remaining -= 1;
        }
        Ok(())
    }
}

/// The offset at which the last `lines` lines start. Text after the last newline is no line
/// and does not count.
fn start_of_tail(file: &mut (impl Read + Seek), lines: u64) -> io::Result<u64> {
    let mut right = file.seek(SeekFrom::End(0))?;
    let mut newlines = 0;
    let mut block = Vec::new();
    while right > 0 {
        let left = right.saturating_sub(TAIL_BLOCK_BYTES);
        file.seek(SeekFrom::Start(left))?;
        block.clear();
        file.take(right - left).read_to_end(&mut block)?;
        for newline in memchr::memrchr_iter(b'\n', &block) {
            newlines += 1;
            if newlines > lines {
                return Ok(left + newline as u64 + 1);
            }
        }
        right = left;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const LOG: &str = "\
2016-10-06T00:17:01Z stdout F one\n\
2016-10-06T00:17:02Z stderr P two \n\
2016-10-06T00:17:02Z stderr F two\n\
no entry at all\n\
2016-10-06T00:17:03.5Z stdout F three\n";

    fn read(log: &str, options: LogOptions) -> String {
        let mut reader = Reader::new(Cursor::new(log.as_bytes().to_vec()), options).unwrap();
        let mut out = Vec::new();
        while reader.read(&mut out, usize::MAX, true).unwrap() == Progress::More {}
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn options_select_and_render() {
        let all = LogOptions::default();
        let cases = [
            (all.clone(), "one\ntwo two\nthree\n"),
            (
                LogOptions {
                    timestamps: true,
                    ..all.clone()
                },
                "2016-10-06T00:17:01.000000000Z one\n\
                 2016-10-06T00:17:02.000000000Z two two\n\
                 2016-10-06T00:17:03.500000000Z three\n",
            ),
            (
                LogOptions {
                    since: Some("2016-10-06T00:17:03Z".parse().unwrap()),
                    ..all.clone()
                },
                "three\n",
            ),
            (
                LogOptions {
                    tail_lines: Some(1),
                    ..all.clone()
                },
                "three\n",
            ),
            (
                LogOptions {
                    tail_lines: Some(0),
                    ..all.clone()
                },
                "",
            ),
            (
                LogOptions {
                    tail_lines: Some(99),
                    ..all.clone()
                },
                "one\ntwo two\nthree\n",
            ),
            (
                LogOptions {
                    limit_bytes: Some(6),
                    ..all.clone()
                },
                "one\ntw",
            ),
            (
                LogOptions {
                    output: Some(Output::Stderr),
                    ..all
                },
                "two two\n",
            ),
        ];
        for (options, expected) in cases {
            assert_eq!(read(LOG, options.clone()), expected, "{options:?}");
        }
    }

    #[test]
    fn the_tail_is_found_across_blocks() {
        let log: String = (0..10_000)
            .map(|number| format!("2016-10-06T00:17:01Z stdout F line {number}\n"))
            .collect();
        for lines in [1, 1000, 5000, 9_999, 10_000] {
            let options = LogOptions {
                tail_lines: Some(lines),
                ..LogOptions::default()
            };
            let text = read(&log, options);
            assert_eq!(text.lines().count() as u64, lines);
            assert!(text.ends_with("line 9999\n"));
        }
    }

    #[test]
    fn an_unfinished_entry_waits_for_its_end() {
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let mut reader = Reader::new(Cursor::new(Vec::new()), options).unwrap();
        let mut out = Vec::new();
        let write = |reader: &mut Reader<Cursor<Vec<u8>>>, text: &str| {
            let file = reader.file.get_mut();
            file.get_mut().extend(text.as_bytes());
        };
        write(&mut reader, "2016-10-06T00:17:01Z stdout F on");
        assert_eq!(reader.read(&mut out, 99, false).unwrap(), Progress::End);
        assert!(out.is_empty());
        write(&mut reader, "e\n2016-10-06T00:17:01Z stdout F tw");
        assert_eq!(reader.read(&mut out, 99, false).unwrap(), Progress::End);
        assert_eq!(out, b"one\n");
        assert_eq!(reader.read(&mut out, 99, true).unwrap(), Progress::End);
        assert_eq!(out, b"one\ntw");
    }

    #[test]
    fn a_file_that_is_no_log_is_refused() {
        let file = Cursor::new(b"hello\n".to_vec());
        let mut reader = Reader::new(file, LogOptions::default()).unwrap();
        let error = reader.read(&mut Vec::new(), 99, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to get parse function: unsupported log format: \"hello\\n\""
        );
    }

    #[test]
    fn long_output_is_given_in_pieces() {
        let mut reader = Reader::new(Cursor::new(LOG.as_bytes()), LogOptions::default()).unwrap();
        let mut out = Vec::new();
        assert_eq!(reader.read(&mut out, 1, true).unwrap(), Progress::More);
        assert_eq!(out, b"one\n");
    }
}
