//! Who a request is from.

use std::collections::BTreeMap;

/// The user of a request, as upstream's `user.Info`.
///
/// In-process requests carry it as an extension of the HTTP request, where no request from a
/// socket can put it; authentication fills it in for all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// For example `system:kube-scheduler`.
    pub user: String,
    /// Empty unless the authenticator knows one.
    pub uid: String,
    /// For example `system:masters`. `system:authenticated` is added by the API server.
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}
