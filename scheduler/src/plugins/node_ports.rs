//! A port of the host is given out once.

use std::sync::Arc;

use crate::{
    cluster::Cluster,
    event::Event,
    framework::{Filter, Plugin, Prepared, Rejection},
    node::NodeInfo,
    pod::PodInfo,
};

const NAME: &str = "NodePorts";

pub(crate) struct NodePorts;

#[derive(Clone)]
struct Wanted(Arc<PodInfo>);

impl Filter for Wanted {
    fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self
            .0
            .host_ports
            .iter()
            .any(|port| node.port_is_taken(port))
        {
            return Err(Rejection::resolvable(
                NAME,
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }

    fn duplicate(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, pod: &Arc<PodInfo>, _cluster: &Cluster<'_>) -> Prepared {
        if pod.host_ports.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Wanted(pod.clone())))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>, _cluster: &Cluster<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::PodDeleted(gone) => gone.host_ports.iter().any(|port| {
                pod.host_ports
                    .iter()
                    .any(|wanted| wanted.conflicts_with(port))
            }),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::pod;
    use serde_json::{Value, json};

    #[test]
    fn ports_conflict_on_a_common_address() {
        let tcp = |ip: &str| json!({"hostPort": 80, "containerPort": 80, "hostIP": ip});
        let udp = json!({"hostPort": 80, "containerPort": 80, "protocol": "UDP"});
        let none = json!({"containerPort": 80});
        let cases: [(Value, Value, bool); 7] = [
            (tcp(""), tcp(""), true),
            (tcp("127.0.0.1"), tcp("0.0.0.0"), true),
            (tcp(""), tcp("127.0.0.1"), true),
            (tcp("127.0.0.1"), tcp("127.0.0.1"), true),
            (tcp("127.0.0.1"), tcp("127.0.0.2"), false),
            (tcp(""), udp, false),
            (tcp(""), none, false),
        ];
        for (one, other, expected) in cases {
            let of = |port: &Value| {
                pod(json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}}))
                    .host_ports
                    .clone()
            };
            let conflict = of(&one)
                .iter()
                .any(|one| of(&other).iter().any(|other| one.conflicts_with(other)));
            assert_eq!(conflict, expected, "{one} {other}");
        }
    }
}
