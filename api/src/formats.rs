//! What texts and numbers in specs may look like, beside names and labels (see [`crate::names`]).
//!
//! Each check returns upstream's messages (`k8s.io/apimachinery/pkg/util/validation`), none when
//! the value is valid.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    field::Path,
    names::{SUBDOMAIN_MAX_LENGTH, max_length, regex_error},
};

const SUBDOMAIN_WITH_UNDERSCORE: &str =
    r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";

/// `must be between 1 and 65535, inclusive`
pub fn inclusive_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        Vec::new()
    } else {
        vec![inclusive_range(low, high)]
    }
}

pub fn port_number(port: i32) -> Vec<String> {
    range(port.into(), 1, 65_535)
}

/// A user or group id.
pub fn user_id(id: i64) -> Vec<String> {
    range(id, 0, i32::MAX.into())
}

/// The name of a port: an IANA service name.
pub fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push(max_length(15));
    }
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    let in_charset = |byte: u8| is_letter(byte) || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(in_charset) {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !name.bytes().any(is_letter) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// The name of an environment variable, or a prefix of one: printable ASCII but `=`.
pub fn env_var_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if name
        .chars()
        .any(|c| !(c.is_ascii_graphic() || c == ' ') || c == '=')
    {
        return vec![
            "a valid environment variable name must consist only of printable ASCII characters \
             other than '='"
                .to_owned(),
        ];
    }
    Vec::new()
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > SUBDOMAIN_MAX_LENGTH {
        errors.push(max_length(SUBDOMAIN_MAX_LENGTH));
    }
    let in_charset = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if key.is_empty() || !key.bytes().all(in_charset) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match key {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

pub fn http_header_name(name: &str) -> Vec<String> {
    let in_charset = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !name.is_empty() && name.bytes().all(in_charset) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// `25%`
pub fn percent(text: &str) -> Vec<String> {
    let is_percent = text
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if is_percent {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// A DNS subdomain whose labels may also hold, and begin with, an underscore.
pub fn subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX_LENGTH {
        errors.push(max_length(SUBDOMAIN_MAX_LENGTH));
    }
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label).as_bytes();
        label.first().is_some_and(is_letter)
            && label.last().is_some_and(is_letter)
            && label
                .iter()
                .all(|byte| is_letter(byte) || b"-_".contains(byte))
    };
    if !value.split('.').all(is_label) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '_', '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_WITH_UNDERSCORE,
            &["example.com"],
        ));
    }
    errors
}

/// `1.2.3`, `1.2.3-alpha.1+build.5`, as semver.org spec 2.0.0 has it.
pub fn is_semantic_version(value: &str) -> bool {
    let is_word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = |part: &str| part.len() > 1 && part.starts_with('0');
    let (version, build) = value
        .split_once('+')
        .map_or((value, None), |(version, build)| (version, Some(build)));
    let (numbers, prerelease) = version
        .split_once('-')
        .map_or((version, None), |(numbers, after)| (numbers, Some(after)));
    let is_number = |part: &str| is_word(part) && is_digits(part) && !has_leading_zero(part);
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && prerelease.is_none_or(|after| {
            after
                .split('.')
                .all(|part| is_word(part) && !(is_digits(part) && has_leading_zero(part)))
        })
        && build.is_none_or(|build| build.split('.').all(is_word))
}

/// `[A-Za-z_][A-Za-z0-9_]*`
pub fn c_identifier(value: &str) -> Vec<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_well = value
        .bytes()
        .next()
        .is_some_and(|byte| is_word(byte) && !byte.is_ascii_digit());
    if starts_well && value.bytes().all(is_word) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string \
         of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// An IP address in a field that once took sloppy ones.
pub fn ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Vec::new(),
        Err(_) if sloppy_ip(value).is_some() => vec!["must not have leading 0s".to_owned()],
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
        }
    }
}

/// A warning about an address that is valid in an unusual form.
pub fn ip_warning(path: &Path, value: &str) -> Option<String> {
    let address = sloppy_ip(value)?;
    let canonical = match address {
        IpAddr::V6(address) => address.to_ipv4_mapped().map(IpAddr::V4),
        IpAddr::V4(_) => value.parse::<IpAddr>().is_err().then_some(address),
    };
    match canonical {
        Some(canonical) => Some(format!(
            "{path}: non-standard IP address {value:?} is invalid: use \"{canonical}\""
        )),
        None if address.is_ipv6() && address.to_string() != value => Some(format!(
            "{path}: IPv6 address {value:?} should be in RFC 5952 canonical format (\"{address}\")"
        )),
        None => None,
    }
}

/// What a client is warned of that wrote the addresses of a load balancer.
pub fn load_balancer_warnings<'i>(addresses: impl Iterator<Item = Option<&'i str>>) -> Vec<String> {
    let path = Path::new("status.loadBalancer.ingress");
    addresses
        .enumerate()
        .filter_map(|(index, address)| ip_warning(&path.index(index), address?))
        .collect()
}

/// An IP address in canonical form.
pub fn canonical_ip(value: &str) -> Vec<String> {
    let errors = ip(value);
    match value.parse::<IpAddr>() {
        Ok(address) if errors.is_empty() && address.to_string() != value => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        _ => errors,
    }
}

/// An address as older releases read it: numbers of an IPv4 address may start with zeros.
pub fn sloppy_ip(value: &str) -> Option<IpAddr> {
    if let Ok(address) = value.parse() {
        return Some(address);
    }
    let mut octets = [0; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts
        .next()
        .is_none()
        .then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// An address range in a field that once took sloppy ones.
pub fn cidr(value: &str) -> Vec<String> {
    let Some((address, length)) = split_cidr(value) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    };
    let mut errors = Vec::new();
    let (text, prefix) = value.split_once('/').unwrap_or_default();
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    if text.parse::<IpAddr>().is_err() || (prefix.len() > 1 && prefix.starts_with('0')) {
        errors.push("must not have leading 0s in IP or prefix length".to_owned());
    } else if is_mapped {
        errors.push("must not have an IPv4-mapped IPv6 address".to_owned());
    }
    let network = network_address(address, length);
    if errors.is_empty() && network != address {
        errors.push("must not have bits set beyond the prefix length".to_owned());
    }
    errors
}

/// An address range in canonical form.
pub fn canonical_cidr(value: &str) -> Vec<String> {
    let errors = cidr(value);
    let canonical = split_cidr(value).map(|(address, length)| format!("{address}/{length}"));
    match canonical {
        Some(canonical) if errors.is_empty() && canonical != value => {
            vec![format!("must be in canonical form (\"{canonical}\")")]
        }
        _ => errors,
    }
}

/// An address of a network interface, with the length of its network's prefix.
pub fn interface_address(value: &str) -> Vec<String> {
    let Some((address, length)) = split_cidr(value) else {
        return vec![
            "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned(),
        ];
    };
    let address = address.to_canonical();
    // The prefix of an IPv4 address that is written as one of IPv6 is shorter without that.
    let length = match address {
        IpAddr::V4(_) if length > 32 => length.saturating_sub(96),
        _ => length,
    };
    let canonical = format!("{address}/{length}");
    if canonical == value {
        Vec::new()
    } else {
        vec![format!("must be in canonical form ({canonical:?})")]
    }
}

/// Warnings about a range in an unusual form.
pub fn cidr_warnings(path: &Path, value: &str) -> Vec<String> {
    let Some((address, length)) = split_cidr(value) else {
        return Vec::new();
    };
    let network = network_address(address, length);
    let (text, prefix) = value.split_once('/').unwrap_or_default();
    let mut warnings = Vec::new();
    if network != address {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        warnings.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be \
             \"{network}/{length}\" or \"{address}/{longest}\"?)"
        ));
    }
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    let has_zeros =
        text.parse::<IpAddr>().is_err() || (prefix.len() > 1 && prefix.starts_with('0'));
    if is_mapped || has_zeros {
        warnings.push(format!(
            "{path}: non-standard CIDR value {value:?} is invalid: use \"{network}/{length}\""
        ));
    }
    let canonical = format!("{address}/{length}");
    if warnings.is_empty() && address.is_ipv6() && canonical != value {
        warnings.push(format!(
            "{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format \
             (\"{canonical}\")"
        ));
    }
    warnings
}

/// Why a condition has its status, as one word.
pub fn condition_reason(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let is_end = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let is_inner = |byte: &u8| is_end(byte) || matches!(byte, b',' | b':');
    if bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(is_end)
        && bytes.iter().all(is_inner)
    {
        return Vec::new();
    }
    vec![regex_error(
        "a condition reason must start with alphabetic character, optionally followed by a string \
         of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &[
            "my_name",
            "MY_NAME",
            "MyName",
            "ReasonA,ReasonB",
            "ReasonA:ReasonB",
        ],
    )]
}

/// Address and prefix length of a range.
pub fn split_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    let address = sloppy_ip(address)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    (length <= longest).then_some((address, length))
}

/// The address with all bits beyond the prefix cleared.
pub fn network_address(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_valid(check: fn(&str) -> Vec<String>, values: &[&str]) {
        for value in values {
            assert_eq!(check(value), Vec::<String>::new(), "{value:?}");
        }
    }

    fn assert_invalid(check: fn(&str) -> Vec<String>, cases: &[(&str, &str)]) {
        for (value, start) in cases {
            let errors = check(value);
            assert!(
                errors.iter().any(|error| error.starts_with(start)),
                "{value:?}: {errors:?}"
            );
        }
    }

    #[test]
    fn formats_of_text() {
        assert_valid(port_name, &["http", "a", "9p", "a-b-c", "abcdefghijklmno"]);
        assert_invalid(
            port_name,
            &[
                ("abcdefghijklmnop", "must be no more than 15"),
                ("80", "must contain at least one letter"),
                ("a--b", "must not contain consecutive"),
                ("-a", "must not begin"),
                ("A", "must contain only"),
            ],
        );
        assert_valid(config_map_key, &["a", ".a", "A_b-c.d"]);
        assert_invalid(
            config_map_key,
            &[
                ("", "a valid config key"),
                ("..", "must not be '..'"),
                ("..a", "must not start"),
            ],
        );
        assert_valid(env_var_name, &["A", "1", "a.b c"]);
        assert_invalid(
            env_var_name,
            &[("a=b", "a valid environment"), ("", "environment")],
        );
        assert_valid(percent, &["0%", "125%"]);
        assert_invalid(
            percent,
            &[("%", "a valid percent"), ("1.5%", "a valid percent")],
        );
        assert_valid(subdomain_with_underscore, &["_tcp.example.com", "a_b"]);
        assert_invalid(
            subdomain_with_underscore,
            &[("a_", "a lowercase"), ("__a", "a lowercase")],
        );
    }

    #[test]
    fn formats_of_addresses() {
        assert_valid(ip, &["10.0.0.1", "::1", "2001:DB8::1"]);
        assert_invalid(
            ip,
            &[
                ("010.0.0.1", "must not have leading 0s"),
                ("::ffff:1.2.3.4", "must not be an IPv4-mapped"),
                ("1.2.3", "must be a valid IP"),
            ],
        );
        assert_invalid(
            canonical_ip,
            &[("2001:DB8::1", "must be in canonical form (\"2001:db8::1\")")],
        );
        assert_valid(cidr, &["10.0.0.0/8", "::/0", "0.0.0.0/0", "fd00::/64"]);
        assert_invalid(
            cidr,
            &[
                ("10.0.0.0", "must be a valid CIDR"),
                ("10.0.0.0/33", "must be a valid CIDR"),
                ("10.0.0.1/8", "must not have bits set beyond"),
                ("10.0.0.0/08", "must not have leading 0s"),
            ],
        );
    }
}
