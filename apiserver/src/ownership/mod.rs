//! Who owns which field: `metadata.managedFields` of every object that is written.
//!
//! Enter at [`Ownership`]: [`Ownership::of_created`] and [`Ownership::of_changed`] for every
//! write but an apply, [`Ownership::apply`] for that. What they decide is in
//! [`coracle_api::apply`]; here it is told of the request and of the kinds.

mod configuration;
mod filters;
mod scale;
mod versions;

use coracle_api::{
    Object,
    apply::{self, Filter, Writer},
};
use http::{HeaderMap, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use crate::{
    registry::{Registry, Resource},
    server::Context,
    strategy,
};

pub use configuration::{ApplyRequest, read_config, unconvertible};

/// Upstream's limit of a manager's name, in bytes.
const MAX_MANAGER: usize = 128;

type Entries = Option<Vec<ManagedFieldsEntry>>;

/// One write, as far as it decides who owns what.
pub struct Ownership<'w> {
    registry: &'w Registry,
    resource: &'w Resource,
    version: String,
    subresource: &'w str,
    manager: String,
    filter: Filter,
}

impl<'w> Ownership<'w> {
    /// The write that a request makes. `manager` is empty when the client names none.
    pub fn new(
        registry: &'w Registry,
        context: &'w Context,
        resource: &'w Resource,
        manager: &str,
    ) -> Self {
        let subresource = context.info.subresource.as_str();
        Ownership {
            registry,
            resource,
            version: resource.kind.api_version(),
            subresource,
            manager: match manager {
                "" => manager_of_agent(context.headers()),
                manager => manager.to_owned(),
            },
            filter: filters::of(&resource.kind, subresource),
        }
    }

    fn served(&self) -> versions::Served<'w> {
        versions::Served {
            registry: self.registry,
            resource: self.resource,
        }
    }

    fn writer<'a>(&'a self, served: &'a versions::Served<'w>) -> Writer<'a> {
        Writer {
            version: &self.version,
            model: versions::model_of(&self.resource.kind),
            subresource: self.subresource,
            manager: &self.manager,
            filter: &self.filter,
            versions: served,
            now: strategy::now(),
        }
    }

    /// Says who owns what of a new object, as the client sent it and with its defaults.
    pub fn of_created(&self, new: &mut dyn Object) {
        let entries = new.meta_mut().managed_fields.take();
        let entries = understood(entries).unwrap_or_default();
        let served = self.served();
        let writer = self.writer(&served);
        let empty = writer.model.empty().unwrap_or_default();
        let owners = writer.update(&empty, &new.to_value(), entries);
        new.meta_mut().managed_fields = non_empty(owners.ok());
    }

    /// Says who owns what of an object that was changed otherwise than by an apply. `old` comes
    /// back as it was.
    pub fn of_changed(&self, old: &mut dyn Object, new: &mut dyn Object) {
        let live = old.meta_mut().managed_fields.take();
        let sent = new.meta_mut().managed_fields.take();
        let entries = self.entries(live.as_deref().unwrap_or_default(), sent);
        if !entries.is_empty() {
            let served = self.served();
            let owners = self
                .writer(&served)
                .update(&old.to_value(), &new.to_value(), entries);
            new.meta_mut().managed_fields = non_empty(owners.ok());
        }
        old.meta_mut().managed_fields = live;
    }

    /// The owners to begin with: those that the client sent, when it sent any that are
    /// understood, unless it writes only a part of the object. None: nobody is to own anything.
    fn entries(&self, live: &[ManagedFieldsEntry], sent: Entries) -> Vec<ManagedFieldsEntry> {
        if !self.subresource.is_empty() || sent.as_deref() == Some(live) {
            return live.to_vec();
        }
        if apply::is_reset(sent.as_deref()) {
            return Vec::new();
        }
        understood(sent).unwrap_or_else(|| live.to_vec())
    }
}

/// The entries, unless there are none or they are not understood; each manager once.
fn understood(entries: Entries) -> Entries {
    let owners = apply::decode(&entries?).ok()?;
    non_empty(Some(apply::encode(owners)))
}

fn non_empty(entries: Entries) -> Entries {
    entries.filter(|entries| !entries.is_empty())
}

/// Puts the old times back when nothing but times would change.
pub fn keep_times(
    old: &dyn Object,
    new: &mut dyn Object,
    is_unchanged: impl Fn(&mut dyn Object) -> bool,
) {
    let (Some(before), Some(after)) = (&old.meta().managed_fields, &new.meta().managed_fields)
    else {
        return;
    };
    if before == after || !apply::same_but_for_times(before, after) {
        return;
    }
    let after = new.meta_mut().managed_fields.replace(before.clone());
    if !is_unchanged(new) {
        new.meta_mut().managed_fields = after;
    }
}

/// The manager that a client is called which names none: its user agent up to the first slash.
fn manager_of_agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| std::str::from_utf8(agent.as_bytes()).ok())
        .unwrap_or_default();
    let prefix = agent.split('/').next().unwrap_or_default();
    let mut manager = String::with_capacity(prefix.len().min(MAX_MANAGER));
    for c in prefix.chars() {
        let is_printable = c == ' ' || !(c.is_control() || c.is_whitespace());
        if !is_printable {
            continue;
        }
        if manager.len() + c.len_utf8() > MAX_MANAGER {
            break;
        }
        manager.push(c);
    }
    manager
}
