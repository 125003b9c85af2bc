//! Credentials for registries, from the pull secrets of pods.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::image_name;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

/// The credentials in the secrets that fit the image, the most specific first.
pub fn lookup<'a>(image: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<AuthConfig> {
    let Ok(reference) = image_name::parse(image) else {
        return Vec::new();
    };
    let target = format!("{}/{}", reference.registry, reference.path);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for (server, entry) in secrets.into_iter().flat_map(entries) {
        let pattern = normalized(&server);
        if matches(&pattern, &target)
            && let Some(auth) = auth(entry)
            && !found.iter().any(|(_, known)| *known == auth)
        {
            found.push((pattern.len(), auth));
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let get = |key: &str| secret.data.as_ref()?.get(key).map(|value| &value.0);
    let parsed = if let Some(json) = get(".dockerconfigjson") {
        serde_json::from_slice::<DockerConfig>(json).map(|config| config.auths)
    } else if let Some(json) = get(".dockercfg") {
        serde_json::from_slice(json)
    } else {
        return Vec::new();
    };
    parsed.unwrap_or_default().into_iter().collect()
}

fn auth(entry: Entry) -> Option<AuthConfig> {
    let (mut username, mut password) = (entry.username, entry.password);
    if username.is_empty() && !entry.auth.is_empty() {
        let decoded = STANDARD.decode(entry.auth.trim_end_matches('\0')).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, pass) = text.split_once(':')?;
        username = user.to_owned();
        password = pass.trim_end_matches('\0').to_owned();
    }
    (!username.is_empty()).then(|| AuthConfig {
        username,
        password,
        ..AuthConfig::default()
    })
}

/// `https://index.docker.io/v1/` and the like as `registry/path`.
fn normalized(server: &str) -> String {
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server)
        .trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    match path {
        "" | "v1" | "v2" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

/// Whether a pattern covers a target: `*` stands for one part of the host's name, and a path
/// covers all below it.
fn matches(pattern: &str, target: &str) -> bool {
    let (pattern_host, pattern_path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (host, path) = target.split_once('/').unwrap_or((target, ""));
    let (pattern_parts, parts): (Vec<_>, Vec<_>) =
        (pattern_host.split('.').collect(), host.split('.').collect());
    pattern_parts.len() == parts.len()
        && pattern_parts
            .iter()
            .zip(&parts)
            .all(|(pattern, part)| part_matches(pattern, part))
        && path.starts_with(pattern_path)
}

fn part_matches(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == part,
        Some((start, end)) => {
            part.len() >= start.len() + end.len() && part.starts_with(start) && part.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(auths: serde_json::Value) -> Secret {
        let mut config = json!({});
        config["auths"] = auths;
        let encoded = STANDARD.encode(config.to_string());
        serde_json::from_value(json!({"data": {".dockerconfigjson": encoded}})).expect("a secret")
    }

    #[test]
    fn the_most_specific_credentials_come_first() {
        let auth = |user: &str| json!({"auth": STANDARD.encode(format!("{user}:secret"))});
        let secret = secret(json!({
            "registry.example": auth("host"),
            "registry.example/team": auth("team"),
            "*.example": {"username": "wild", "password": "x"},
            "https://index.docker.io/v1/": auth("docker"),
        }));
        let users = |image: &str| {
            lookup(image, [&secret])
                .into_iter()
                .map(|auth| auth.username)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            users("registry.example/team/app:1"),
            ["team", "host", "wild"]
        );
        assert_eq!(users("registry.example/other"), ["host", "wild"]);
        assert_eq!(users("busybox"), ["docker"]);
        assert_eq!(users("elsewhere.org/x"), Vec::<String>::new());
        assert_eq!(lookup("busybox", [&secret])[0].password, "secret");
    }
}
