//! What a request asks for, read once from its method and URL.
//!
//! The rules are upstream's (`apiserver/pkg/endpoints/request/requestinfo.go`); everything
//! after this dispatches on the data, so that no resource needs a route of its own.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::query::Query;

/// A request, taken apart. Strings are empty where the request has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource (below `/api/v1` or `/apis/group/version`).
    pub is_resource: bool,
    /// The decoded path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for
    /// a path that names no resource the method in lower case.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, as it was sent: the path given to a proxy.
    pub rest: String,
    /// Unparsed; only for verbs that honour selectors.
    pub field_selector: String,
    pub label_selector: String,
}

impl RequestInfo {
    /// Whether the answer may take as long as the client likes, so that no deadline and no
    /// in-flight bound applies to it.
    pub fn long_running(&self) -> bool {
        self.is_resource
            && (matches!(self.verb.as_str(), "watch" | "proxy")
                || matches!(
                    self.subresource.as_str(),
                    "attach" | "exec" | "proxy" | "log" | "portforward"
                ))
    }

    /// Whether the request changes nothing.
    pub fn read_only(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "get" | "list" | "watch" | "head" | "options"
        )
    }

    /// Reads method, path and query.
    pub fn parse(method: &Method, path: &str, query: &Query<'_>) -> Self {
        let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
        let mut info = RequestInfo {
            path: decoded,
            verb: method.as_str().to_ascii_lowercase(),
            ..RequestInfo::default()
        };
        // A proxied path keeps its last slash, so only the parts are without it.
        let raw: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let grouped = match parts.first().map(String::as_str) {
            Some("api") => false,
            Some("apis") => true,
            _ => return info,
        };
        let first_of_resource = if grouped { 3 } else { 2 };
        if parts.len() <= first_of_resource {
            return info;
        }
        info.api_prefix.clone_from(&parts[0]);
        if grouped {
            info.group.clone_from(&parts[1]);
        }
        info.version.clone_from(&parts[first_of_resource - 1]);
        info.is_resource = true;
        info.parse_resource(
            method,
            &parts[first_of_resource..],
            &raw[first_of_resource..],
            query,
        );
        info
    }

    fn parse_resource(
        &mut self,
        method: &Method,
        mut parts: &[String],
        mut raw: &[&str],
        query: &Query<'_>,
    ) {
        let verb_in_path = matches!(parts[0].as_str(), "proxy" | "watch") && parts.len() > 1;
        if verb_in_path {
            self.verb.clone_from(&parts[0]);
            (parts, raw) = (&parts[1..], &raw[1..]);
        } else {
            self.verb = verb_of(method).to_owned();
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            self.namespace.clone_from(&parts[1]);
            let names_resource =
                parts.len() > 2 && !matches!(parts[2].as_str(), "status" | "finalize");
            if names_resource {
                (parts, raw) = (&parts[2..], &raw[2..]);
            }
        }
        self.resource.clone_from(&parts[0]);
        if let Some(name) = parts.get(1) {
            self.name.clone_from(name);
        }
        if parts.len() >= 3 && self.verb != "proxy" {
            self.subresource.clone_from(&parts[2]);
            self.rest = raw[3..].join("/");
        }
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
            if let Some(name) = name_in_field_selector(query.get("fieldSelector")) {
                self.name = name;
            }
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        if !verb_in_path && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = query.get("fieldSelector").unwrap_or_default().to_owned();
            self.label_selector = query.get("labelSelector").unwrap_or_default().to_owned();
        }
    }
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The name that `metadata.name=x` in a field selector restricts the request to. Authorisation
/// by resource name relies on it.
fn name_in_field_selector(selector: Option<&str>) -> Option<String> {
    let name = selector?.split(',').find_map(|requirement| {
        let requirement = requirement.trim();
        let value = requirement.strip_prefix("metadata.name=")?;
        Some(value.strip_prefix('=').unwrap_or(value))
    })?;
    let valid = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%', '\\']);
    valid.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(method, path, &Query::parse(query))
    }

    #[test]
    fn verbs_and_names_as_upstream() {
        // Method, target, verb, group, version, namespace, resource, subresource, name.
        #[rustfmt::skip]
        let cases: &[(Method, &str, [&str; 7])] = &[
            (Method::GET, "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]),
            (Method::GET, "/api/v1/namespaces/other", ["get", "", "v1", "other", "namespaces", "", "other"]),
            (Method::PUT, "/api/v1/namespaces/other/finalize", ["update", "", "v1", "other", "namespaces", "finalize", "other"]),
            (Method::GET, "/api/v1/namespaces/other/pods", ["list", "", "v1", "other", "pods", "", ""]),
            (Method::GET, "/api/v1/namespaces/other/pods?watch=1", ["watch", "", "v1", "other", "pods", "", ""]),
            (Method::GET, "/api/v1/namespaces/other/pods?watch=false", ["list", "", "v1", "other", "pods", "", ""]),
            (Method::GET, "/api/v1/watch/namespaces/other/pods", ["watch", "", "v1", "other", "pods", "", ""]),
            (Method::GET, "/api/v1/watch/pods", ["watch", "", "v1", "", "pods", "", ""]),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", ["list", "", "v1", "", "pods", "", "x"]),
            (Method::DELETE, "/api/v1/namespaces/other/pods", ["deletecollection", "", "v1", "other", "pods", "", ""]),
            (Method::POST, "/apis/apps/v1/namespaces/a/deployments", ["create", "apps", "v1", "a", "deployments", "", ""]),
            (Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/d/scale", ["patch", "apps", "v1", "a", "deployments", "scale", "d"]),
            (Method::GET, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode", ["get", "rbac.authorization.k8s.io", "v1", "", "clusterroles", "", "system:node"]),
        ];
        for (method, target, expected) in cases {
            let info = parse(method, target);
            assert!(info.is_resource, "{target}");
            let got = [
                &info.verb,
                &info.group,
                &info.version,
                &info.namespace,
                &info.resource,
                &info.subresource,
                &info.name,
            ];
            assert_eq!(got.map(String::as_str), *expected, "{method} {target}");
        }
    }

    #[test]
    fn paths_without_resource() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz",
            "/openapi/v2",
        ] {
            let info = parse(&Method::GET, path);
            assert!(!info.is_resource, "{path}");
            assert_eq!(info.verb, "get");
        }
    }

    #[test]
    fn proxy_paths_keep_the_rest_as_sent() {
        let info = parse(
            &Method::GET,
            "/api/v1/namespaces/a/services/http:s:80/proxy/x%20y/z",
        );
        assert_eq!(info.subresource, "proxy");
        assert_eq!(info.name, "http:s:80");
        assert_eq!(info.rest, "x%20y/z");
    }
}
