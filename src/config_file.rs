//! The configuration file: a YAML map whose keys are the long names of flags.
//!
//! It is turned into arguments that stand before those of the command line, so that a flag means
//! the same in both places and the command line wins.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_yaml_ng::Value;

pub const DEFAULT_PATH: &str = "/etc/coracle/config.yaml";

/// The arguments of this process with those of the configuration file put in.
///
/// # Errors
/// When a file that was asked for is missing, or one cannot be read or is no map of flags.
pub fn arguments(given: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    if given.get(1).is_none_or(|command| command != "server") {
        return Ok(given);
    }
    let asked_for = asked_for(&given[2..]);
    let path = asked_for
        .clone()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && asked_for.is_none() => {
            return Ok(given);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read the configuration file {}", path.display()));
        }
    };
    let from_file =
        parse(&text).with_context(|| format!("in the configuration file {}", path.display()))?;
    let mut arguments = given[..2].to_vec();
    arguments.extend(from_file);
    arguments.extend_from_slice(&given[2..]);
    Ok(arguments)
}

fn asked_for(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--config" || argument == "-c" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument
            .to_str()
            .and_then(|text| text.strip_prefix("--config="))
        {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("CORACLE_CONFIG_FILE").map(|path| Path::new(&path).to_owned())
}

fn parse(text: &str) -> anyhow::Result<Vec<OsString>> {
    let value: Value = serde_yaml_ng::from_str(text)?;
    let map = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Mapping(map) => map,
        _ => bail!("expected a map from flags to values"),
    };
    let mut arguments = Vec::new();
    for (key, value) in map {
        let Value::String(key) = key else {
            bail!("a key is not text: {key:?}");
        };
        let values = match value {
            Value::Sequence(values) => values,
            Value::Bool(false) | Value::Null => continue,
            value => vec![value],
        };
        for value in values {
            match value {
                Value::Bool(true) => arguments.push(flag(&key, "")),
                Value::String(value) => arguments.push(flag(&key, &value)),
                Value::Number(value) => arguments.push(flag(&key, &value.to_string())),
                _ => {
                    bail!("the value of {key} is neither text, number, boolean nor a list of them")
                }
            }
        }
    }
    Ok(arguments)
}

fn flag(key: &str, value: &str) -> OsString {
    let mut argument = OsString::from(format!("--{key}"));
    if !value.is_empty() {
        argument.push(OsStr::new("="));
        argument.push(value);
    }
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_flags() {
        let text = "
node-name: edge-1
https-listen-port: 7443
disable-agent: true
disable: [dns, proxy]
";
        assert_eq!(
            parse(text).unwrap(),
            [
                "--node-name=edge-1",
                "--https-listen-port=7443",
                "--disable-agent",
                "--disable=dns",
                "--disable=proxy"
            ]
        );
        assert!(parse("").unwrap().is_empty());
        assert!(parse("disable-agent: false").unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["- a", "a: {b: c}", "1: 2", "text"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
