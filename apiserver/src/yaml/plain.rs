//! Unquoted scalars as Go's reader of YAML 1.1 takes them: `yes` is a boolean, `0777` is octal
//! and `1_000` a number, where a reader of YAML 1.2 finds text.
//!
//! A parsed text does not tell whether it was quoted. So [`Marked::new`] puts a number of its own
//! in the place of every such word before the document is parsed: where the parser then finds a
//! number, the word stood unquoted and [`Marked::value`] has its meaning; anywhere else
//! [`Marked::text`] puts the word back.

use std::borrow::Cow;

use serde_json::{Number, Value};

/// Digits of a mark that count the words.
const INDEX_DIGITS: usize = 7;
const PREFIX_DIGITS: usize = 12;

/// A document whose words of YAML 1.1 are replaced by numbers.
#[derive(Default)]
pub struct Marked {
    /// What the marks start with; nothing else in the document has these digits.
    prefix: String,
    words: Vec<(String, Value)>,
}

impl Marked {
    /// The document to parse instead, which is the same when it has no such word.
    pub fn new(document: &str) -> (Self, Cow<'_, str>) {
        let mut marked = Marked::default();
        let mut rest = 0;
        let mut text = String::new();
        for (at, word) in words(document) {
            let Some(value) = meaning(word) else { continue };
            if marked.words.len() == 10_usize.pow(INDEX_DIGITS as u32) {
                break;
            }
            if marked.prefix.is_empty() {
                marked.prefix = unused_prefix(document);
            }
            text.push_str(&document[rest..at]);
            text.push_str(&marked.prefix);
            text.push_str(&format!("{:0INDEX_DIGITS$}", marked.words.len()));
            marked.words.push((word.to_owned(), value));
            rest = at + word.len();
        }
        if marked.words.is_empty() {
            return (marked, Cow::Borrowed(document));
        }
        text.push_str(&document[rest..]);
        (marked, Cow::Owned(text))
    }

    /// What the word means in whose place the parser found this number.
    pub fn value(&self, number: u64) -> Option<&Value> {
        if self.words.is_empty() {
            return None;
        }
        let number = number.to_string();
        let index = number.strip_prefix(&self.prefix)?;
        Some(&self.words.get(index.parse::<usize>().ok()?)?.1)
    }

    /// Text with the words as they stood.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.words.is_empty() || !text.contains(&self.prefix) {
            return Cow::Borrowed(text);
        }
        let mut parts = text.split(&self.prefix);
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let index = part
                .get(..INDEX_DIGITS)
                .and_then(|index| index.parse::<usize>().ok());
            match index.and_then(|index| self.words.get(index)) {
                Some((word, _)) => {
                    whole.push_str(word);
                    whole.push_str(&part[INDEX_DIGITS..]);
                }
                None => {
                    whole.push_str(&self.prefix);
                    whole.push_str(part);
                }
            }
        }
        Cow::Owned(whole)
    }
}

/// What stands between the characters that end an unquoted scalar, and where.
fn words(document: &str) -> impl Iterator<Item = (usize, &str)> {
    let starts = |c: char| c.is_ascii_whitespace() || matches!(c, '[' | '{' | ',');
    let ends = move |c: char| starts(c) || matches!(c, ']' | '}' | ':');
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + document[from..].find(|c| !ends(c))?;
        let length = document[start..].find(ends);
        let end = length.map_or(document.len(), |length| start + length);
        from = end;
        Some((start, &document[start..end]))
    })
    .filter(move |(at, _)| document[..*at].chars().next_back().is_none_or(starts))
}

fn unused_prefix(document: &str) -> String {
    let first = 10_u64.pow(PREFIX_DIGITS as u32 - 1);
    let mut prefixes = (first..).map(|prefix| prefix.to_string());
    // The document is finite, so one is not in it.
    prefixes
        .find(|prefix| !document.contains(prefix))
        .unwrap_or_default()
}

/// What a word means to Go and not to the parser. `None`: both agree.
fn meaning(word: &str) -> Option<Value> {
    match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some(true.into()),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some(false.into()),
        // No other word means text: what it stands before is merged.
        "<<" => return Some(word.into()),
        _ => {}
    }
    let first = word.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let is_common = !unsigned.starts_with('0') && !unsigned.contains(|c: char| !c.is_ascii_digit());
    if is_common {
        return None;
    }
    let digits = word.replace('_', "");
    integer(&digits).or_else(|| float(&digits))
}

fn integer(word: &str) -> Option<Value> {
    let (negative, digits) = match word.strip_prefix(['+', '-']) {
        Some(digits) => (word.starts_with('-'), digits),
        None => (false, word),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        return Some(0_i64.checked_sub_unsigned(size)?.into());
    }
    Some(size.into())
}

fn float(word: &str) -> Option<Value> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let has_exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && are_digits(exponent)
    });
    if !(has_digits && has_exponent && are_digits(whole) && are_digits(fraction)) {
        return None;
    }
    number(word.parse().ok()?)
}

/// A number as Go writes it in JSON: without a fraction when it has none.
pub fn number(number: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Some((number as i64).into());
    }
    Number::from_f64(number).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_have_gos_meaning() {
        for (word, value) in [
            ("y", json!(true)),
            ("Off", json!(false)),
            ("0777", json!(511)),
            ("-0o17", json!(-15)),
            ("+0x1F", json!(31)),
            ("-0b11", json!(-3)),
            ("08", json!(8)),
            ("1__000", json!(1000)),
            ("+5", json!(5)),
            ("5.", json!(5)),
            ("1_000.5", json!(1000.5)),
            ("1e3", json!(1000)),
            ("-0", json!(0)),
            ("0xFFFFFFFFFFFFFFFF", json!(u64::MAX)),
        ] {
            assert_eq!(meaning(word), Some(value), "{word}");
        }
        for word in [
            "yEs",
            "5",
            "-17",
            "12:30",
            "2026-01-01",
            "_1",
            "0b2",
            "0b",
            "-.",
            "1e",
            "a",
        ] {
            assert_eq!(meaning(word), None, "{word}");
        }
    }

    #[test]
    fn marks_are_taken_out_of_text() {
        let (marked, text) = Marked::new("a: say yes\nb: [no,\"on\"] # off: 100000000000\n");
        assert!(!text.contains("yes") && !text.contains("[no") && text.contains("\"on\""));
        assert!(text.contains("1000000000010000000"), "{text}");
        assert_eq!(
            marked.text(&text),
            "a: say yes\nb: [no,\"on\"] # off: 100000000000\n"
        );
        let (_, text) = Marked::new("a: b\n");
        assert!(matches!(text, Cow::Borrowed(_)));
    }
}
