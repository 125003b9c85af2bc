//! `NamespaceLifecycle`: nothing is created in a namespace that does not exist or is being
//! deleted, and some namespaces are never deleted.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use coracle_api::Object;
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::StatusCause};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Admission, Attributes, Operation};
use crate::{Lister, Registry, Shared, error::ApiError};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// The cache is not trusted for so long after a deletion was asked for.
const DISTRUST: Duration = Duration::from_secs(30);

/// The plugin.
pub struct NamespaceLifecycle {
    registry: Registry,
    namespaces: Lister<Namespace>,
    deleted: Mutex<HashMap<String, Instant>>,
}

impl NamespaceLifecycle {
    pub fn new(registry: Registry) -> Self {
        NamespaceLifecycle {
            namespaces: registry.lister(),
            registry,
            deleted: Mutex::default(),
        }
    }

    async fn namespace(&self, name: &str) -> Result<Shared<Namespace>, ApiError> {
        if let Some(found) = self.namespaces.get("", name)
            && (is_terminating(&found) || !self.was_deleted(name))
        {
            return Ok(found);
        }
        self.registry.fresh().await?;
        let found = self.namespaces.get("", name);
        found.ok_or_else(|| {
            let subject = crate::error::GroupResource {
                group: "",
                resource: "namespaces",
            };
            ApiError::not_found(subject, name)
        })
    }

    fn was_deleted(&self, name: &str) -> bool {
        let deleted = self.deleted.lock();
        deleted.get(name).is_some_and(|at| at.elapsed() < DISTRUST)
    }

    fn note_deletion(&self, name: &str) {
        let mut deleted = self.deleted.lock();
        deleted.retain(|_, at| at.elapsed() < DISTRUST);
        deleted.insert(name.to_owned(), Instant::now());
    }
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let operation = attributes.operation;
        if attributes.kind.group.is_empty() && attributes.kind.kind == "Namespace" {
            if operation == Operation::Delete {
                if IMMORTAL.contains(&attributes.name) {
                    let why = "this namespace may not be deleted";
                    return Err(ApiError::forbidden(attributes.kind, attributes.name, why));
                }
                self.note_deletion(attributes.name);
            }
            return Ok(());
        }
        let about_users = attributes.kind.resource == "localsubjectaccessreviews";
        if attributes.namespace.is_empty() || operation == Operation::Delete || about_users {
            return Ok(());
        }
        let namespace = self.namespace(attributes.namespace).await?;
        if operation == Operation::Create && is_terminating(&namespace) {
            return Err(terminating(attributes, object.as_deref()));
        }
        Ok(())
    }
}

fn is_terminating(namespace: &Namespace) -> bool {
    let status = namespace.status.as_ref();
    status.is_some_and(|status| status.phase.as_deref() == Some("Terminating"))
}

fn terminating(attributes: &Attributes<'_>, object: Option<&dyn Object>) -> ApiError {
    let name = attributes.namespace;
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut error = attributes.forbidden(object, why);
    let details = error.0.details.get_or_insert_default();
    details.causes.get_or_insert_default().push(StatusCause {
        reason: Some("NamespaceTerminating".to_owned()),
        message: Some(format!("namespace {name} is being terminated")),
        field: Some("metadata.namespace".to_owned()),
    });
    error
}
