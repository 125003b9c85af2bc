//! Lists of the indexes of an indexed Job, such as `0-3,7`.

/// How many indexes a list has, which all have to be below `completions` and to go up.
pub fn count(list: &str, completions: i32) -> Result<i32, String> {
    let mut last: Option<i32> = None;
    let mut total = 0;
    if list.is_empty() {
        return Ok(0);
    }
    for text in list.split(',') {
        let (first, end) = interval(text, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(order(last, first));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that is in both lists. Malformed intervals are passed over.
pub fn overlap(left: &str, right: &str, completions: i32) -> Option<i32> {
    let intervals = |list: &str| -> Vec<(i32, i32)> {
        let intervals = list.split(',').map(|text| interval(text, completions));
        intervals.filter_map(Result::ok).collect()
    };
    let (left, right) = (intervals(left), intervals(right));
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(&&(start, end)), Some(&&(other, other_end))) = (left.peek(), right.peek()) {
        if start <= other_end && other <= end {
            return Some(start.max(other));
        }
        if start <= other {
            left.next();
        } else {
            right.next();
        }
    }
    None
}

fn interval(text: &str, completions: i32) -> Result<(i32, i32), String> {
    let limits: Vec<&str> = text.split('-').collect();
    let index = |text: &str| -> Result<i32, String> {
        let index: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        i32::try_from(index)
            .ok()
            .filter(|index| *index < completions)
            .ok_or_else(|| format!("too large index: {text:?}"))
    };
    match limits.as_slice() {
        [first] => index(first).map(|first| (first, first)),
        [first, end] => {
            let (first, end) = (index(first)?, index(end)?);
            if first >= end {
                return Err(order(first, end));
            }
            Ok((first, end))
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at \
             most two parts separated by '-'"
        )),
    }
}

fn order(previous: i32, current: i32) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0-2,4", 5), Ok(4));
        for (list, message) in [
            ("x", "cannot convert string to integer for index: \"x\""),
            ("1-5", "too large index: \"5\""),
            ("2-1", "non-increasing order, previous: 2, current: 1"),
            ("1,1", "non-increasing order, previous: 1, current: 1"),
            (
                "1-2-3",
                "the fragment \"1-2-3\" violates the requirement that an index interval can have \
                 at most two parts separated by '-'",
            ),
        ] {
            assert_eq!(count(list, 5), Err(message.to_owned()), "{list}");
        }
    }

    #[test]
    fn overlaps_are_found() {
        assert_eq!(overlap("0-2,5", "3,4", 9), None);
        assert_eq!(overlap("0-2,5", "3-7", 9), Some(5));
        assert_eq!(overlap("", "3-7", 9), None);
    }
}
