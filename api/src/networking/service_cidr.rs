//! ServiceCIDR.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::Value;

use crate::{
    check::{self, IMMUTABLE},
    field::{ErrorList, Path, value_of},
    formats, shape,
    strategy::{Behaviour, Column, Shape, StatusMeta},
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for ServiceCIDR {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let (ranges, path) = (ranges(self), Path::new("spec.cidrs"));
        match ranges.len() {
            0 => errors.push(path.required("at least one CIDR required")),
            1 | 2 => {
                for (index, range) in ranges.iter().enumerate() {
                    let messages = formats::canonical_cidr(range);
                    check::each(&path.index(index), range.as_str(), messages, &mut errors);
                }
                if is_one_family(ranges) {
                    errors.push(path.invalid(
                        value_of(&ranges),
                        "may specify no more than one IP for each IP family, i.e \
                         192.168.0.0/24 and 2001:db8::/64",
                    ));
                }
            }
            _ => errors.push(path.invalid(value_of(&self.spec), "may only hold up to 2 values")),
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec.cidrs");
        let (new, old) = (ranges(self), ranges(old));
        let is_extended = old.len() == 1 && new.len() == 2;
        if old.len() != new.len() && !is_extended {
            let ranges = Some(new).filter(|ranges| !ranges.is_empty());
            errors.push(path.invalid(value_of(&ranges), IMMUTABLE));
            return errors;
        }
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            if new != old {
                errors.push(path.index(index).invalid(new.as_str(), IMMUTABLE));
            }
        }
        if is_extended {
            errors.extend(self.validate());
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "CIDRs",
                "string",
                "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let ranges = self
            .spec
            .as_ref()
            .map_or_else(String::new, |spec| list(&spec.cidrs).join(","));
        vec![
            name(&self.metadata),
            Value::from(ranges),
            age(&self.metadata, now),
        ]
    }
}

fn ranges(of: &ServiceCIDR) -> &[String] {
    of.spec.as_ref().map_or(&[], |spec| list(&spec.cidrs))
}

fn is_one_family(ranges: &[String]) -> bool {
    let is_ipv4 = |range: &String| Some(formats::split_cidr(range)?.0.is_ipv4());
    match ranges {
        [one, two] => is_ipv4(one).is_some() && is_ipv4(one) == is_ipv4(two),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<ServiceCIDR>(include_str!("../../testdata/service_cidr.yaml"));
    }
}
