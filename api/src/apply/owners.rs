//! Who owns which fields: `metadata.managedFields`, read and written.

use std::{cmp::Ordering, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};

use super::set::{Set, SetError};

const FIELDS_V1: &str = "FieldsV1";
const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// How many managers that update are told apart; the oldest of more become one.
pub const MAX_UPDATE_MANAGERS: usize = 10;
const OLD_UPDATES: &str = "ancient-changes";

/// Who owns fields. One manager is several when it both applies and updates, or through
/// several subresources or versions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Empty for one that applies, which is the same in all versions.
    pub api_version: String,
    pub subresource: String,
}

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The version that has these fields.
    pub api_version: String,
    pub fields: Set,
    pub time: Option<Time>,
}

pub type Owners = BTreeMap<Manager, Owned>;

/// Why managed fields are not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnersError {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoType(usize),
    #[error("invalid fieldsType {1:?} in managed fields entry {0}")]
    Type(usize, String),
    #[error("error decoding set: {0}")]
    Fields(#[from] SetError),
}

impl Manager {
    /// A manager that updates.
    pub fn updating(name: &str, api_version: &str, subresource: &str) -> Self {
        Manager {
            name: name_or_unknown(name),
            operation: Operation::Update,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// A manager that applies.
    pub fn applying(name: &str, subresource: &str) -> Self {
        Manager {
            name: name_or_unknown(name),
            operation: Operation::Apply,
            api_version: String::new(),
            subresource: subresource.to_owned(),
        }
    }

    /// Whose entry this is.
    pub fn of_entry(entry: &ManagedFieldsEntry) -> Result<Self, OwnersError> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let operation = match entry.operation.as_deref() {
            Some(APPLY) => Operation::Apply,
            Some(UPDATE) => Operation::Update,
            _ => return Err(OwnersError::Operation),
        };
        let api_version = match operation {
            Operation::Apply => String::new(),
            Operation::Update => text(&entry.api_version),
        };
        Ok(Manager {
            name: text(&entry.manager),
            operation,
            api_version,
            subresource: text(&entry.subresource),
        })
    }
}

fn name_or_unknown(name: &str) -> String {
    match name {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

/// As messages about conflicts name it.
impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Update => write!(f, " using {}", self.api_version),
            Operation::Apply => Ok(()),
        }
    }
}

/// Reads managed fields.
pub fn decode(entries: &[ManagedFieldsEntry]) -> Result<Owners, OwnersError> {
    let mut owners = Owners::new();
    for (at, entry) in entries.iter().enumerate() {
        let manager = Manager::of_entry(entry)?;
        let api_version = entry.api_version.clone().unwrap_or_default();
        if api_version.is_empty() {
            return Err(OwnersError::NoVersion);
        }
        match entry.fields_type.as_deref().unwrap_or_default() {
            FIELDS_V1 => {}
            "" => return Err(OwnersError::NoType(at)),
            other => return Err(OwnersError::Type(at, other.to_owned())),
        }
        let fields = match &entry.fields_v1 {
            Some(fields) => Set::from_fields(&fields.0)?,
            None => Set::new(),
        };
        let owned = Owned {
            api_version,
            fields,
            time: entry.time.clone(),
        };
        owners.insert(manager, owned);
    }
    Ok(owners)
}

/// Writes managed fields, in upstream's order.
pub fn encode(owners: Owners) -> Vec<ManagedFieldsEntry> {
    let mut entries: Vec<ManagedFieldsEntry> = owners
        .into_iter()
        .map(|(manager, owned)| entry(manager, owned))
        .collect();
    sort(&mut entries);
    entries
}

/// The entry that says so.
pub(super) fn entry(manager: Manager, owned: Owned) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        api_version: Some(owned.api_version),
        fields_type: Some(FIELDS_V1.to_owned()),
        fields_v1: Some(FieldsV1(owned.fields.to_fields())),
        manager: Some(manager.name).filter(|name| !name.is_empty()),
        operation: Some(
            match manager.operation {
                Operation::Apply => APPLY,
                Operation::Update => UPDATE,
            }
            .to_owned(),
        ),
        subresource: Some(manager.subresource).filter(|subresource| !subresource.is_empty()),
        time: owned.time,
    }
}

/// Those that apply come first, then the older, then by name.
pub(super) fn sort(entries: &mut [ManagedFieldsEntry]) {
    entries.sort_by(|left, right| {
        left.operation
            .cmp(&right.operation)
            .then_with(|| seconds(left.time.as_ref()).cmp(&seconds(right.time.as_ref())))
            .then_with(|| left.manager.cmp(&right.manager))
            .then_with(|| left.api_version.cmp(&right.api_version))
            .then_with(|| left.subresource.cmp(&right.subresource))
    });
}

fn seconds(time: Option<&Time>) -> i64 {
    time.map_or(0, |time| time.0.as_second())
}

/// Merges the oldest managers that update until there are not too many, those of a version
/// into one.
pub fn cap(owners: &mut Owners) {
    let mut updaters: Vec<Manager> = owners
        .keys()
        .filter(|manager| manager.operation == Operation::Update)
        .cloned()
        .collect();
    if updaters.len() <= MAX_UPDATE_MANAGERS {
        return;
    }
    updaters.sort_by(|left, right| oldest_first(owners, left, right));
    let mut count = updaters.len();
    let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
    for manager in updaters {
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        let version = manager.api_version.clone();
        let Some(first) = first_of_version.get(&version) else {
            first_of_version.insert(version, manager);
            continue;
        };
        let bucket = Manager::updating(OLD_UPDATES, &version, "");
        if !owners.contains_key(&bucket)
            && let Some(owned) = owners.remove(first)
        {
            owners.insert(bucket.clone(), owned);
        }
        if manager == bucket {
            continue;
        }
        if let Some(merged) = owners.remove(&manager)
            && let Some(owned) = owners.get_mut(&bucket)
        {
            owned.fields = owned.fields.union(&merged.fields);
            owned.time = merged.time;
            count -= 1;
        }
    }
}

fn oldest_first(owners: &Owners, left: &Manager, right: &Manager) -> Ordering {
    let age = |manager| {
        owners
            .get(manager)
            .map_or(0, |owned| seconds(owned.time.as_ref()))
    };
    age(left).cmp(&age(right)).then_with(|| left.cmp(right))
}

/// Whether a client asks that nobody owns anything any more: by an empty list, or a list of
/// one empty entry.
pub fn is_reset(entries: Option<&[ManagedFieldsEntry]>) -> bool {
    match entries {
        None => false,
        Some([]) => true,
        Some([one]) => *one == ManagedFieldsEntry::default(),
        Some(_) => false,
    }
}

/// Whether two lists are the same but for the times.
pub fn same_but_for_times(left: &[ManagedFieldsEntry], right: &[ManagedFieldsEntry]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| {
            left.manager == right.manager
                && left.operation == right.operation
                && left.api_version == right.api_version
                && left.subresource == right.subresource
                && left.fields_type == right.fields_type
                && left.fields_v1 == right.fields_v1
        })
}
