//! The rules of the house that no compiler checks: the arrows between the crates, the map in
//! ARCHITECTURE.md, and what deny.toml says of licences and bans.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

/// Which crates of ours a crate may use, as design and ARCHITECTURE.md say.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "coracle-controllers",
        &["coracle-client", "coracle-metrics", "coracle-api"],
    ),
    (
        "coracle-scheduler",
        &[
            "coracle-client",
            "coracle-metrics",
            "coracle-cel",
            "coracle-api",
        ],
    ),
    (
        "coracle-kubelet",
        &[
            "coracle-client",
            "coracle-transport",
            "coracle-metrics",
            "coracle-api",
        ],
    ),
    (
        "coracle-proxy",
        &[
            "coracle-client",
            "coracle-netfilter",
            "coracle-metrics",
            "coracle-api",
        ],
    ),
    ("coracle-dns", &["coracle-client", "coracle-api"]),
    ("coracle-cni", &["coracle-netfilter"]),
    ("coracle-client", &["coracle-metrics", "coracle-api"]),
    (
        "coracle-apiserver",
        &[
            "coracle-store",
            "coracle-transport",
            "coracle-metrics",
            "coracle-cel",
            "coracle-api",
        ],
    ),
    ("coracle-cel", &["coracle-api"]),
    ("coracle-netfilter", &[]),
    ("coracle-store", &[]),
    ("coracle-transport", &[]),
    ("coracle-netfilter", &[]),
    ("coracle-metrics", &[]),
    ("coracle-api", &[]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().expect("packages is a list")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn crates_use_only_what_the_arrows_allow() {
    let metadata = metadata();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages(&metadata) {
        let name = text(package, "name");
        if !name.starts_with("coracle-") {
            continue;
        }
        let Some(allowed) = arrows.get(name) else {
            wrong.push(format!("{name} is not in the table of arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = text(dependency, "name");
            let for_tests_only = text(dependency, "kind") == "dev";
            if used.starts_with("coracle-") && !allowed.contains(&used) && !for_tests_only {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not allowed: {wrong:#?}");
}

#[test]
fn every_path_of_the_architecture_exists() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("there is a map");
    let missing: Vec<&str> = map
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.contains('/') && !quoted.starts_with('/') && !quoted.contains(' '))
        .filter(|path| !root().join(path).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what is not there: {missing:?}"
    );
}

/// The quoted strings of one list in deny.toml.
fn deny_list(key: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("there is a deny.toml");
    let start = text
        .find(&format!("\n{key} = ["))
        .expect("the list is there");
    let list = text[start..].split_once(']').map_or("", |(list, _)| list);
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn dependencies_keep_to_deny_toml() {
    let metadata = metadata();
    let (licences, banned) = (deny_list("allow"), deny_list("deny"));
    assert!(
        licences.contains("MIT") && banned.contains("openssl-sys"),
        "deny.toml was read"
    );
    let mut wrong = Vec::new();
    for package in packages(&metadata) {
        let name = text(package, "name");
        // `A OR B` needs one of them, `A AND B` all.
        let expression = text(package, "license")
            .replace('/', " OR ")
            .replace(['(', ')'], " ");
        let fits = expression.split(" AND ").all(|all| {
            all.split(" OR ")
                .any(|licence| licences.contains(licence.trim().trim_end_matches('+')))
        });
        if !fits {
            wrong.push(format!("{name}: licence {expression:?}"));
        }
        if banned.contains(name) {
            wrong.push(format!("{name} is banned"));
        }
        let source = text(package, "source");
        if !source.is_empty() && !source.starts_with("registry+") {
            wrong.push(format!("{name} comes from {source}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
