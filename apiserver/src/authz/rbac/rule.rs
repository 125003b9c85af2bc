//! Whether one rule allows a request.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::authz::Attributes;

const ALL: &str = "*";

pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, attributes.verb) {
        return false;
    }
    if !attributes.is_resource {
        let urls = rule.non_resource_urls.iter().flatten();
        return urls
            .into_iter()
            .any(|url| covers_path(url, attributes.path));
    }
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(
        rule.api_groups.as_deref().unwrap_or_default(),
        attributes.group,
    ) && rule
        .resources
        .iter()
        .flatten()
        .any(|resource| covers_resource(resource, attributes))
        && (names.is_empty() || names.iter().any(|name| name == attributes.name))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == wanted)
}

/// `*`, `pods`, `pods/log` or `*/scale`
fn covers_resource(resource: &str, attributes: &Attributes<'_>) -> bool {
    if resource == ALL {
        return true;
    }
    match resource.split_once('/') {
        None => attributes.subresource.is_empty() && resource == attributes.resource,
        Some((parent, subresource)) => {
            !attributes.subresource.is_empty()
                && subresource == attributes.subresource
                && (parent == ALL || parent == attributes.resource)
        }
    }
}

/// `/healthz` or `/healthz/*`
fn covers_path(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => url == path,
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::Identity;
    use serde_json::{Value, json};

    use super::*;

    fn allowed(rule: Value, attributes: &Attributes<'_>) -> bool {
        let rule: PolicyRule = serde_json::from_value(rule).unwrap();
        allows(&rule, attributes)
    }

    #[test]
    fn resources_subresources_and_names() {
        let user = Identity::default();
        let get_log = Attributes {
            name: "p",
            subresource: "log",
            ..Attributes::of_resource(&user, "get", "", "pods")
        };
        let rule =
            |resource: &str| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
        for resource in ["*", "pods/log", "*/log"] {
            assert!(allowed(rule(resource), &get_log), "{resource}");
        }
        for resource in ["pods", "pods/*", "pods/exec", "*/exec", "services/log"] {
            assert!(!allowed(rule(resource), &get_log), "{resource}");
        }
        let mut named = rule("pods/log");
        named["resourceNames"] = json!(["p"]);
        assert!(allowed(named.clone(), &get_log));
        named["resourceNames"] = json!(["q"]);
        assert!(!allowed(named, &get_log));
        let list = Attributes::of_resource(&user, "list", "apps", "deployments");
        assert!(allowed(
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["deployments"]}),
            &list
        ));
        assert!(!allowed(
            json!({"verbs": ["*"], "apiGroups": [""], "resources": ["*"]}),
            &list
        ));
    }

    #[test]
    fn paths() {
        let user = Identity::default();
        let get = |path| Attributes {
            is_resource: false,
            path,
            ..Attributes::of_resource(&user, "get", "", "")
        };
        let rule = |url: &str| json!({"verbs": ["get"], "nonResourceURLs": [url]});
        assert!(allowed(rule("*"), &get("/x")));
        assert!(allowed(rule("/apis/*"), &get("/apis/apps/v1")));
        assert!(allowed(rule("/version"), &get("/version")));
        assert!(!allowed(rule("/version"), &get("/version/")));
        assert!(!allowed(rule("/apis/*"), &get("/api")));
    }
}
