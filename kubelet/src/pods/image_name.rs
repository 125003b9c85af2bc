//! Image references: `[registry/]path[:tag][@digest]`.

/// A reference in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// For example `docker.io`.
    pub registry: &'a str,
    /// Without the registry; `library/` is put before a bare name of Docker's registry.
    pub path: String,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

const DOCKER: &str = "docker.io";

/// Reads a reference.
///
/// # Errors
/// In upstream's words, when it is none.
pub fn parse(reference: &str) -> Result<Reference<'_>, String> {
    let invalid = || format!("couldn't parse image name {reference:?}: invalid reference format");
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        None => (rest, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path.to_owned()),
        Some(_) => (DOCKER, name.to_owned()),
        None => (DOCKER, format!("library/{name}")),
    };
    if path.chars().any(|character| character.is_ascii_uppercase()) {
        return Err(format!(
            "{}: repository name ({path}) must be lowercase",
            invalid()
        ));
    }
    let tag_fits = tag.is_none_or(is_tag);
    let digest_fits = digest.is_none_or(is_digest);
    if !path.split('/').all(is_component) || !tag_fits || !digest_fits {
        return Err(invalid());
    }
    Ok(Reference {
        registry,
        path,
        tag,
        digest,
    })
}

/// The reference with the tag that it stands for when it names neither tag nor digest.
pub fn with_default_tag(reference: &str) -> Result<String, String> {
    let parsed = parse(reference)?;
    Ok(match (parsed.tag, parsed.digest) {
        (None, None) => format!("{reference}:latest"),
        _ => reference.to_owned(),
    })
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter()
        .all(|end| end.is_some_and(|&byte| alphanumeric(byte)))
        && bytes
            .iter()
            .all(|&byte| alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|&byte| word(byte))
        && bytes
            .iter()
            .all(|&byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_get_their_default_tag() {
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let cases = [
            ("busybox".to_owned(), Some("busybox:latest".to_owned())),
            ("a/b:1".to_owned(), Some("a/b:1".to_owned())),
            (
                "host:5000/a".to_owned(),
                Some("host:5000/a:latest".to_owned()),
            ),
            (format!("a@{digest}"), Some(format!("a@{digest}"))),
            ("UPPER".to_owned(), None),
            ("a b".to_owned(), None),
            ("a:".to_owned(), None),
            ("a@sha256:12".to_owned(), None),
            (String::new(), None),
        ];
        for (reference, expected) in cases {
            assert_eq!(with_default_tag(&reference).ok(), expected, "{reference}");
        }
    }

    #[test]
    fn registries_are_told_from_paths() {
        let of = |reference| {
            let parsed = parse(reference).expect("it is valid");
            (parsed.registry.to_owned(), parsed.path)
        };
        let pair = |registry: &str, path: &str| (registry.to_owned(), path.to_owned());
        assert_eq!(of("busybox"), pair("docker.io", "library/busybox"));
        assert_eq!(of("user/app:1"), pair("docker.io", "user/app"));
        assert_eq!(of("localhost/app"), pair("localhost", "app"));
        assert_eq!(of("host:5000/a/b"), pair("host:5000", "a/b"));
    }
}
