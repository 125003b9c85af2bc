//! The paths of the node's endpoints.

use http::Method;
use percent_encoding::percent_decode_str;

use super::{containers::PodId, host::MetricsPage};

/// `/{namespace}/{pod}[/{uid}]/{container}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPath {
    pub namespace: String,
    pub pod: String,
    pub uid: Option<String>,
    /// Empty for port-forward.
    pub container: String,
}

impl ContainerPath {
    pub fn pod_id(&self) -> PodId {
        PodId {
            namespace: self.namespace.clone(),
            name: self.pod.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    ContainerLogs(ContainerPath),
    Exec(ContainerPath),
    Attach(ContainerPath),
    PortForward(ContainerPath),
    Run(ContainerPath),
    Pods,
    RunningPods,
    /// One check, or all if it is empty.
    Healthz(String),
    Metrics(MetricsPage),
    ResourceMetrics,
    Summary,
    Configz,
    /// Relative to the directory of logs.
    SystemLogs(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    NotFound,
    Method,
}

/// The first part of a path, for metrics: `other` for one that there is not.
pub fn first(path: &str) -> &'static str {
    const KNOWN: [&str; 12] = [
        "attach",
        "configz",
        "containerLogs",
        "exec",
        "healthz",
        "logs",
        "metrics",
        "pods",
        "portForward",
        "run",
        "runningpods",
        "stats",
    ];
    let first = path.trim_start_matches('/').split('/').next();
    let known = KNOWN.into_iter().find(|known| Some(*known) == first);
    known.unwrap_or("other")
}

pub fn parse(method: &Method, path: &str) -> Result<Route, NoRoute> {
    let parts: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let route = match parts[..] {
        ["containerLogs", ref rest @ ..] if rest.len() == 3 => {
            Route::ContainerLogs(container(rest)?)
        }
        ["exec", ref rest @ ..] => Route::Exec(container(rest)?),
        ["attach", ref rest @ ..] => Route::Attach(container(rest)?),
        ["run", ref rest @ ..] => Route::Run(container(rest)?),
        ["portForward", namespace, pod] => Route::PortForward(ContainerPath {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            ..ContainerPath::default()
        }),
        ["portForward", namespace, pod, uid] => Route::PortForward(ContainerPath {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: Some(uid.to_owned()),
            ..ContainerPath::default()
        }),
        ["pods"] => Route::Pods,
        ["runningpods"] => Route::RunningPods,
        ["healthz"] => Route::Healthz(String::new()),
        ["healthz", check] => Route::Healthz(check.to_owned()),
        ["metrics"] => Route::Metrics(MetricsPage::Kubelet),
        ["metrics", "cadvisor"] => Route::Metrics(MetricsPage::Cadvisor),
        ["metrics", "probes"] => Route::Metrics(MetricsPage::Probes),
        ["metrics", "resource"] => Route::ResourceMetrics,
        ["stats", "summary"] => Route::Summary,
        ["configz"] => Route::Configz,
        ["logs", ref rest @ ..] => Route::SystemLogs(rest.join("/")),
        _ => return Err(NoRoute::NotFound),
    };
    let allowed: &[Method] = match route {
        Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) | Route::Summary => {
            &[Method::GET, Method::POST]
        }
        Route::Run(_) => &[Method::POST],
        _ => &[Method::GET, Method::HEAD],
    };
    if allowed.contains(method) {
        Ok(route)
    } else {
        Err(NoRoute::Method)
    }
}

fn container(parts: &[&str]) -> Result<ContainerPath, NoRoute> {
    let (namespace, pod, uid, container) = match *parts {
        [namespace, pod, container] => (namespace, pod, None, container),
        [namespace, pod, uid, container] => (namespace, pod, Some(uid.to_owned()), container),
        _ => return Err(NoRoute::NotFound),
    };
    Ok(ContainerPath {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid,
        container: container.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        let container = ContainerPath {
            namespace: "ns".to_owned(),
            pod: "p".to_owned(),
            uid: None,
            container: "c".to_owned(),
        };
        let with_uid = ContainerPath {
            uid: Some("u".to_owned()),
            ..container.clone()
        };
        let cases = [
            (
                "GET",
                "/containerLogs/ns/p/c",
                Ok(Route::ContainerLogs(container.clone())),
            ),
            ("GET", "/containerLogs/ns/p/u/c", Err(NoRoute::NotFound)),
            ("POST", "/exec/ns/p/c", Ok(Route::Exec(container))),
            ("GET", "/exec/ns/p/u/c", Ok(Route::Exec(with_uid))),
            ("GET", "/run/ns/p/c", Err(NoRoute::Method)),
            ("GET", "/healthz/", Ok(Route::Healthz(String::new()))),
            (
                "GET",
                "/metrics/probes",
                Ok(Route::Metrics(MetricsPage::Probes)),
            ),
            (
                "GET",
                "/logs/pods/",
                Ok(Route::SystemLogs("pods".to_owned())),
            ),
            ("DELETE", "/pods", Err(NoRoute::Method)),
            ("GET", "/", Err(NoRoute::NotFound)),
        ];
        for (method, path, expected) in cases {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(parse(&method, path), expected, "{path}");
        }
    }
}
