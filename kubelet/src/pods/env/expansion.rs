//! `$(NAME)` in commands, arguments and values of variables.
//!
//! A reference to what is not defined stays as it is, `$$` is a dollar sign
//! (third_party/forked/golang/expansion of upstream).

/// Replaces the references in `input` by what `lookup` knows.
pub fn expand<'a>(input: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(position) = rest.find('$') {
        output.push_str(&rest[..position]);
        let after = &rest[position + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            output.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|inside| inside.split_once(')'))
        {
            match lookup(name) {
                Some(value) => output.push_str(value),
                None => {
                    output.push_str("$(");
                    output.push_str(name);
                    output.push(')');
                }
            }
            rest = tail;
        } else {
            output.push('$');
            rest = after;
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_upstream_does() {
        let lookup = |name: &str| match name {
            "VAR_A" => Some("A"),
            "VAR_B" => Some("B"),
            "VAR_REF" => Some("$(VAR_A)"),
            "EMPTY" => Some(""),
            _ => None,
        };
        let cases = [
            ("whole: $(VAR_A)", "whole: A"),
            ("$(VAR_A)-$(VAR_B)", "A-B"),
            ("___$(VAR_REF)", "___$(VAR_A)"),
            ("$(EMPTY)x", "x"),
            ("$(NONE)", "$(NONE)"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$VAR_A", "$VAR_A"),
            ("$(VAR_A", "$(VAR_A"),
            ("$(VAR_A$(VAR_B)", "$(VAR_A$(VAR_B)"),
            ("$", "$"),
            ("$$", "$"),
            ("f000-$$VAR_A", "f000-$VAR_A"),
            ("foo$", "foo$"),
            ("$(VAR_A)$", "A$"),
            ("$()", "$()"),
            ("ä$ö$(VAR_A)", "ä$öA"),
        ];
        for (input, expected) in cases {
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }
}
