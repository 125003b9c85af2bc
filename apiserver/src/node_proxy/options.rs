//! The options in the query of a connection, and the container that it is for.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Value, json};

use crate::{error::ApiError, query::Query};

/// `PodExecOptions` and `PodAttachOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    pub container: String,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    pub command: Vec<String>,
}

impl StreamOptions {
    pub fn parse(query: &Query<'_>) -> Self {
        StreamOptions {
            container: query.get("container").unwrap_or_default().to_owned(),
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
            tty: query.flag("tty"),
            command: query.all("command").map(str::to_owned).collect(),
        }
    }

    /// What the kubelet is asked with.
    pub fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, asked) in [
            ("input", self.stdin),
            ("output", self.stdout),
            ("error", self.stderr),
            ("tty", self.tty),
        ] {
            if asked {
                query.append_pair(name, "1");
            }
        }
        for word in &self.command {
            query.append_pair("command", word);
        }
        query.finish()
    }

    pub fn to_json(&self, kind: &str) -> Value {
        let mut options = json!({
            "apiVersion": "v1", "kind": kind, "container": self.container, "stdin": self.stdin,
            "stdout": self.stdout, "stderr": self.stderr, "tty": self.tty,
        });
        if !self.command.is_empty() {
            options["command"] = json!(self.command);
        }
        options
    }
}

/// The ports of `PodPortForwardOptions`, as they were given.
pub fn ports(query: &Query<'_>) -> Result<Vec<u16>, ApiError> {
    query
        .all("ports")
        .flat_map(|ports| ports.split(','))
        .map(|port| {
            port.trim()
                .parse()
                .map_err(|_| ApiError::bad_request(format!("unable to parse {port:?} as a port")))
        })
        .collect()
}

/// The container that was asked for, or the only one.
///
/// # Errors
/// There is no such, or several to choose from.
pub fn container<'a>(pod: &'a Pod, asked: &'a str) -> Result<&'a str, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let names: Vec<&str> = spec.map(names).unwrap_or_default();
    if !asked.is_empty() {
        return if names.contains(&asked) {
            Ok(asked)
        } else {
            let message = format!("container {asked} is not valid for pod {name}");
            Err(ApiError::bad_request(message))
        };
    }
    match spec.map_or(&[][..], |spec| &spec.containers) {
        [only] => Ok(&only.name),
        [] => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}"
        ))),
        _ => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            names.join(" ")
        ))),
    }
}

/// All containers in the order in which upstream visits them.
fn names(spec: &PodSpec) -> Vec<&str> {
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    init.chain(&spec.containers)
        .map(|container| container.name.as_str())
        .chain(ephemeral.map(|container| container.name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: &[&str]) -> Pod {
        let named = |names: &[&str]| {
            names
                .iter()
                .map(|name| json!({"name": name}))
                .collect::<Vec<_>>()
        };
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": named(containers), "initContainers": named(&["init"])},
        }))
        .unwrap()
    }

    #[test]
    fn the_container_must_be_clear() {
        let found = |pod: &Pod, asked: &str| {
            let found = container(pod, asked);
            found.map(str::to_owned).map_err(|error| error.to_string())
        };
        let one = pod(&["a"]);
        assert_eq!(found(&one, ""), Ok("a".to_owned()));
        assert_eq!(found(&one, "init"), Ok("init".to_owned()));
        assert_eq!(
            found(&one, "x"),
            Err("container x is not valid for pod p".to_owned())
        );
        assert_eq!(
            found(&pod(&["a", "b"]), ""),
            Err(
                "a container name must be specified for pod p, choose one of: [init a b]"
                    .to_owned()
            )
        );
    }

    #[test]
    fn options_are_named_anew_for_the_kubelet() {
        let query = Query::parse("stdin=true&stdout=1&stderr=false&tty&command=sh&command=-c+x");
        let options = StreamOptions::parse(&query);
        assert_eq!(
            options.to_query(),
            "input=1&output=1&tty=1&command=sh&command=-c+x"
        );
        assert_eq!(
            ports(&Query::parse("ports=80,81&ports=82")).unwrap(),
            [80, 81, 82]
        );
        assert!(ports(&Query::parse("ports=x")).is_err());
    }
}
