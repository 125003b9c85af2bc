//! Endpoints.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::Value;

use crate::strategy::Behaviour;
use crate::{
    strategy::Column,
    table::{AGE, NAME, age, column, name},
    zero::list,
};

impl Behaviour for Endpoints {
    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Endpoints",
                "string",
                "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            name(&self.metadata),
            Value::from(addresses(self)),
            age(&self.metadata, now),
        ]
    }
}

/// The first addresses, each with its port.
fn addresses(endpoints: &Endpoints) -> String {
    const MAX: usize = 3;
    let subsets = list(&endpoints.subsets);
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let (mut shown, mut count, mut more) = (Vec::new(), 0, false);
    for subset in subsets {
        let addresses = list(&subset.addresses);
        let ports: Vec<Option<i32>> = match list(&subset.ports) {
            // A headless Service may have no ports.
            [] => vec![None],
            ports => ports.iter().map(|port| Some(port.port)).collect(),
        };
        for port in ports {
            count += addresses.len();
            more |= shown.len() + addresses.len() > MAX;
            let room = MAX - shown.len();
            shown.extend(addresses.iter().take(room).map(|address| match port {
                None => address.ip.clone(),
                Some(port) if address.ip.contains(':') => format!("[{}]:{port}", address.ip),
                Some(port) => format!("{}:{port}", address.ip),
            }));
        }
    }
    let shown = shown.join(",");
    if more {
        format!("{shown} + {} more...", count - MAX)
    } else {
        shown
    }
}
