//! `coracle server`: starts the control plane and the node in order, and stops them.

mod audit;
mod authentication;
mod certificates;
mod components;
mod control_plane;
mod datastore;
pub mod node;
mod token;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    check_config,
    cli::{Disable, ServerArgs},
    data_dir::{self, Layout},
    host,
    supervise::Components,
};
use control_plane::ControlPlane;

/// How long components may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything the parts of the server are told, worked out from the flags.
pub struct Settings {
    pub args: ServerArgs,
    pub layout: Layout,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// What the cluster's members reach the API at.
    pub advertise_address: IpAddr,
}

impl Settings {
    fn new(args: ServerArgs) -> anyhow::Result<Self> {
        let layout = Layout::new(&args.data.data_dir)?;
        if !args.service_cidr.contains(&args.cluster_dns) {
            bail!(
                "--cluster-dns {} is not within --service-cidr {}",
                args.cluster_dns,
                args.service_cidr
            );
        }
        let node_name = match &args.node_name {
            Some(name) => name.clone(),
            None => host::name()?,
        };
        let node_ip = match args.node_ip {
            Some(address) => address,
            None => match host::address() {
                Some(address) => address,
                // Without a node nobody needs the address but this machine.
                None if args.disable_agent => IpAddr::from([127, 0, 0, 1]),
                // A host without router and DHCP server is no worse for its own pods: they reach it
                // by the address that it has in their network.
                None => host::first_address(&args.cluster_cidr)?,
            },
        };
        Ok(Settings {
            advertise_address: args.advertise_address.unwrap_or(node_ip),
            node_ip,
            node_name,
            layout,
            args,
        })
    }

    /// Where users find the administrator's kubeconfig.
    pub fn public_kubeconfig(&self) -> PathBuf {
        let given = self.args.write_kubeconfig.clone();
        given.unwrap_or_else(|| self.layout.kubeconfig())
    }

    fn enabled(&self, component: Disable) -> bool {
        !self.args.disable.contains(&component)
    }
}

/// Runs the server until SIGTERM or SIGINT.
pub async fn run(args: ServerArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::new(args)?;
    check_machine(&settings)?;
    let hold = data_dir::hold(&settings.layout)?;
    let shutdown = CancellationToken::new();
    let mut signals = Signals::new()?;
    let started = std::time::Instant::now();

    let control_plane = ControlPlane::start(&settings).await?;
    info!(
        address = %control_plane.address,
        kubeconfig = %control_plane.kubeconfig.display(),
        seconds = started.elapsed().as_secs_f64(),
        "the API is ready"
    );
    let components = Components::new(shutdown.clone());
    control_plane.report_health_of(&components);
    control_plane.spawn_components(&settings, &components)?;
    if !settings.args.disable_agent {
        node::spawn(&settings, &control_plane, &components)?;
    }
    info!(
        seconds = started.elapsed().as_secs_f64(),
        "all components are started"
    );

    signals.first().await;
    info!("stopping; pods keep running (coracle stop ends them too)");
    shutdown.cancel();
    components.ended(PATIENCE).await;
    control_plane.stop().await;
    drop(hold);
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Refuses to start where a node could not run, with the remedy.
fn check_machine(settings: &Settings) -> anyhow::Result<()> {
    if settings.args.disable_agent {
        return Ok(());
    }
    let checks = check_config::checks(&check_config::Wanted {
        layout: &settings.layout,
        https_listen_port: settings.args.https_listen_port,
        own_runtime: settings.args.container_runtime_endpoint.is_none(),
    });
    let failures = check_config::failures(&checks);
    if !failures.is_empty() {
        bail!(
            "this machine cannot run a node:\n  {}",
            failures.join("\n  ")
        );
    }
    Ok(())
}

/// The signals that end the server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
