//! How Go reads JSON, base64 and times, where that differs from Rust's libraries or where clients
//! see the words of its errors.

/// Go's decoder nests no deeper.
const MAX_DEPTH: usize = 10_000;
const END: &str = "unexpected end of JSON input";

/// Why a text is no JSON, in Go's words; `None` when it is.
pub fn syntax_error(json: &[u8]) -> Option<String> {
    let mut scanner = Scanner { json, at: 0 };
    scanner.document().err()
}

/// A reader of JSON that only looks for what is wrong.
struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), String> {
        // The arrays and objects that are open: whether each is an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            let closed_at_once = self.value_or_end(&mut open)?;
            if !closed_at_once {
                continue;
            }
            // A value is complete: what may follow depends on what it stands in.
            loop {
                let Some(&is_object) = open.last() else {
                    return match self.skip_space() {
                        None => Ok(()),
                        Some(byte) => Err(wrong(byte, "after top-level value")),
                    };
                };
                let byte = self.skip_space().ok_or(END)?;
                self.at += 1;
                match (byte, is_object) {
                    (b',', true) => {
                        self.key()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => drop(open.pop()),
                    (byte, true) => return Err(wrong(byte, "after object key:value pair")),
                    (byte, false) => return Err(wrong(byte, "after array element")),
                }
            }
        }
    }

    /// Reads a scalar or the start of an array or object; whether a whole value was read.
    fn value_or_end(&mut self, open: &mut Vec<bool>) -> Result<bool, String> {
        let byte = self.skip_space().ok_or(END)?;
        self.at += 1;
        match byte {
            b'{' | b'[' if open.len() >= MAX_DEPTH => Err("exceeded max depth".to_owned()),
            b'{' => {
                if self.skip_space() == Some(b'}') {
                    self.at += 1;
                    return Ok(true);
                }
                open.push(true);
                self.key()?;
                Ok(false)
            }
            b'[' => {
                if self.skip_space() == Some(b']') {
                    self.at += 1;
                    return Ok(true);
                }
                open.push(false);
                Ok(false)
            }
            b'"' => self.string().map(|()| true),
            b't' => self.literal("true").map(|()| true),
            b'f' => self.literal("false").map(|()| true),
            b'n' => self.literal("null").map(|()| true),
            b'-' | b'0'..=b'9' => self.number(byte).map(|()| true),
            byte => Err(wrong(byte, "looking for beginning of value")),
        }
    }

    fn skip_space(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.json.get(self.at) {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.json.get(self.at).copied().ok_or(END)?;
        self.at += 1;
        Ok(byte)
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<(), String> {
        match self.skip_space().ok_or(END)? {
            b'"' => self.at += 1,
            byte => return Err(wrong(byte, "looking for beginning of object key string")),
        }
        self.string()?;
        match self.skip_space().ok_or(END)? {
            b':' => self.at += 1,
            byte => return Err(wrong(byte, "after object key")),
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.next()?;
                            if !byte.is_ascii_hexdigit() {
                                return Err(wrong(byte, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    byte => return Err(wrong(byte, "in string escape code")),
                },
                byte if byte < 0x20 => return Err(wrong(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn literal(&mut self, name: &str) -> Result<(), String> {
        for expected in name.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                let expected = char::from(expected);
                let context = format!("in literal {name} (expecting '{expected}')");
                return Err(wrong(byte, &context));
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Result<(), String> {
        let mut first = first;
        if first == b'-' {
            first = self.next()?;
            if !first.is_ascii_digit() {
                return Err(wrong(first, "in numeric literal"));
            }
        }
        if first != b'0' {
            self.digits();
        }
        if self.json.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.one_digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if let Some(b'e' | b'E') = self.json.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.json.get(self.at) {
                self.at += 1;
            }
            self.one_digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn one_digit(&mut self, context: &str) -> Result<(), String> {
        match self.next()? {
            byte if byte.is_ascii_digit() => Ok(()),
            byte => Err(wrong(byte, context)),
        }
    }

    fn digits(&mut self) {
        while self.json.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn wrong(byte: u8, context: &str) -> String {
    let shown = match byte {
        b'\'' => "\\'".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        byte if byte < 0x20 || byte == 0x7f => format!("\\x{byte:02x}"),
        byte @ (0x80..=0xa0 | 0xad) => format!("\\u{byte:04x}"),
        byte => char::from(byte).to_string(),
    };
    format!("invalid character '{shown}' {context}")
}

/// Standard base64 with padding. Line ends are skipped, and bits behind the last byte ignored.
///
/// # Errors
/// Go's text, which has the offset of the first wrong byte.
pub fn base64(text: &str) -> Result<Vec<u8>, String> {
    let text = text.as_bytes();
    let illegal = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let is_line_end = |byte: u8| matches!(byte, b'\n' | b'\r');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut known, mut at) = (0_u32, 0, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        if is_line_end(byte) {
            continue;
        }
        if let Some(six) = six_bits(byte) {
            group = group << 6 | six;
            known += 1;
            if known == 4 {
                bytes.extend_from_slice(&group.to_be_bytes()[1..]);
                (group, known) = (0, 0);
            }
            continue;
        }
        if byte != b'=' || known < 2 {
            return illegal(at - 1);
        }
        let skip_line_ends = |at: &mut usize| {
            while text.get(*at).copied().is_some_and(is_line_end) {
                *at += 1;
            }
        };
        if known == 2 {
            skip_line_ends(&mut at);
            match text.get(at) {
                None => return illegal(text.len()),
                Some(b'=') => at += 1,
                Some(_) => return illegal(at - 1),
            }
        }
        skip_line_ends(&mut at);
        if at < text.len() {
            return illegal(at);
        }
        let whole = (group << (6 * (4 - known))).to_be_bytes();
        bytes.extend_from_slice(&whole[1..known]);
        return Ok(bytes);
    }
    if known > 0 {
        return illegal(at - known);
    }
    Ok(bytes)
}

fn six_bits(byte: u8) -> Option<u32> {
    Some(
        match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }
        .into(),
    )
}

/// Why Go cannot read a time; `None` when it can. `micro`: with exactly six digits behind the
/// second, as a `MicroTime` has.
pub fn time_error(text: &str, micro: bool) -> Option<String> {
    let layout = if micro {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    match read_time(text, micro) {
        Ok(()) => None,
        Err(TimeError::Element(rest, element)) => Some(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"
        )),
        Err(TimeError::Range(what)) => Some(format!("parsing time {text:?}: {what} out of range")),
        Err(TimeError::Extra(rest)) => Some(format!("parsing time {text:?}: extra text: {rest:?}")),
    }
}

enum TimeError<'t> {
    Element(&'t str, &'static str),
    Range(&'static str),
    Extra(&'t str),
}

fn read_time(text: &str, micro: bool) -> Result<(), TimeError<'_>> {
    let mut rest = text;
    let year = digits(&mut rest, 4, "2006")?;
    prefix(&mut rest, "-")?;
    let month = digits(&mut rest, 2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(TimeError::Range("month"));
    }
    prefix(&mut rest, "-")?;
    let day = digits(&mut rest, 2, "02")?;
    prefix(&mut rest, "T")?;
    for (element, limit, what, separator) in [
        ("15", 24, "hour", ":"),
        ("04", 60, "minute", ":"),
        ("05", 60, "second", ""),
    ] {
        if digits(&mut rest, 2, element)? >= limit {
            return Err(TimeError::Range(what));
        }
        prefix(&mut rest, separator)?;
    }
    fraction(&mut rest, micro)?;
    zone(&mut rest)?;
    if !rest.is_empty() {
        return Err(TimeError::Extra(rest));
    }
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day < 1 || day > days {
        return Err(TimeError::Range("day"));
    }
    Ok(())
}

fn digits<'t>(
    rest: &mut &'t str,
    count: usize,
    element: &'static str,
) -> Result<u32, TimeError<'t>> {
    let wrong = TimeError::Element(rest, element);
    let Some((number, after)) = rest.split_at_checked(count) else {
        return Err(wrong);
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    *rest = after;
    number.parse().map_err(|_| wrong)
}

fn prefix<'t>(rest: &mut &'t str, prefix: &'static str) -> Result<(), TimeError<'t>> {
    *rest = rest
        .strip_prefix(prefix)
        .ok_or(TimeError::Element(rest, prefix))?;
    Ok(())
}

fn fraction<'t>(rest: &mut &'t str, micro: bool) -> Result<(), TimeError<'t>> {
    if micro {
        let wrong = TimeError::Element(rest, ".000000");
        let digits = rest.strip_prefix(['.', ',']).filter(|digits| {
            digits.len() >= 6 && digits.bytes().take(6).all(|byte| byte.is_ascii_digit())
        });
        *rest = &digits.ok_or(wrong)?[6..];
        return Ok(());
    }
    if let Some(digits) = rest.strip_prefix(['.', ',']) {
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        if count > 0 {
            *rest = &digits[count..];
        }
    }
    Ok(())
}

fn zone<'t>(rest: &mut &'t str) -> Result<(), TimeError<'t>> {
    const ELEMENT: &str = "Z07:00";
    if let Some(after) = rest.strip_prefix('Z') {
        *rest = after;
        return Ok(());
    }
    let wrong = || TimeError::Element(rest, ELEMENT);
    let (offset, after) = rest.split_at_checked(6).ok_or_else(wrong)?;
    let mut parts = offset.strip_prefix(['+', '-']).ok_or_else(wrong)?;
    let number = |parts: &mut &'t str| {
        digits(parts, 2, ELEMENT).map_err(|_| TimeError::Element(rest, ELEMENT))
    };
    let hours = number(&mut parts)?;
    parts = parts.strip_prefix(':').ok_or_else(wrong)?;
    let minutes = number(&mut parts)?;
    if hours > 24 {
        return Err(TimeError::Range("time zone offset hour"));
    }
    if minutes > 60 {
        return Err(TimeError::Range("time zone offset minute"));
    }
    *rest = after;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_json_is_told_in_gos_words() {
        let cases: &[(&str, &str)] = &[
            ("", END),
            ("{", END),
            (r#"{"a":"#, END),
            ("xx", "invalid character 'x' looking for beginning of value"),
            ("{}}", "invalid character '}' after top-level value"),
            ("[1 2]", "invalid character '2' after array element"),
            (
                r#"{"a":1 "b"}"#,
                "invalid character '\"' after object key:value pair",
            ),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (
                "{a:1}",
                "invalid character 'a' looking for beginning of object key string",
            ),
            (
                "tru}",
                "invalid character '}' in literal true (expecting 'e')",
            ),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("-a", "invalid character 'a' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            ("01", "invalid character '1' after top-level value"),
        ];
        for (json, expected) in cases {
            assert_eq!(
                syntax_error(json.as_bytes()).as_deref(),
                Some(*expected),
                "{json}"
            );
        }
        for json in [
            "{}",
            "[]",
            " [1, {\"a\": [null, true, -0.5e+3, \"\\u00e9\"]}, []] ",
            "0",
        ] {
            assert_eq!(syntax_error(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        assert_eq!(base64("AAAA"), Ok(vec![0, 0, 0]));
        assert_eq!(base64("aGk=\n"), Ok(b"hi".to_vec()));
        assert_eq!(base64("aG\nlt"), Ok(b"him".to_vec()));
        assert_eq!(base64("YR=="), Ok(b"a".to_vec()), "loose bits are ignored");
        for (text, at) in [
            ("A B!", 1),
            ("x", 0),
            ("99999999999", 8),
            ("=", 0),
            ("YQ=", 3),
            ("YQ==x", 4),
        ] {
            let expected = format!("illegal base64 data at input byte {at}");
            assert_eq!(base64(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, micro) in [
            ("2026-01-01T00:00:00Z", false),
            ("2026-01-01T00:00:00.5+02:00", false),
            ("2024-02-29T00:00:00.000001Z", true),
        ] {
            assert_eq!(time_error(text, micro), None, "{text}");
        }
        let layout = "2006-01-02T15:04:05Z07:00";
        for (text, expected) in [
            (
                "",
                format!(r#"parsing time "" as "{layout}": cannot parse "" as "2006""#),
            ),
            (
                "99999999999",
                format!(
                    r#"parsing time "99999999999" as "{layout}": cannot parse "9999999" as "-""#
                ),
            ),
            (
                "2026-13-01T00:00:00Z",
                r#"parsing time "2026-13-01T00:00:00Z": month out of range"#.to_owned(),
            ),
            (
                "2026-02-30T00:00:00Z",
                r#"parsing time "2026-02-30T00:00:00Z": day out of range"#.to_owned(),
            ),
            (
                "2026-01-01T00:00:00Zx",
                r#"parsing time "2026-01-01T00:00:00Zx": extra text: "x""#.to_owned(),
            ),
            (
                "2026-01-01",
                format!(r#"parsing time "2026-01-01" as "{layout}": cannot parse "" as "T""#),
            ),
        ] {
            assert_eq!(time_error(text, false), Some(expected));
        }
    }
}
