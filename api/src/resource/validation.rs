//! Defaults and checks of what claims ask of devices. What is wrong with their expressions other
//! than their length is for readers of [`claim_expressions`] and [`expressions`].
//!
//! Upstream: `pkg/apis/resource/validation`.

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, OpaqueDeviceConfiguration,
};

use crate::{
    check,
    core::pod::validation::remote_volumes::csi_driver_name,
    expression::{Expression, Result, Scope},
    field::{ErrorList, Path},
    formats,
    zero::{default_number, default_text, list, list_mut, text},
};

const MAX_ITEMS: usize = 32;
const MAX_SUB_REQUESTS: usize = 8;
const MAX_EXPRESSION: usize = 10 * 1024;
const ALL: &str = "All";
const EXACT_COUNT: &str = "ExactCount";
const NO_REQUEST: &str = "must be the name of a request in the claim or the name of a request and \
                          a subrequest separated by '/'";

/// Every request is for one device, unless it says otherwise.
pub fn default_claim(claim: Option<&mut DeviceClaim>) {
    let default = |mode: &mut Option<String>, count: &mut Option<i64>| {
        default_text(mode, EXACT_COUNT);
        if text(mode) == EXACT_COUNT {
            default_number(count, 1);
        }
    };
    for request in claim
        .into_iter()
        .flat_map(|claim| list_mut(&mut claim.requests))
    {
        if let Some(exactly) = &mut request.exactly {
            default(&mut exactly.allocation_mode, &mut exactly.count);
        }
        for sub_request in list_mut(&mut request.first_available) {
            default(&mut sub_request.allocation_mode, &mut sub_request.count);
        }
    }
}

/// Checks `devices` of a claim.
pub fn claim(claim: Option<&DeviceClaim>, path: &Path, errors: &mut ErrorList) {
    let Some(claim) = claim else {
        return;
    };
    let requests = list(&claim.requests);
    let requests_path = path.child("requests");
    if is_short(requests, MAX_ITEMS, &requests_path, errors) {
        for (index, item) in requests.iter().enumerate() {
            request(item, &requests_path.index(index), errors);
        }
        let names: Vec<&str> = requests.iter().map(|item| item.name.as_str()).collect();
        unique(&names, &requests_path, errors);
    }
    let (constraints, path_of) = (list(&claim.constraints), path.child("constraints"));
    if is_short(constraints, MAX_ITEMS, &path_of, errors) {
        for (index, item) in constraints.iter().enumerate() {
            constraint(item, requests, &path_of.index(index), errors);
        }
    }
    let (configs, path_of) = (list(&claim.config), path.child("config"));
    if is_short(configs, MAX_ITEMS, &path_of, errors) {
        for (index, item) in configs.iter().enumerate() {
            let path = path_of.index(index);
            let names = list(&item.requests);
            request_references(names, requests, &path.child("requests"), errors);
            configuration(item.opaque.as_ref(), &path, errors);
        }
    }
}

/// Whether a list has no more items than it may have.
pub fn is_short<T>(items: &[T], max: usize, path: &Path, errors: &mut ErrorList) -> bool {
    if items.len() > max {
        errors.push(path.too_many(items.len(), max));
    }
    items.len() <= max
}

pub fn unique(keys: &[&str], path: &Path, errors: &mut ErrorList) {
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].contains(key) {
            errors.push(path.index(index).duplicate(*key));
        }
    }
}

fn request(request: &DeviceRequest, path: &Path, errors: &mut ErrorList) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    check::dns_label(&request.name, &path.child("name"), errors);
    let sub_requests = list(&request.first_available);
    match (&request.exactly, sub_requests) {
        (None, []) => errors.push(path.required(ONE)),
        (Some(_), [_, ..]) => {
            errors.push(path.invalid(
                serde_json::Value::Null,
                format!("{ONE}, but multiple fields are set"),
            ));
        }
        (Some(exactly), []) => {
            let asked = Asked {
                class: &exactly.device_class_name,
                selectors: list(&exactly.selectors),
                mode: text(&exactly.allocation_mode),
                count: exactly.count.unwrap_or_default(),
            };
            asked.check(&path.child("exactly"), errors);
        }
        (None, _) => {
            let path = path.child("firstAvailable");
            if !is_short(sub_requests, MAX_SUB_REQUESTS, &path, errors) {
                return;
            }
            for (index, item) in sub_requests.iter().enumerate() {
                let path = path.index(index);
                check::dns_label(&item.name, &path.child("name"), errors);
                let asked = Asked {
                    class: &item.device_class_name,
                    selectors: list(&item.selectors),
                    mode: text(&item.allocation_mode),
                    count: item.count.unwrap_or_default(),
                };
                asked.check(&path, errors);
            }
            let names: Vec<&str> = sub_requests.iter().map(|item| item.name.as_str()).collect();
            unique(&names, &path, errors);
        }
    }
}

/// What a request and a subrequest have in common.
struct Asked<'r> {
    class: &'r str,
    selectors: &'r [DeviceSelector],
    mode: &'r str,
    count: i64,
}

impl Asked<'_> {
    fn check(&self, path: &Path, errors: &mut ErrorList) {
        let class_path = path.child("deviceClassName");
        if self.class.is_empty() {
            errors.push(class_path.required(""));
        } else {
            check::subdomain(self.class, &class_path, errors);
        }
        selectors(self.selectors, &path.child("selectors"), errors);
        let count_path = path.child("count");
        match self.mode {
            ALL if self.count != 0 => errors.push(count_path.invalid(
                self.count,
                format!("must not be specified when allocationMode is '{ALL}'"),
            )),
            ALL => {}
            EXACT_COUNT => check::positive(self.count, &count_path, errors),
            mode => {
                let path = path.child("allocationMode");
                errors.push(path.not_supported(mode, &[ALL, EXACT_COUNT]));
            }
        }
    }
}

/// Checks selectors of devices.
pub fn selectors(selectors: &[DeviceSelector], path: &Path, errors: &mut ErrorList) {
    if !is_short(selectors, MAX_ITEMS, path, errors) {
        return;
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index).child("cel");
        let Some(cel) = &selector.cel else {
            errors.push(path.required(""));
            continue;
        };
        let path = path.child("expression");
        if cel.expression.len() > MAX_EXPRESSION {
            errors.push(path.too_long(MAX_EXPRESSION));
        }
    }
}

/// The expressions of selectors, but for those that are too long.
pub fn expressions<'o>(selectors: &'o [DeviceSelector], path: &Path) -> Vec<Expression<'o>> {
    let read = selectors
        .iter()
        .enumerate()
        .filter_map(|(index, selector)| {
            let source = selector.cel.as_ref()?.expression.as_str();
            let path = path.index(index).child("cel.expression");
            let short = source.len() <= MAX_EXPRESSION;
            short.then(|| Expression::new(path, source, Scope::Device, Result::Selected))
        });
    read.collect()
}

/// Those of `devices` of a claim.
pub fn claim_expressions<'o>(claim: Option<&'o DeviceClaim>, path: &Path) -> Vec<Expression<'o>> {
    let requests = claim.map_or(&[][..], |claim| list(&claim.requests));
    let mut found = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let path = path.child("requests").index(index);
        if let Some(exactly) = &request.exactly {
            let path = path.child("exactly.selectors");
            found.extend(expressions(list(&exactly.selectors), &path));
        }
        for (index, item) in list(&request.first_available).iter().enumerate() {
            let path = path.child("firstAvailable").index(index).child("selectors");
            found.extend(expressions(list(&item.selectors), &path));
        }
    }
    found
}

fn constraint(
    constraint: &DeviceConstraint,
    requests: &[DeviceRequest],
    path: &Path,
    errors: &mut ErrorList,
) {
    let names = list(&constraint.requests);
    request_references(names, requests, &path.child("requests"), errors);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(attribute), _) => attribute_name(attribute, &path.child("matchAttribute"), errors),
        (None, Some(attribute)) => {
            attribute_name(attribute, &path.child("distinctAttribute"), errors);
        }
        (None, None) => errors.push(path.required(
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
             fields are set",
        )),
    }
}

/// The name of a request, or of one of its subrequests behind a slash.
pub fn request_reference(
    reference: &str,
    requests: &[DeviceRequest],
    path: &Path,
    errors: &mut ErrorList,
) {
    let parts: Vec<&str> = reference.split('/').collect();
    if parts.len() > 2 {
        errors.push(path.invalid(reference, NO_REQUEST));
        return;
    }
    for part in &parts {
        check::dns_label(part, path, errors);
    }
    let request = requests.iter().find(|request| request.name == parts[0]);
    let is_known = request.is_some_and(|request| match parts.get(1) {
        None => true,
        Some(part) => list(&request.first_available)
            .iter()
            .any(|sub_request| sub_request.name == **part),
    });
    if !is_known {
        errors.push(path.invalid(reference, NO_REQUEST));
    }
}

fn request_references(
    names: &[String],
    requests: &[DeviceRequest],
    path: &Path,
    errors: &mut ErrorList,
) {
    if !is_short(names, MAX_ITEMS, path, errors) {
        return;
    }
    for (index, reference) in names.iter().enumerate() {
        request_reference(reference, requests, &path.index(index), errors);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    unique(&names, path, errors);
}

/// `driver.example.com/name`
fn attribute_name(attribute: &str, path: &Path, errors: &mut ErrorList) {
    qualified_name(attribute, path, errors);
    if !attribute.contains('/') {
        errors.push(path.invalid(
            attribute,
            "a fully qualified name must be a domain and a name separated by a slash",
        ));
    }
}

/// The name of an attribute or a capacity, with or without a domain before a slash. More than
/// one slash is not looked at, as upstream.
pub fn qualified_name(name: &str, path: &Path, errors: &mut ErrorList) {
    const MAX_ID: usize = 32;
    let identifier = |id: &str, errors: &mut ErrorList| {
        if id.len() > MAX_ID {
            errors.push(path.too_long(MAX_ID));
        }
        check::each(path, id, formats::c_identifier(id), errors);
    };
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(id, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(path.invalid("", "the domain must not be empty"));
            } else {
                csi_driver_name(domain, path, errors);
            }
            if id.is_empty() {
                errors.push(path.invalid("", "the name must not be empty"));
            } else {
                identifier(id, errors);
            }
        }
        _ => {}
    }
}

/// Checks what is passed on to a driver.
pub fn configuration(
    opaque: Option<&OpaqueDeviceConfiguration>,
    path: &Path,
    errors: &mut ErrorList,
) {
    const MAX_BYTES: usize = 10 * 1024;
    let path = path.child("opaque");
    let Some(opaque) = opaque else {
        errors.push(path.required(""));
        return;
    };
    csi_driver_name(&opaque.driver, &path.child("driver"), errors);
    let path = path.child("parameters");
    match &opaque.parameters.0 {
        serde_json::Value::Null => errors.push(path.required("")),
        value if value.to_string().len() > MAX_BYTES => errors.push(path.too_long(MAX_BYTES)),
        serde_json::Value::Object(_) => {}
        _ => errors.push(path.invalid("<value omitted>", "must be a valid JSON object")),
    }
}
