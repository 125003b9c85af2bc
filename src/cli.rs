//! The command line. Flags follow k3s' names, so that its users' habits work.

mod security;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::secrets_encrypt::Verb;
pub use security::{AuditArgs, AuditFormat, AuthenticationArgs, StoreArgs};

pub const DEFAULT_DATA_DIR: &str = "/var/lib/coracle";

/// A Kubernetes distribution in one small static binary.
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane and, unless --disable-agent, a node.
    Server(Box<ServerArgs>),
    /// Stop the cluster of a data directory with all its pods, and undo every change to the host.
    Stop(StopArgs),
    /// Say how a cluster fares, or wait until its node is Ready.
    Status(StatusArgs),
    /// Say what this machine lacks to run a node, and how to mend it.
    CheckConfig(CheckConfigArgs),
    /// Work with the container images of the node.
    Images(ImagesArgs),
    /// Look after the encryption of Secrets at rest, on a running server.
    SecretsEncrypt(SecretsEncryptArgs),
    /// Print the completion script of a shell.
    Completion { shell: clap_complete::Shell },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How log lines are written to standard error.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Log more: -v debugging, -vv everything. RUST_LOG, when set, decides instead.
    #[arg(short, action = ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Debug, Args)]
pub struct DataDirArg {
    /// Where the cluster keeps its state.
    #[arg(short, long, default_value = DEFAULT_DATA_DIR, env = "CORACLE_DATA_DIR")]
    pub data_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// YAML file whose keys are the long names of these flags. Flags given here win over it.
    #[arg(short, long, default_value = crate::config_file::DEFAULT_PATH, env = "CORACLE_CONFIG_FILE")]
    pub config: PathBuf,

    #[command(flatten)]
    pub data: DataDirArg,

    /// Write the administrator's kubeconfig to this file, readable by its owner only
    /// [default: /etc/coracle/kubeconfig.yaml, or kubeconfig.yaml in a --data-dir of your own].
    #[arg(short = 'o', long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,

    /// Address to serve the API on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Port to serve the API on; 0 takes a free one (see the kubeconfig).
    #[arg(long, default_value_t = 6443)]
    pub https_listen_port: u16,

    /// Address that the cluster's members use to reach this server [default: the node's address].
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,

    /// Further host name or address to put into the API server's certificate. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,

    /// Name of the node [default: the host name].
    #[arg(long)]
    pub node_name: Option<String>,

    /// Address of the node [default: that of the default route, else of the first interface, else
    /// the host's own in the pods' network].
    #[arg(short = 'i', long)]
    pub node_ip: Option<IpAddr>,

    /// Label to register the node with, as KEY=VALUE. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub node_label: Vec<String>,

    /// Taint to register the node with, as KEY=VALUE:EFFECT. May be repeated.
    #[arg(long, value_name = "TAINT")]
    pub node_taint: Vec<String>,

    /// Addresses of pods.
    #[arg(long, default_value = "10.42.0.0/16")]
    pub cluster_cidr: IpNet,

    /// Addresses of Services.
    #[arg(long, default_value = "10.43.0.0/16")]
    pub service_cidr: IpNet,

    /// Ports of NodePort Services, as FIRST-LAST.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: PortRange,

    /// Address of the cluster's DNS, within --service-cidr.
    #[arg(long, default_value = "10.43.0.10")]
    pub cluster_dns: IpAddr,

    /// Domain of the cluster's names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Do without a component: dns, proxy, scheduler, controllers, metrics-server or
    /// local-storage. May be repeated.
    #[arg(long, value_name = "COMPONENT", value_enum, value_delimiter = ',')]
    pub disable: Vec<Disable>,

    /// Run the control plane only: no node, no container runtime; needs no root.
    #[arg(long)]
    pub disable_agent: bool,

    #[command(flatten)]
    pub store: StoreArgs,

    #[command(flatten)]
    pub authentication: AuthenticationArgs,

    #[command(flatten)]
    pub audit: AuditArgs,

    /// Use this CRI runtime (unix:///path/to.sock) instead of starting a containerd.
    #[arg(long, value_name = "URL")]
    pub container_runtime_endpoint: Option<String>,

    /// Port of the node's own HTTPS endpoints.
    #[arg(long, default_value_t = 10250)]
    pub kubelet_port: u16,

    #[command(flatten)]
    pub autoscaling: AutoscalingArgs,

    #[command(flatten)]
    pub log: LogArgs,
}

/// Less would only keep the server busy.
const SHORTEST_SYNC_PERIOD: Duration = Duration::from_millis(100);

/// How horizontal pod autoscalers decide. The names are those of upstream's controller manager.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Autoscaling")]
pub struct AutoscalingArgs {
    /// Time between two looks at an autoscaler's metrics.
    #[arg(long, default_value = "15s", value_name = "DURATION", value_parser = duration)]
    pub horizontal_pod_autoscaler_sync_period: Duration,

    /// How long a higher recommendation holds against a lower one.
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = duration)]
    pub horizontal_pod_autoscaler_downscale_stabilization: Duration,

    /// How far from its target a metric may be without a change, as a part of the target.
    #[arg(long, default_value_t = 0.1, value_name = "RATIO")]
    pub horizontal_pod_autoscaler_tolerance: f64,

    /// For so long after a pod's start, CPU that it uses before it is ready does not count.
    #[arg(long, default_value = "5m", value_name = "DURATION", value_parser = duration)]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Duration,

    /// A pod that turned unready within this time after its start was never ready.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Duration,

    /// Autoscalers that are looked at at the same time.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    pub concurrent_horizontal_pod_autoscaler_syncs: usize,
}

impl AutoscalingArgs {
    pub fn settings(&self) -> coracle_controllers::Autoscaling {
        coracle_controllers::Autoscaling {
            sync_period: self
                .horizontal_pod_autoscaler_sync_period
                .max(SHORTEST_SYNC_PERIOD),
            downscale_stabilization: self.horizontal_pod_autoscaler_downscale_stabilization,
            tolerance: self.horizontal_pod_autoscaler_tolerance,
            cpu_initialization_period: self.horizontal_pod_autoscaler_cpu_initialization_period,
            initial_readiness_delay: self.horizontal_pod_autoscaler_initial_readiness_delay,
            concurrent_syncs: self.concurrent_horizontal_pod_autoscaler_syncs.max(1),
        }
    }
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

fn port_range(text: &str) -> Result<PortRange, String> {
    let parsed = text.split_once('-').and_then(|(first, last)| {
        Some(PortRange {
            first: first.trim().parse().ok()?,
            last: last.trim().parse().ok()?,
        })
    });
    match parsed {
        Some(range) if range.first > 0 && range.first <= range.last => Ok(range),
        _ => Err("expected FIRST-LAST, for example 30000-32767".to_owned()),
    }
}

/// Seconds, or what Go reads as a duration: `90s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "expected a duration such as 90s or 1m30s".to_owned();
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
    Duration::try_from(duration).map_err(|_| bad())
}

/// What can be left out of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disable {
    Dns,
    Proxy,
    Scheduler,
    Controllers,
    MetricsServer,
    LocalStorage,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub data: DataDirArg,
    /// Remove the data directory too: every object, image and volume of the cluster is lost.
    #[arg(long)]
    pub remove_data: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub data: DataDirArg,
    /// Wait until the node is Ready, for this long at most: 90s, 2m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Print the path of the administrator's kubeconfig and nothing else.
    #[arg(long)]
    pub kubeconfig: bool,
}

#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    #[command(flatten)]
    pub data: DataDirArg,
    /// Port that the API is to be served on.
    #[arg(long, default_value_t = 6443)]
    pub https_listen_port: u16,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    #[command(subcommand)]
    pub command: ImagesCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Load images from OCI archives or from what `docker save` writes; `-` is standard input.
    Import {
        #[command(flatten)]
        data: DataDirArg,
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the node's images.
    List {
        #[command(flatten)]
        data: DataDirArg,
    },
}

#[derive(Debug, Args)]
pub struct SecretsEncryptArgs {
    #[command(subcommand)]
    pub command: SecretsEncryptCommand,
}

#[derive(Debug, Subcommand)]
pub enum SecretsEncryptCommand {
    /// Say whether Secrets are encrypted, and with which keys.
    Status {
        #[command(flatten)]
        data: DataDirArg,
    },
    /// Make a new key, encrypt every Secret with it, and forget the old one.
    RotateKeys {
        #[command(flatten)]
        data: DataDirArg,
    },
    /// Encrypt again what is not stored as it would be now; finishes an interrupted rotation.
    Reencrypt {
        #[command(flatten)]
        data: DataDirArg,
    },
}

impl SecretsEncryptCommand {
    pub fn parts(&self) -> (&DataDirArg, Verb) {
        match self {
            SecretsEncryptCommand::Status { data } => (data, Verb::Status),
            SecretsEncryptCommand::RotateKeys { data } => (data, Verb::RotateKeys),
            SecretsEncryptCommand::Reencrypt { data } => (data, Verb::Reencrypt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_as_by_go() {
        let seconds = |text| duration(text).ok().map(|it| it.as_secs_f64());
        assert_eq!(seconds("90"), Some(90.0));
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        assert_eq!(seconds("5m0s"), Some(300.0));
        assert_eq!(seconds("-1s"), None);
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!(
            port_range("30000-32767"),
            Ok(PortRange {
                first: 30000,
                last: 32767
            })
        );
        for bad in ["", "1", "5-4", "0-1", "a-b", "1-70000"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}
