//! What the API serves, as discovery tells it: for controllers that work on every kind.

use std::collections::BTreeSet;

use futures::{FutureExt as _, future::BoxFuture};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, ObjectList, PartialObjectMeta},
    core::{ApiResource, discovery::v2::APIGroupDiscoveryList},
};

/// A resource that the API serves in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    pub verbs: BTreeSet<String>,
    /// Whether this is the version in which the API prefers to serve it.
    pub preferred: bool,
}

/// What discovery found, and which groups could not answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovered {
    pub served: Vec<Served>,
    /// `group/version: why`
    pub failed: Vec<String>,
}

impl Served {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.contains(verb)
    }

    /// The resource's objects; `namespace` is empty for all, and for those of the cluster.
    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }

    /// `/v1, Resource=pods`, as upstream's messages write it.
    pub fn describe(&self) -> String {
        let resource = &self.resource;
        format!(
            "{}/{}, Resource={}",
            resource.group, resource.version, resource.plural
        )
    }
}

/// Asks the API what it serves.
pub(crate) fn discover(client: &Client) -> BoxFuture<'_, Result<Discovered, kube::Error>> {
    async move {
        let mut found = Discovered::default();
        found.add(client.list_core_api_versions_aggregated().await?);
        found.add(client.list_api_groups_aggregated().await?);
        Ok(found)
    }
    .boxed()
}

/// The metadata of the resource's objects.
pub(crate) fn list_metadata(
    api: &Api<DynamicObject>,
) -> BoxFuture<'_, Result<ObjectList<PartialObjectMeta<DynamicObject>>, kube::Error>> {
    async move { api.list_metadata(&ListParams::default()).await }.boxed()
}

impl Discovered {
    /// The versions of a group come with the preferred one first; the first to serve a resource
    /// counts.
    fn add(&mut self, list: APIGroupDiscoveryList) {
        for group in list.items {
            let name = group
                .metadata
                .and_then(|meta| meta.name)
                .unwrap_or_default();
            let mut seen = BTreeSet::new();
            for version in group.versions {
                let number = version.version.unwrap_or_default();
                let api_version = if name.is_empty() {
                    number.clone()
                } else {
                    format!("{name}/{number}")
                };
                if version.freshness.as_deref() == Some("Stale") {
                    self.failed.push(format!(
                        "{api_version}: stale GroupVersion discovery: {api_version}"
                    ));
                }
                for found in version.resources {
                    let plural = found.resource.unwrap_or_default();
                    let kind = found.response_kind.and_then(|kind| kind.kind);
                    if plural.is_empty() {
                        continue;
                    }
                    self.served.push(Served {
                        preferred: seen.insert(plural.clone()),
                        resource: ApiResource {
                            group: name.clone(),
                            version: number.clone(),
                            api_version: api_version.clone(),
                            kind: kind.unwrap_or_default(),
                            plural,
                        },
                        namespaced: found.scope.as_deref() == Some("Namespaced"),
                        verbs: found.verbs.into_iter().collect(),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_resource_is_found_in_its_preferred_version() {
        let resource = |plural: &str, kind: &str, scope: &str| {
            json!({ "resource": plural, "responseKind": { "kind": kind }, "scope": scope,
                "verbs": ["delete", "list"] })
        };
        let list = serde_json::from_value(json!({ "items": [
            { "metadata": { "name": "autoscaling" }, "versions": [
                { "version": "v2", "resources": [
                    resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", "Namespaced"),
                ]},
                { "version": "v1", "resources": [
                    resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", "Namespaced"),
                    resource("olds", "Old", "Cluster"),
                ]},
            ]},
            { "metadata": { "name": "gone.example.com" }, "versions": [
                { "version": "v1", "freshness": "Stale" },
            ]},
        ]}))
        .expect("a discovery document");
        let mut found = Discovered::default();
        found.add(list);
        let preferred = found.served.iter().filter(|served| served.preferred);
        let described: Vec<String> = preferred.map(Served::describe).collect();
        assert_eq!(
            described,
            [
                "autoscaling/v2, Resource=horizontalpodautoscalers",
                "autoscaling/v1, Resource=olds",
            ]
        );
        assert!(found.served[0].namespaced && !found.served[2].namespaced);
        assert!(found.served[0].can("delete") && !found.served[0].can("watch"));
        assert_eq!(
            found.failed,
            ["gone.example.com/v1: stale GroupVersion discovery: gone.example.com/v1"]
        );
    }
}
