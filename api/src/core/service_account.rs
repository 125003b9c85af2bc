//! ServiceAccount.

mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};
use serde_json::Value;

use crate::{
    strategy::{Behaviour, Column},
    zero::list_mut,
};

const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

impl Behaviour for ServiceAccount {
    fn prepare_for_create(&mut self) {
        keep_only_names(self);
    }

    fn prepare_for_update(&mut self, _old: &Self) {
        keep_only_names(self);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let has = |account: &Self| {
            let annotations = account.metadata.annotations.as_ref();
            annotations.is_some_and(|annotations| annotations.contains_key(ENFORCE_MOUNTABLE))
        };
        if !has(self) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate \
             namespaces to isolate access to mounted secrets"
        )]
    }

    fn columns() -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }
}

/// Secrets of the same namespace: a reference is a name.
fn keep_only_names(account: &mut ServiceAccount) {
    for secret in list_mut(&mut account.secrets) {
        *secret = ObjectReference {
            name: secret.name.take(),
            ..ObjectReference::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts() {
        crate::testing::run::<ServiceAccount>(include_str!("../../testdata/service_account.yaml"));
    }
}
