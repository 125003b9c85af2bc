//! Numbers that may be given as a percentage of a total.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a percentage that gives no whole number goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Up,
    Down,
}

/// The number itself, or that percentage of `total`; `None` when it is neither.
pub(crate) fn scaled(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    let percent = match value {
        IntOrString::Int(number) => return Some(*number),
        IntOrString::String(text) => text.strip_suffix('%')?.parse::<i64>().ok()?,
    };
    let exact = percent * i64::from(total);
    let whole = match round {
        Round::Up => exact.div_euclid(100) + i64::from(exact.rem_euclid(100) > 0),
        Round::Down => exact.div_euclid(100),
    };
    i32::try_from(whole).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_the_way_they_are_asked_to() {
        let cases = [
            ("25%", 10, Round::Up, Some(3)),
            ("25%", 10, Round::Down, Some(2)),
            ("0%", 10, Round::Up, Some(0)),
            ("100%", 7, Round::Down, Some(7)),
            ("50%", 0, Round::Up, Some(0)),
            ("50", 10, Round::Up, None),
            ("x%", 10, Round::Up, None),
        ];
        for (text, total, round, expected) in cases {
            let value = IntOrString::String(text.to_owned());
            assert_eq!(scaled(&value, total, round), expected, "{text} of {total}");
        }
        assert_eq!(scaled(&IntOrString::Int(4), 2, Round::Up), Some(4));
    }
}
