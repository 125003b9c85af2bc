//! Durations as Go writes them: `1h0m0.5s`, `15ms`, `0s`.

use jiff::SignedDuration;

/// The text of a duration in Go's form.
pub fn to_text(duration: SignedDuration) -> String {
    let sign = if duration.is_negative() { "-" } else { "" };
    let nanos = duration.as_nanos().unsigned_abs();
    let (unit, size) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => ("ns", 1),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    if size < 1_000_000_000 {
        return format!("{sign}{}{unit}", fraction(nanos, size));
    }
    let seconds = fraction(nanos % (60 * size), size);
    let minutes = nanos / (60 * size);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `nanos` in units of `size`, without zeros at the end.
fn fraction(nanos: u128, size: u128) -> String {
    let (whole, rest) = (nanos / size, nanos % size);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = size.ilog10() as usize;
    let rest = format!("{rest:0digits$}");
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (15_000_000, "15ms"),
            (1_000_000_000, "1s"),
            (15_040_000_000, "15.04s"),
            (60_500_000_000, "1m0.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (-90_000_000_000, "-1m30s"),
        ] {
            let duration = SignedDuration::from_nanos(nanos);
            assert_eq!(to_text(duration), text);
            assert_eq!(text.parse::<SignedDuration>().unwrap(), duration, "{text}");
        }
    }
}
