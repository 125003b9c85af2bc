//! The address families of a Service, filled in from what the cluster has.
//!
//! Upstream: `initIPFamilyFields` in `pkg/registry/core/service/storage/alloc.go`.

use std::net::IpAddr;

use coracle_api::{
    core::service::cluster_ips,
    field::{ErrorList, Path},
};
use k8s_openapi::api::core::v1::ServiceSpec;

use super::NONE;

const SINGLE: &str = "SingleStack";
const PREFER_DUAL: &str = "PreferDualStack";
const REQUIRE_DUAL: &str = "RequireDualStack";

/// An IP family, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

/// Fills in `ipFamilyPolicy` and `ipFamilies`. `configured`: the families of the cluster's
/// ranges, its own first.
pub fn initialize(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    configured: &[Family],
) -> Result<(), ErrorList> {
    if spec.type_.as_deref() == Some("ExternalName") || stays_preferred(spec, old) {
        return Ok(());
    }
    let headless = spec.cluster_ip.as_deref() == Some(NONE);
    let selectorless = spec.selector.as_ref().is_none_or(|s| s.is_empty());
    if spec.ip_family_policy.is_none() {
        spec.ip_family_policy = match old.and_then(|old| old.ip_family_policy.clone()) {
            Some(policy) => Some(policy),
            None if headless && selectorless => Some(REQUIRE_DUAL.to_owned()),
            None => Some(SINGLE.to_owned()),
        };
    }
    // What is wrong here would be in the way of all the rest.
    let mut errors = cluster_ips(spec);
    if errors.is_empty() {
        if let Some(old) = old {
            shrink(spec, old, &mut errors);
        }
        check_policy(spec, &mut errors);
        infer_families(spec, configured, &mut errors);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if headless && selectorless {
        let families = spec.ip_families.get_or_insert_default();
        if families.is_empty() {
            families.extend(configured.first().map(|family| family.name().to_owned()));
        }
        if spec.ip_family_policy.as_deref() != Some(SINGLE) {
            add_other(families);
        }
        return Ok(());
    }
    check_configured(spec, configured, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.extend(configured.first().map(|family| family.name().to_owned()));
    }
    if spec.ip_family_policy.as_deref() != Some(SINGLE) && configured.len() == 2 {
        add_other(families);
    }
    Ok(())
}

/// Whether a Service that prefers two stacks stays as it is: it does not change because the
/// cluster has.
fn stays_preferred(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> bool {
    let Some(old) = old else {
        return false;
    };
    let prefers = |policy: &Option<String>| policy.as_deref() == Some(PREFER_DUAL);
    prefers(&spec.ip_family_policy)
        && (old.ip_family_policy.is_none() || prefers(&old.ip_family_policy))
        && old.type_ == spec.type_
        && old.cluster_ips == spec.cluster_ips
        && old.ip_families == spec.ip_families
}

/// A change to one stack lets the second address go; otherwise it must stay.
fn shrink(spec: &mut ServiceSpec, old: &ServiceSpec, errors: &mut ErrorList) {
    let path = Path::new("spec").child("ipFamilyPolicy");
    let policy = spec.ip_family_policy.clone().unwrap_or_default();
    if policy == SINGLE {
        if old.cluster_ips == spec.cluster_ips {
            spec.cluster_ips.iter_mut().for_each(|ips| ips.truncate(1));
        }
        if old.ip_families == spec.ip_families {
            spec.ip_families.iter_mut().for_each(|f| f.truncate(1));
        }
        return;
    }
    let reduced = |new: &Option<Vec<String>>, old: &Option<Vec<String>>| {
        let length = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        length(new) > 0 && length(new) < length(old)
    };
    if reduced(&spec.cluster_ips, &old.cluster_ips) {
        let why = "must be 'SingleStack' to release the secondary cluster IP";
        errors.push(path.invalid(policy.as_str(), why));
    }
    if reduced(&spec.ip_families, &old.ip_families) {
        let why = "must be 'SingleStack' to release the secondary IP family";
        errors.push(path.invalid(policy.as_str(), why));
    }
}

fn check_policy(spec: &ServiceSpec, errors: &mut ErrorList) {
    if spec.ip_family_policy.as_deref() != Some(SINGLE) {
        return;
    }
    let path = Path::new("spec").child("ipFamilyPolicy");
    let two = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| list.len() == 2);
    for (what, is_two) in [
        ("cluster IPs", two(&spec.cluster_ips)),
        ("IP families", two(&spec.ip_families)),
    ] {
        if is_two {
            let why = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            );
            errors.push(path.invalid(SINGLE, why));
        }
    }
}

/// The family of an address that is asked for goes without saying.
fn infer_families(spec: &mut ServiceSpec, configured: &[Family], errors: &mut ErrorList) {
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    for (index, ip) in ips.iter().enumerate() {
        let Ok(address) = ip.parse::<IpAddr>() else {
            break;
        };
        let families = spec.ip_families.get_or_insert_default();
        if index < families.len() {
            continue;
        }
        let family = Family::of(address);
        if configured.contains(&family) {
            families.push(family.name().to_owned());
        } else {
            let path = Path::new("spec").child("clusterIPs").index(index);
            let why = format!("{} is not configured on this cluster", family.name());
            errors.push(path.invalid(ips.clone(), why));
        }
    }
}

fn check_configured(spec: &ServiceSpec, configured: &[Family], errors: &mut ErrorList) {
    let path = Path::new("spec");
    if spec.ip_family_policy.as_deref() == Some(REQUIRE_DUAL) && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(path.child("ipFamilyPolicy").invalid(REQUIRE_DUAL, why));
    }
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        let known = Family::named(family).is_some_and(|family| configured.contains(&family));
        if !known {
            let path = path.child("ipFamilies").index(index);
            errors.push(path.invalid(family.as_str(), "not configured on this cluster"));
        }
    }
}

fn add_other(families: &mut Vec<String>) {
    if let [only] = families.as_slice()
        && let Some(family) = Family::named(only)
    {
        families.push(family.other().name().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn initialized(spec: Value, configured: &[Family]) -> Result<(String, Vec<String>), String> {
        let mut spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        initialize(&mut spec, None, configured)
            .map(|()| {
                let families = spec.ip_families.unwrap_or_default();
                (spec.ip_family_policy.unwrap_or_default(), families)
            })
            .map_err(|errors| errors[0].to_string())
    }

    #[test]
    fn of_new_services() {
        let single = [Family::V4];
        let dual = [Family::V4, Family::V6];
        let ok = |policy: &str, families: &[&str]| {
            let families = families.iter().map(|&family| family.to_owned());
            Ok((policy.to_owned(), families.collect()))
        };
        for (spec, configured, expected) in [
            (json!({}), &single[..], ok(SINGLE, &["IPv4"])),
            (json!({"ipFamilyPolicy": PREFER_DUAL}), &single, ok(PREFER_DUAL, &["IPv4"])),
            (json!({"ipFamilyPolicy": PREFER_DUAL}), &dual, ok(PREFER_DUAL, &["IPv4", "IPv6"])),
            (json!({"type": "ExternalName"}), &single, ok("", &[])),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), &single, ok(REQUIRE_DUAL, &["IPv4", "IPv6"])),
            (json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}), &single, ok(SINGLE, &["IPv4"])),
            (
                json!({"ipFamilyPolicy": REQUIRE_DUAL}),
                &single,
                Err("spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services".to_owned()),
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                &single,
                Err("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster".to_owned()),
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv4"]}),
                &single,
                Err("spec.ipFamilies[1]: Duplicate value: \"IPv4\"".to_owned()),
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.1"]}),
                &single,
                Err("spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.1\"]: may specify no more than one IP for each IP family".to_owned()),
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
                &single,
                Err("spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`".to_owned()),
            ),
        ] {
            assert_eq!(initialized(spec.clone(), configured), expected, "{spec}");
        }
    }
}
