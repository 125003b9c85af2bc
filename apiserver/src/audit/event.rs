//! One event, in the forms that upstream writes it in.

use std::collections::BTreeMap;

use coracle_api::Identity;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::policy::{Level, Stage};

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Legacy,
}

/// `audit.k8s.io/v1`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub kind: &'static str,
    pub api_version: &'static str,
    pub level: Level,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: String,
    pub user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "status")]
    pub response_status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Box<RawValue>>,
    #[serde(serialize_with = "micro_time")]
    pub request_received_timestamp: Timestamp,
    #[serde(serialize_with = "micro_time")]
    pub stage_timestamp: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<&Identity> for User {
    fn from(identity: &Identity) -> Self {
        User {
            username: identity.user.clone(),
            uid: identity.uid.clone(),
            groups: identity.groups.clone(),
            extra: identity.extra.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

impl Event {
    /// A line of the log, with its end.
    pub fn line(&self, format: Format) -> Vec<u8> {
        let mut line = match format {
            // Nothing in an event can fail to be written.
            Format::Json => serde_json::to_vec(self).unwrap_or_default(),
            Format::Legacy => self.legacy().into_bytes(),
        };
        line.push(b'\n');
        line
    }

    fn legacy(&self) -> String {
        let list = |items: &[String]| {
            let quoted: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
            quoted.join(",")
        };
        let or = |text: &str, other: &str| {
            let text = if text.is_empty() { other } else { text };
            text.to_owned()
        };
        let mut groups = "<none>".to_owned();
        if !self.user.username.is_empty() && !self.user.groups.is_empty() {
            groups = list(&self.user.groups);
        }
        let (mut other, mut other_groups) = ("<self>".to_owned(), "<lookup>".to_owned());
        if let Some(user) = &self.impersonated_user {
            other.clone_from(&user.username);
            if !user.groups.is_empty() {
                other_groups = list(&user.groups);
            }
        }
        let namespace = self
            .object_ref
            .as_ref()
            .map(|object| object.namespace.as_str());
        let code = self.response_status.as_ref().and_then(|status| status.code);
        let code = code.map_or_else(|| "<deferred>".to_owned(), |code| code.to_string());
        let ip = self.source_ips.first().map_or("<unknown>", String::as_str);
        format!(
            "{} AUDIT: id={:?} stage={:?} ip={ip:?} method={:?} user={:?} groups={groups:?} as={other:?} asgroups={other_groups:?} user-agent={:?} namespace={:?} uri={:?} response=\"{code}\"",
            self.request_received_timestamp,
            self.audit_id,
            self.stage.name(),
            self.verb,
            or(&self.user.username, "<none>"),
            self.user_agent,
            or(namespace.unwrap_or_default(), "<none>"),
            self.request_uri,
        )
    }
}

fn micro_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
}

/// Without kind and version, as upstream has it there.
fn status<S: Serializer>(status: &Option<Status>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut json = serde_json::to_value(status).map_err(serde::ser::Error::custom)?;
    if let Some(members) = json.as_object_mut() {
        members.remove("kind");
        members.remove("apiVersion");
    }
    json.serialize(serializer)
}
