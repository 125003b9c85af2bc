//! What a claim asks for, made uniform: a list of requests, each a list of alternatives; and the
//! constraints that hold between the devices of one claim.

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, Device, DeviceAttribute, DeviceClass, DeviceConstraint, DeviceRequest,
    DeviceSelector, DeviceToleration, ResourceClaim,
};

/// One way to fulfil a request.
pub(super) struct Alternative<'a> {
    pub name: &'a str,
    /// The request that it is one of several alternatives of.
    pub parent: Option<&'a str>,
    pub class: &'a DeviceClass,
    pub selectors: &'a [DeviceSelector],
    pub tolerations: &'a [DeviceToleration],
    pub capacity: Option<&'a CapacityRequirements>,
    pub admin: bool,
    pub count: usize,
    /// All that match, by index of the candidate.
    pub all: Option<Vec<usize>>,
}

impl Alternative<'_> {
    /// As results and configurations name it.
    pub fn full_name(&self) -> String {
        match self.parent {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// Any one alternative will do; the first that can be had is taken.
pub(super) type Request<'a> = Vec<Alternative<'a>>;

/// `namespace/name`
pub(crate) fn key(claim: &ResourceClaim) -> String {
    let metadata = &claim.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&metadata.namespace), text(&metadata.name))
}

pub(crate) fn requests(claim: &ResourceClaim) -> &[DeviceRequest] {
    let devices = claim.spec.devices.as_ref();
    let requests = devices.and_then(|devices| devices.requests.as_deref());
    requests.unwrap_or_default()
}

/// The request as its alternatives.
///
/// # Errors
/// It asks for something that is not known.
pub(super) fn parse<'a>(
    claim: &'a ResourceClaim,
    request: &'a DeviceRequest,
    class: impl Fn(&str) -> Option<&'a DeviceClass>,
) -> Result<Request<'a>, String> {
    let lookup = |name: &str, of: &str| {
        let key = key(claim);
        if name.is_empty() {
            return Err(format!(
                "claim {key}, request {of}: missing device class name (unsupported request type?)"
            ));
        }
        class(name).ok_or_else(|| {
            format!(
                "claim {key}, request {of}: could not retrieve device class {name}: \
                 deviceclass.resource.k8s.io {name:?} not found"
            )
        })
    };
    let mut alternatives = Vec::new();
    if let Some(exact) = &request.exactly {
        alternatives.push(Alternative {
            name: &request.name,
            parent: None,
            class: lookup(&exact.device_class_name, &request.name)?,
            selectors: exact.selectors.as_deref().unwrap_or_default(),
            tolerations: exact.tolerations.as_deref().unwrap_or_default(),
            capacity: exact.capacity.as_ref(),
            admin: exact.admin_access == Some(true),
            count: count(exact.count),
            all: is_all(claim, &request.name, exact.allocation_mode.as_deref())?,
        });
    }
    for sub in request.first_available.iter().flatten() {
        alternatives.push(Alternative {
            name: &sub.name,
            parent: Some(&request.name),
            class: lookup(&sub.device_class_name, &sub.name)?,
            selectors: sub.selectors.as_deref().unwrap_or_default(),
            tolerations: sub.tolerations.as_deref().unwrap_or_default(),
            capacity: sub.capacity.as_ref(),
            admin: false,
            count: count(sub.count),
            all: is_all(claim, &sub.name, sub.allocation_mode.as_deref())?,
        });
    }
    let key = key(claim);
    if alternatives.is_empty() {
        let name = &request.name;
        return Err(format!(
            "claim {key}, request {name}: missing device class name (unsupported request type?)"
        ));
    }
    for alternative in &alternatives {
        let mut selectors = alternative.selectors.iter();
        if let Some(index) = selectors.position(|selector| selector.cel.is_none()) {
            let name = alternative.name;
            return Err(format!(
                "claim {key}, request {name}, selector #{index}: CEL expression empty \
                 (unsupported selector type?)"
            ));
        }
    }
    Ok(alternatives)
}

fn count(count: Option<i64>) -> usize {
    usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX)
}

fn is_all(
    claim: &ResourceClaim,
    name: &str,
    mode: Option<&str>,
) -> Result<Option<Vec<usize>>, String> {
    match mode {
        None | Some("" | "ExactCount") => Ok(None),
        Some("All") => Ok(Some(Vec::new())),
        Some(mode) => Err(format!(
            "claim {}, request {name}: unsupported count mode {mode}",
            key(claim)
        )),
    }
}

/// A condition on all devices of some requests, with what has been taken so far.
pub(super) struct Constraint<'a> {
    requests: &'a [String],
    attribute: &'a str,
    distinct: bool,
    taken: Vec<&'a DeviceAttribute>,
}

impl<'a> Constraint<'a> {
    /// `None`: a kind of constraint that is not known.
    pub fn of(constraint: &'a DeviceConstraint) -> Option<Self> {
        let distinct = constraint.match_attribute.is_none();
        let attribute = constraint.match_attribute.as_ref();
        Some(Constraint {
            requests: constraint.requests.as_deref().unwrap_or_default(),
            attribute: attribute.or(constraint.distinct_attribute.as_ref())?,
            distinct,
            taken: Vec::new(),
        })
    }

    fn applies(&self, alternative: &Alternative<'_>) -> bool {
        let listed = |name: &str| self.requests.iter().any(|listed| listed == name);
        self.requests.is_empty()
            || listed(alternative.parent.unwrap_or(alternative.name))
            || alternative.parent.is_some() && listed(&alternative.full_name())
    }

    /// Takes the device too, if it may be.
    pub fn add(&mut self, alternative: &Alternative<'_>, driver: &str, device: &'a Device) -> bool {
        if !self.applies(alternative) {
            return true;
        }
        let Some(value) = attribute(device, driver, self.attribute) else {
            return false;
        };
        let allowed = match self.distinct {
            true => !self.taken.iter().any(|taken| is_same(taken, value)),
            false => self.taken.first().is_none_or(|taken| is_same(taken, value)),
        };
        if allowed {
            self.taken.push(value);
        }
        allowed
    }

    /// Takes the device back that was added last.
    pub fn remove(&mut self, alternative: &Alternative<'_>) {
        if self.applies(alternative) {
            self.taken.pop();
        }
    }
}

fn is_same(one: &DeviceAttribute, other: &DeviceAttribute) -> bool {
    fn same<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
        one.is_some() && one == other
    }
    same(&one.string, &other.string)
        || same(&one.int, &other.int)
        || same(&one.bool, &other.bool)
        || same(&one.version, &other.version)
}

/// The attribute by its full name; in the device the domain may be left out when it is the
/// driver's.
fn attribute<'a>(device: &'a Device, driver: &str, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    let short = || name.strip_prefix(driver)?.strip_prefix('/');
    let found = attributes.get(name).or_else(|| attributes.get(short()?));
    found.filter(|value| {
        value.string.is_some()
            || value.int.is_some()
            || value.bool.is_some()
            || value.version.is_some()
    })
}
