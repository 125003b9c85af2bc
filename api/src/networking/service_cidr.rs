//! ServiceCIDR.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape, StatusMeta},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for ServiceCIDR {
    const SHAPE: Shape<Self> = shape!(status, StatusMeta::Keep);

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
