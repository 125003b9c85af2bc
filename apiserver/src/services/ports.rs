//! Node ports.

use std::{collections::HashSet, ops::RangeInclusive};

use coracle_api::{
    core::service::allocation::{needs_node_port, node_ports},
    field::Path,
};
use k8s_openapi::api::core::v1::ServiceSpec;

use super::{addresses::random, invalid};
use crate::error::ApiError;

/// The node ports that are taken, and those that a Service is being given.
pub struct Ports {
    range: RangeInclusive<u16>,
    used: HashSet<u16>,
    given: Vec<u16>,
}

/// A port that cannot be given.
pub enum PortError {
    /// One that was asked for.
    Refused(Path, i32, String),
    /// One that two ports of the protocol ask for.
    Twice(String, i32),
    Internal(String),
}

impl PortError {
    pub fn at(self, service: &str) -> ApiError {
        match self {
            PortError::Refused(path, port, why) => invalid(service, &vec![path.invalid(port, why)]),
            PortError::Twice(protocol, port) => {
                ApiError::unclassified(format!("duplicate nodePort: {{{protocol} {port}}}"))
            }
            PortError::Internal(why) => ApiError::internal(why),
        }
    }
}

impl Ports {
    pub fn new(range: RangeInclusive<u16>, used: HashSet<u16>) -> Self {
        Ports {
            range,
            used,
            given: Vec::new(),
        }
    }

    /// What was given.
    pub fn given(self) -> Vec<u16> {
        self.given
    }

    /// Gives the ports of a new Service. Ports with the same number share a node port.
    pub fn give_new(&mut self, spec: &mut ServiceSpec) -> Result<(), PortError> {
        if !may_have_any(spec) {
            return Ok(());
        }
        let needs = needs_node_port(spec);
        let ports = spec.ports.get_or_insert_default();
        let mut by_port: Vec<(i32, i32)> = Vec::new();
        for index in 0..ports.len() {
            let (port, wanted) = (ports[index].port, ports[index].node_port.unwrap_or(0));
            if wanted == 0 && !needs {
                continue;
            }
            let shared = by_port.iter().find(|(of, _)| *of == port).map(|(_, p)| *p);
            let given = match shared {
                None => {
                    let asked = ports
                        .iter()
                        .filter(|other| other.port == port)
                        .find_map(|other| other.node_port.filter(|p| *p != 0));
                    let given = self.give(index, asked)?;
                    by_port.push((port, given));
                    given
                }
                Some(shared) if wanted == 0 || wanted == shared => shared,
                Some(_) => self.give(index, Some(wanted))?,
            };
            ports[index].node_port = Some(given);
        }
        Ok(())
    }

    /// Gives the ports that a changed Service has not had before.
    pub fn give_changed(
        &mut self,
        spec: &mut ServiceSpec,
        old: &ServiceSpec,
    ) -> Result<(), PortError> {
        if !may_have_any(spec) {
            return Ok(());
        }
        let needs = needs_node_port(spec);
        let had = node_ports(old);
        let mut seen = HashSet::new();
        for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
            match port.node_port.unwrap_or(0) {
                0 if needs => port.node_port = Some(self.give(index, None)?),
                0 => {}
                wanted if had.contains(&wanted) => {}
                wanted => {
                    let known = u16::try_from(wanted).is_ok_and(|p| self.given.contains(&p));
                    if !known {
                        self.give(index, Some(wanted))?;
                    }
                }
            }
            let protocol = port.protocol.clone().unwrap_or_default();
            let number = port.node_port.unwrap_or(0);
            if number != 0 && !seen.insert((protocol.clone(), number)) {
                return Err(PortError::Twice(protocol, number));
            }
        }
        Ok(())
    }

    /// Gives the port at which nodes tell a load balancer of their endpoints.
    pub fn give_health_check(&mut self, spec: &mut ServiceSpec) -> Result<(), PortError> {
        let wanted = spec.health_check_node_port.filter(|port| *port != 0);
        let port = match wanted {
            Some(wanted) => self.reserve(wanted).map_err(|why| {
                PortError::Internal(format!(
                    "failed to allocate requested HealthCheck NodePort {wanted}: {why}"
                ))
            })?,
            None => self.any().ok_or_else(|| {
                PortError::Internal(
                    "failed to allocate a HealthCheck NodePort 0: range is full".to_owned(),
                )
            })?,
        };
        spec.health_check_node_port = Some(i32::from(port));
        Ok(())
    }

    fn give(&mut self, index: usize, wanted: Option<i32>) -> Result<i32, PortError> {
        let port = match wanted {
            Some(wanted) => self.reserve(wanted).map_err(|why| {
                let path = Path::new("spec").child("ports").index(index);
                PortError::Refused(path.child("nodePort"), wanted, why)
            })?,
            None => self.any().ok_or_else(|| {
                PortError::Internal("failed to allocate a nodePort: range is full".to_owned())
            })?,
        };
        Ok(i32::from(port))
    }

    fn reserve(&mut self, wanted: i32) -> Result<u16, String> {
        let port = u16::try_from(wanted).ok();
        let Some(port) = port.filter(|port| self.range.contains(port)) else {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.range.start(),
                self.range.end()
            ));
        };
        if !self.used.insert(port) {
            return Err("provided port is already allocated".to_owned());
        }
        self.given.push(port);
        Ok(port)
    }

    /// Any free port. The beginning of the range is spared for ports that are asked for.
    fn any(&mut self) -> Option<u16> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let size = u32::from(last) - u32::from(first) + 1;
        let spared = if size <= 16 {
            0
        } else {
            (size / 32).clamp(16, 128)
        };
        let port = self
            .free(u32::from(first) + spared, u32::from(last))
            .or_else(|| self.free(u32::from(first), u32::from(first) + spared.max(1) - 1))?;
        self.used.insert(port);
        self.given.push(port);
        Some(port)
    }

    fn free(&self, first: u32, last: u32) -> Option<u16> {
        let size = (last + 1).checked_sub(first).filter(|size| *size > 0)?;
        let start = u32::try_from(random() % u64::from(size)).unwrap_or(0);
        (0..size)
            .filter_map(|step| u16::try_from(first + (start + step) % size).ok())
            .find(|port| !self.used.contains(port))
    }
}

/// Whether a Service of its type can have node ports.
pub fn may_have_any(spec: &ServiceSpec) -> bool {
    matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn given(spec: Value, used: &[u16]) -> Result<Vec<Option<i32>>, ()> {
        let mut spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let mut ports = Ports::new(30000..=30099, used.iter().copied().collect());
        ports.give_new(&mut spec).map_err(|_| ())?;
        Ok(spec
            .ports
            .unwrap()
            .iter()
            .map(|port| port.node_port)
            .collect())
    }

    #[test]
    fn of_new_services() {
        let tcp_and_udp = json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80},
        ]});
        let ports = given(tcp_and_udp, &[]).unwrap();
        assert_eq!(ports[0], ports[1]);
        assert_ne!(ports[0], ports[2]);
        assert!(ports[0] >= Some(30016));
        let asked =
            |port: i32| json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]});
        assert_eq!(given(asked(30005), &[]), Ok(vec![Some(30005)]));
        assert!(given(asked(30005), &[30005]).is_err());
        assert!(given(asked(29999), &[]).is_err());
        let balanced = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}]});
        assert_eq!(given(balanced, &[]), Ok(vec![None]));
    }

    #[test]
    fn a_changed_service_shares_a_port_between_protocols_only() {
        let changed = |protocol: &str| {
            let port = |protocol| json!({"port": 1, "nodePort": 30005, "protocol": protocol});
            let mut spec: ServiceSpec = serde_json::from_value(
                json!({"type": "NodePort", "ports": [port("TCP"), port(protocol)]}),
            )
            .unwrap();
            let mut ports = Ports::new(30000..=30099, HashSet::new());
            ports
                .give_changed(&mut spec, &ServiceSpec::default())
                .map_err(|error| error.at("s").to_string())
        };
        assert_eq!(changed("UDP"), Ok(()));
        assert_eq!(
            changed("TCP"),
            Err("duplicate nodePort: {TCP 30005}".to_owned())
        );
    }

    #[test]
    fn a_full_range_gives_nothing() {
        let used: Vec<u16> = (30000..=30099).collect();
        assert!(given(json!({"type": "NodePort", "ports": [{"port": 1}]}), &used).is_err());
        let ports = given(
            json!({"type": "NodePort", "ports": [{"port": 1}]}),
            &used[1..],
        );
        assert_eq!(ports, Ok(vec![Some(30000)]));
    }
}
