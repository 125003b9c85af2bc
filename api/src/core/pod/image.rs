//! The parts of an image reference, as far as defaults depend on them.

/// The tag of an image reference: what stands after its last colon, `latest` when it has neither
/// tag nor digest, and `None` when it has only a digest or is no reference at all.
pub fn tag(reference: &str) -> Option<&str> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return None;
    }
    let path_start = domain_length(rest);
    let (path, tag) = match rest[path_start..].split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (&rest[path_start..], None),
    };
    if !path.split('/').all(is_path_component) || is_image_id(rest) {
        return None;
    }
    match tag {
        Some(tag) => is_tag(tag).then_some(tag),
        None if digest.is_none() => Some("latest"),
        None => None,
    }
}

/// The length of the registry's name with the slash after it; 0 when the reference names none.
fn domain_length(reference: &str) -> usize {
    match reference.split_once('/') {
        Some((domain, _))
            if domain == "localhost"
                || domain.contains(['.', ':'])
                || domain.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            domain.len() + 1
        }
        _ => 0,
    }
}

/// Lower-case letters and digits, parted by a dot, one or two underscores, or hyphens.
fn is_path_component(component: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(is_letter)
        && component.ends_with(is_letter)
        && component.split(is_letter).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// 64 hex digits name an image by its id, which a reference may not look like.
fn is_image_id(reference: &str) -> bool {
    reference.len() == 64
        && reference
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn a_reference_has_its_tag_or_latest_or_none() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let cases = [
            ("nginx", Some("latest")),
            ("nginx:1.27", Some("1.27")),
            ("nginx:latest", Some("latest")),
            ("localhost:5000/a/b", Some("latest")),
            ("localhost:5000/a/b:v2", Some("v2")),
            ("registry.k8s.io/e2e-test-images/agnhost:2.53", Some("2.53")),
            ("Registry/a:v1", Some("v1")),
            ("UPPER", None),
            ("a//b", None),
            ("a:b:c", None),
            ("", None),
            (" nginx", None),
            (&digest["sha256:".len()..], None),
        ];
        for (reference, expected) in cases {
            assert_eq!(tag(reference), expected, "{reference:?}");
        }
        assert_eq!(tag(&format!("nginx@{digest}")), None);
        assert_eq!(tag(&format!("nginx:1@{digest}")), Some("1"));
    }
}
