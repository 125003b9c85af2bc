//! ResourceQuota.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;

use crate::{
    shape,
    strategy::{Behaviour, Shape},
};
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
};

impl Behaviour for ResourceQuota {
    const SHAPE: Shape<Self> = shape!(status);

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Request",
                "string",
                "Request represents a minimum amount of cpu/memory that a container may consume.",
            ),
            column(
                "Limit",
                "string",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let status = self.status.as_ref();
        let used = status.and_then(|status| status.used.as_ref());
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in status
            .and_then(|status| status.hard.as_ref())
            .into_iter()
            .flatten()
        {
            let used = used
                .and_then(|used| used.get(resource))
                .map_or("0", |used| &used.0);
            let column = if resource.starts_with("limits.") {
                &mut limits
            } else {
                &mut requests
            };
            column.push(format!("{resource}: {used}/{}", hard.0));
        }
        vec![
            name(&self.metadata),
            Value::from(requests.join(", ")),
            Value::from(limits.join(", ")),
            age(&self.metadata, now),
        ]
    }
}
