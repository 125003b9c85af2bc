//! The node: kubelet, service proxy and cluster DNS, wired to the control plane.

use super::{Settings, control_plane::ControlPlane};
use crate::{cli::Disable, supervise::Components};

/// Starts the node's components.
pub fn spawn(
    settings: &Settings,
    control_plane: &ControlPlane,
    components: &Components,
) -> anyhow::Result<()> {
    if settings.enabled(Disable::Dns) {
        let config = coracle_dns::Config {
            node_name: settings.node_name.clone(),
            cluster_domain: settings.args.cluster_domain.clone(),
            cluster_dns: settings.args.cluster_dns,
            resolv_conf: "/etc/resolv.conf".into(),
            port: 53,
        };
        let client = control_plane.client(
            "system:serviceaccount:kube-system:coredns",
            &["system:serviceaccounts"],
        );
        let informers = control_plane.informers.clone();
        components.spawn("dns", move |run| {
            coracle_dns::Dns::new(config.clone(), client.clone(), informers.clone()).run(run)
        });
    }
    Ok(())
}
