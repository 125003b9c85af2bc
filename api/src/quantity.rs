//! Amounts of resources: `500m`, `1.5Gi`, `3e6`.
//!
//! Enter at [`Amount::parse`] for arithmetic, and at [`canonical`] for the text under which a
//! quantity is stored. Parsing, rounding and the canonical form are upstream's
//! (`k8s.io/apimachinery/pkg/api/resource`): an amount remembers the family of suffixes that it
//! was written with, has at most nine decimal places (more are rounded away from zero) and is,
//! with a binary suffix, at most 2^63-1 in magnitude.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by the resource's name, as in `limits`.
pub type ResourceList = BTreeMap<String, Quantity>;

/// An amount is kept in billionths.
const NANO: i128 = 1_000_000_000;
const MAX_BINARY: i128 = (i64::MAX as i128) * NANO;

/// The family of suffixes that an amount is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// What a [`Quantity`] says, as a number. The default is zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    nano: i128,
    format: Format,
}

impl Amount {
    pub const ZERO: Amount = Amount {
        nano: 0,
        format: Format::DecimalSi,
    };

    /// Reads the textual form.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(ParseError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let number_length = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_length);
        let digits = number.bytes().filter(u8::is_ascii_digit).count();
        if digits == 0 || number.len() - digits > 1 || !is_suffix(suffix) {
            return Err(ParseError::Format);
        }
        let suffix = Suffix::parse(suffix).ok_or(ParseError::Suffix)?;
        let nano = nano_of(number, suffix);
        Ok(Amount {
            nano: if negative { -nano } else { nano },
            format: suffix.format,
        })
    }

    /// An integer amount, written with decimal suffixes.
    pub fn from_integer(value: i64) -> Self {
        Amount {
            nano: i128::from(value) * NANO,
            format: Format::DecimalSi,
        }
    }

    /// A number of thousandths, written with decimal suffixes.
    pub fn from_milli(value: i64) -> Self {
        Amount {
            nano: i128::from(value) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// The same amount, written with another family of suffixes.
    #[must_use]
    pub fn with_format(self, format: Format) -> Self {
        Amount { format, ..self }
    }

    /// The integer that is not smaller (in magnitude) than the amount.
    pub fn value(self) -> i64 {
        saturate(divide_up(self.nano, NANO))
    }

    /// The same in thousandths; what does not fit is the largest number.
    pub fn milli_value(self) -> i64 {
        saturate(divide_up(self.nano, NANO / 1000))
    }

    /// The nearest floating-point number, for ratios.
    pub fn as_f64(self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    pub fn is_positive(self) -> bool {
        self.nano > 0
    }

    /// Whether it is a whole number of thousandths of 1.
    pub fn is_whole_milli(self) -> bool {
        self.nano % (NANO / 1000) == 0
    }

    /// Whether it is a whole number.
    pub fn is_integer(self) -> bool {
        self.nano % NANO == 0
    }

    /// Rounded, away from zero, to a thousandth.
    pub fn round_up_to_milli(self) -> Self {
        Amount {
            nano: divide_up(self.nano, NANO / 1000).saturating_mul(NANO / 1000),
            ..self
        }
    }

    /// The sum. It is written as this one is, unless this one is zero.
    pub fn plus(self, other: Self) -> Self {
        Amount {
            nano: self.nano.saturating_add(other.nano),
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
        }
    }

    /// The difference. It is written as this one is, unless this one is zero.
    pub fn minus(self, other: Self) -> Self {
        self.plus(Amount {
            nano: other.nano.saturating_neg(),
            ..other
        })
    }

    /// A [`Quantity`] in canonical form.
    pub fn to_quantity(self) -> Quantity {
        Quantity(self.to_string())
    }
}

/// The amount of a quantity that was accepted; one that is malformed counts as zero.
impl From<&Quantity> for Amount {
    fn from(quantity: &Quantity) -> Self {
        Amount::parse(&quantity.0).unwrap_or_default()
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// The canonical form: no fraction, and the largest suffix that needs none.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let is_small = self.nano.unsigned_abs() < (1024 * NANO).unsigned_abs();
        match self.format {
            Format::BinarySi if !is_small && self.is_integer() => {
                let mut number = self.nano / NANO;
                let mut power = 0;
                while number % 1024 == 0 && power + 1 < BINARY_SUFFIXES.len() {
                    number /= 1024;
                    power += 1;
                }
                write!(f, "{number}{}", BINARY_SUFFIXES[power])
            }
            format => {
                let mut number = self.nano;
                let mut exponent = -9;
                // There is no suffix above E.
                while number % 1000 == 0 && (exponent < 18 || format == Format::DecimalExponent) {
                    number /= 1000;
                    exponent += 3;
                }
                match (format, exponent) {
                    (_, 0) => write!(f, "{number}"),
                    (Format::DecimalExponent, _) => write!(f, "{number}e{exponent}"),
                    _ => write!(f, "{number}{}", decimal_suffix(exponent)),
                }
            }
        }
    }
}

const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// From 10^-9 in steps of 1000.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

fn decimal_suffix(exponent: i32) -> &'static str {
    usize::try_from(exponent / 3 + 3)
        .ok()
        .and_then(|index| DECIMAL_SUFFIXES.get(index))
        .expect("only exponents that have a suffix are asked for")
}

/// Whether upstream's regular expression accepts it behind a number.
fn is_suffix(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

/// A factor: 10^`ten` * 2^`two`.
#[derive(Clone, Copy)]
struct Suffix {
    format: Format,
    ten: i32,
    two: u32,
}

impl Suffix {
    fn parse(suffix: &str) -> Option<Self> {
        if let Some(index) = DECIMAL_SUFFIXES.iter().position(|known| *known == suffix) {
            return Some(Suffix {
                format: Format::DecimalSi,
                ten: i32::try_from(index).ok()? * 3 - 9,
                two: 0,
            });
        }
        if let Some(index) = BINARY_SUFFIXES.iter().position(|known| *known == suffix) {
            return Some(Suffix {
                format: Format::BinarySi,
                ten: 0,
                two: u32::try_from(index).ok()? * 10,
            });
        }
        let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        Some(Suffix {
            format: Format::DecimalExponent,
            // Beyond these bounds every number is the smallest or the largest amount.
            ten: i32::try_from(exponent.clamp(-10_000, 10_000)).ok()?,
            two: 0,
        })
    }
}

/// The billionths of an unsigned number, with what does not fit in a billionth rounded up.
fn nano_of(number: &str, suffix: Suffix) -> i128 {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    // 20 digits times 2^60 fit in the arithmetic below; further ones only matter for rounding.
    let kept = &digits[..digits.len().min(if suffix.two == 0 { 36 } else { 20 })];
    let is_cut = digits[kept.len()..].bytes().any(|digit| digit != b'0');
    let mantissa: i128 = kept.parse().expect("at most 36 digits");
    let scale = suffix.ten + 9 - length(fraction) + length(&digits[kept.len()..]);

    let Some(product) = mantissa.checked_mul(1 << suffix.two) else {
        return MAX_BINARY;
    };
    let nano = if scale >= 0 {
        10i128
            .checked_pow(scale.unsigned_abs())
            .and_then(|factor| product.checked_mul(factor))
            .unwrap_or(i128::MAX)
    } else {
        match 10i128.checked_pow(scale.unsigned_abs()) {
            Some(divisor) => divide_up(product, divisor),
            None => 1,
        }
    };
    let nano = nano.saturating_add(i128::from(is_cut));
    match suffix.format {
        Format::BinarySi => nano.min(MAX_BINARY),
        Format::DecimalSi | Format::DecimalExponent => nano,
    }
}

fn length(digits: &str) -> i32 {
    i32::try_from(digits.len()).unwrap_or(i32::MAX / 2)
}

fn divide_up(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    match dividend % divisor {
        0 => quotient,
        remainder => quotient + remainder.signum(),
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// The amount of a resource in a list; zero when the list does not name it.
pub fn amount_in(list: &ResourceList, name: &str) -> Amount {
    list.get(name).map(Amount::from).unwrap_or_default()
}

/// The text under which a quantity is stored. Upstream keeps what the client wrote when it is
/// near enough to the canonical form: `1.500` stays, and `1.5` becomes `1500m`.
pub fn canonical(text: &str) -> Result<String, ParseError> {
    let text = text.trim();
    let amount = Amount::parse(text)?;
    Ok(if is_kept(text, amount) {
        text.to_owned()
    } else {
        amount.to_string()
    })
}

/// Whether upstream's parser takes the text as canonical already.
fn is_kept(text: &str, amount: Amount) -> bool {
    let unsigned = text.trim_start_matches(['-', '+']).trim_start_matches('0');
    let number_length = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_length);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let Some(suffix) = Suffix::parse(suffix) else {
        return false;
    };
    let digits = format!("{}{fraction}", if whole.is_empty() { "0" } else { whole });
    if suffix.format == Format::BinarySi {
        let precision = 14 - length(whole).max(1) - (suffix.two as f32 * 3.0 / 10.0) as i32;
        let value: i128 = digits.parse().unwrap_or(0);
        return fraction.is_empty()
            && precision >= 0
            && value & 7 != 0
            && i64::try_from(amount.nano / NANO).is_ok();
    }
    let scale = suffix.ten - length(fraction);
    length(&digits) <= 18
        && scale >= -9
        && scale % 3 == 0
        && !digits.ends_with("000")
        && !digits.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_beyond_all_bounds_do_not_overflow() {
        let most = Amount::parse(&"9".repeat(45)).unwrap();
        assert_eq!(most.round_up_to_milli().value(), i64::MAX);
        let least = Amount::ZERO.minus(most).minus(most);
        assert!(Amount::ZERO.minus(least).is_positive());
        assert!(!least.to_string().is_empty());
        let quarter = Amount::parse("4Ei").unwrap();
        let sum = (0..256).fold(Amount::ZERO, |sum, _| sum.plus(quarter));
        assert_eq!(sum.to_string(), "1024Ei");
    }

    #[test]
    fn a_quantity_is_written_in_canonical_form() {
        let cases = [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("+1.", "1"),
            (".5", "500m"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("100", "100"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1.0001Ki", "1024102400u"),
            ("3e6", "3e6"),
            ("3E3", "3e3"),
            ("1e-3", "1e-3"),
            ("3000000", "3M"),
            ("12345678", "12345678"),
            ("-1Gi", "-1Gi"),
            ("0.0000000001", "1n"),
            ("1e-30", "1e-9"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775808"),
            ("12E", "12E"),
            ("1000E", "1000E"),
            ("1e24", "1e24"),
            ("8Ei", "9223372036854775807"),
            ("7Ei", "7Ei"),
        ];
        for (text, canonical) in cases {
            assert_eq!(
                Amount::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn the_stored_text_is_what_upstream_stores() {
        for (given, stored) in [
            ("0", "0"),
            ("00", "0"),
            ("0Mi", "0"),
            ("1024Mi", "1Gi"),
            ("307200Ki", "300Mi"),
            ("1025024Mi", "1001Gi"),
            ("5000m", "5"),
            ("1000M", "1G"),
            ("0.001T", "1G"),
            ("1000u", "1m"),
            ("1.08", "1080m"),
            ("1080000000n", "1080m"),
            (".001e12", "1e9"),
            ("0.001e0", "1e-3"),
            ("1000e-12", "1e-9"),
            ("1234567m", "1234567m"),
            ("1E6", "1E6"),
            ("1.500", "1.500"),
            ("1.5Gi", "1536Mi"),
            ("100.035Ki", "102435840m"),
            ("1.", "1."),
            ("-5000m", "-5"),
            ("0.1", "100m"),
            ("+5", "+5"),
            ("64Ki", "64Ki"),
            ("9Ei", "9223372036854775807"),
            ("0.000000000001Ki", "2n"),
            ("3.001n", "4n"),
            ("0.00000012345", "124n"),
            (" 1 ", "1"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(stored), "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "x", "1x", "-", "1..2", "1.2.3", "1 Gi", "."] {
            assert_eq!(
                Amount::parse(text).err(),
                Some(ParseError::Format),
                "{text}"
            );
        }
        for text in ["1Mii", "1i", "1e", "1K", "1nn", "1Gi2"] {
            assert_eq!(
                Amount::parse(text).err(),
                Some(ParseError::Suffix),
                "{text}"
            );
        }
    }

    #[test]
    fn amounts_compare_add_and_round() {
        let amount = |text| Amount::parse(text).unwrap();
        assert_eq!(amount("1Ki"), amount("1024"));
        assert!(amount("1Gi") > amount("1G"));
        assert_eq!(amount("1Gi").plus(amount("1024Mi")).to_string(), "2Gi");
        assert_eq!(Amount::ZERO.plus(amount("1Gi")).to_string(), "1Gi");
        assert_eq!(amount("1").minus(amount("100m")).to_string(), "900m");
        assert_eq!(amount("100u").round_up_to_milli().to_string(), "1m");
        assert_eq!(amount("1100m").value(), 2);
        assert_eq!(amount("1100m").milli_value(), 1100);
        assert_eq!(amount("-1100m").value(), -2);
    }
}
