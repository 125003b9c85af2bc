//! The node: kubelet, service proxy and cluster DNS, wired to the control plane; and what undoes
//! all that they do to the host.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use coracle_client::{EventRecorder, Informers};
use coracle_controllers::local_path::{self, LocalPath};
use coracle_kubelet::{
    Config, Kubelet,
    config::{Managed, RuntimeSource},
    cri::Cri,
    pause,
    server::{self, Auth, Server},
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Settings, certificates::Certificates, control_plane::ControlPlane};
use crate::{
    cli::Disable,
    data_dir::{self, Layout},
    supervise::Components,
};

/// Starts the node's components.
pub fn spawn(
    settings: &Settings,
    control_plane: &ControlPlane,
    components: &Components,
) -> anyhow::Result<()> {
    spawn_kubelet(settings, control_plane, components)?;
    if settings.enabled(Disable::Dns) {
        spawn_dns(settings, control_plane, components);
    }
    if settings.enabled(Disable::Proxy) {
        spawn_proxy(settings, control_plane, components);
    }
    if settings.enabled(Disable::LocalStorage) {
        spawn_provisioner(settings, control_plane, components);
    }
    Ok(())
}

fn spawn_kubelet(
    settings: &Settings,
    control_plane: &ControlPlane,
    components: &Components,
) -> anyhow::Result<()> {
    let user = format!("system:node:{}", settings.node_name);
    let node = NodeAgent {
        config: kubelet_config(settings)?,
        client: control_plane.client(&user, &["system:nodes"]),
        informers: control_plane.informers.clone(),
        certificates: control_plane.certificates.clone(),
    };
    components.spawn("kubelet", move |run| node.clone().run(run));
    Ok(())
}

/// The kubelet with its HTTPS endpoints.
#[derive(Clone)]
struct NodeAgent {
    config: Config,
    client: kube::Client,
    informers: Informers,
    certificates: Arc<Certificates>,
}

impl NodeAgent {
    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let address = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), self.config.port);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address} for the node: stop what uses it, or choose another with --kubelet-port")
        })?;
        let clients = &self.certificates.clients;
        let certificate = self.certificates.kubelet.clone();
        let tls = Arc::new(coracle_transport::server_config(
            certificate,
            Some(clients),
        )?);
        let auth = Auth::new(
            self.config.node_name.clone(),
            Some(clients.clone()),
            Some(self.client.clone()),
        );
        let cri = Cri::new(&self.config.runtime_socket());
        let kubelet = Kubelet::new(self.config, self.client, self.informers);
        kubelet.show_metrics(|page| page.add(coracle_proxy::metrics()));
        let endpoints = Server::new(
            server::Config {
                system_logs: "/var/log".into(),
            },
            listener,
            tls,
            auth,
            cri,
            kubelet.host(),
        );
        let run = shutdown.child_token();
        let serving = endpoints.run(run.clone());
        let kubelet = async {
            let ended = kubelet.run(shutdown).await;
            run.cancel();
            ended
        };
        let (ended, ()) = tokio::join!(kubelet, serving);
        Ok(ended?)
    }
}

fn spawn_dns(settings: &Settings, control_plane: &ControlPlane, components: &Components) {
    let config = coracle_dns::Config {
        node_name: settings.node_name.clone(),
        cluster_domain: settings.args.cluster_domain.clone(),
        cluster_dns: settings.args.cluster_dns,
        resolv_conf: "/etc/resolv.conf".into(),
        port: 53,
    };
    let client = control_plane.client("system:coredns", &[]);
    let informers = control_plane.informers.clone();
    components.spawn("dns", move |run| {
        coracle_dns::Dns::new(config.clone(), client.clone(), informers.clone()).run(run)
    });
}

fn spawn_proxy(settings: &Settings, control_plane: &ControlPlane, components: &Components) {
    let (cluster, services) = (settings.args.cluster_cidr, settings.args.service_cidr);
    let config = coracle_proxy::Config {
        node_addresses: vec![settings.node_ip],
        ..coracle_proxy::Config::new(&settings.node_name, vec![cluster], vec![services])
    };
    let client = control_plane.client("system:kube-proxy", &[]);
    let informers = control_plane.informers.clone();
    let recorder = EventRecorder::new(client, "kube-proxy", &settings.node_name);
    components.spawn("proxy", move |run| {
        coracle_proxy::Proxy::new(config.clone(), informers.clone(), recorder.clone()).run(run)
    });
}

fn spawn_provisioner(settings: &Settings, control_plane: &ControlPlane, components: &Components) {
    let user = "system:serviceaccount:kube-system:local-path-provisioner-service-account";
    let groups = [
        "system:serviceaccounts",
        "system:serviceaccounts:kube-system",
    ];
    let context = coracle_controllers::Context::new(
        control_plane.client(user, &groups),
        control_plane.informers.clone(),
        coracle_controllers::Config::default(),
    );
    let local = LocalPath {
        node_name: settings.node_name.clone(),
        folder: settings.layout.storage(),
    };
    components.spawn("local-path-provisioner", move |run| {
        local_path::run(context.clone(), local.clone(), run)
    });
}

/// What the kubelet is told.
fn kubelet_config(settings: &Settings) -> anyhow::Result<Config> {
    let (args, layout) = (&settings.args, &settings.layout);
    let runtime = runtime(layout, args.container_runtime_endpoint.as_deref())?;
    let mut config = config(layout, &settings.node_name, settings.node_ip, runtime);
    config.cluster_dns = vec![args.cluster_dns];
    config.cluster_domain = args.cluster_domain.clone();
    config.port = args.kubelet_port;
    config.node_labels = labels(&args.node_label)?;
    config.node_taints = args
        .node_taint
        .iter()
        .map(|text| taint(text))
        .collect::<Result<_, _>>()?;
    if matches!(config.runtime, RuntimeSource::Managed(_)) {
        let program = std::env::current_exe().context("cannot find our own program")?;
        config.cni_plugin = Some(program);
        let (layout, cluster) = (layout.clone(), args.cluster_cidr);
        config.cni_conflist = Some(Arc::new(move |subnet: &str| {
            let subnets = subnet.parse().ok().into_iter().collect();
            coracle_cni::conflist(&cni_config(&layout, subnets, vec![cluster]))
        }));
    }
    Ok(config)
}

/// The part of the kubelet's configuration that follows from the data directory alone.
fn config(layout: &Layout, node_name: &str, node_ip: IpAddr, runtime: RuntimeSource) -> Config {
    let mut config = Config::new(node_name, node_ip, &layout.node(), runtime);
    config.root_dir = layout.kubelet();
    config.pod_logs_dir = layout.pod_logs();
    config.container_logs_dir = layout.is_default().then(|| "/var/log/containers".into());
    config.cgroup_root = layout.cgroup_root();
    config
}

fn cni_config(layout: &Layout, subnets: Vec<IpNet>, cluster: Vec<IpNet>) -> coracle_cni::Config {
    coracle_cni::Config::new(&layout.node().join("cni/state"), subnets, cluster)
}

fn runtime(layout: &Layout, endpoint: Option<&str>) -> anyhow::Result<RuntimeSource> {
    let Some(endpoint) = endpoint else {
        return Ok(RuntimeSource::Managed(Managed {
            containerd: "containerd".into(),
            ctr: "ctr".into(),
            sandbox_image: pause::IMAGE.to_owned(),
            sandbox_archive: pause::archive,
        }));
    };
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        bail!(
            "--container-runtime-endpoint {endpoint} is no Unix socket: give unix:///path/to.sock"
        );
    }
    // `coracle stop` must find the pods there again.
    let file = layout.runtime_endpoint();
    data_dir::create_private(&layout.node())?;
    std::fs::write(&file, path).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(RuntimeSource::Endpoint(path.into()))
}

fn labels(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for text in given {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("--node-label {text}: expected KEY=VALUE"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// `KEY=VALUE:EFFECT` or `KEY:EFFECT`
fn taint(text: &str) -> anyhow::Result<Taint> {
    let parsed = text.rsplit_once(':').filter(|(key, effect)| {
        !key.is_empty() && ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(effect)
    });
    let Some((key, effect)) = parsed else {
        bail!(
            "--node-taint {text}: expected KEY=VALUE:EFFECT, with the effect NoSchedule, PreferNoSchedule or NoExecute"
        );
    };
    let (key, value) = match key.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (key, None),
    };
    Ok(Taint {
        key: key.to_owned(),
        value,
        effect: effect.to_owned(),
        ..Taint::default()
    })
}

/// Stops all pods and the runtime of the data directory's node, and removes its links, rules,
/// mounts and cgroups. Returns what could not be undone.
pub async fn stop_all(layout: &Layout) -> Vec<String> {
    let endpoint: Option<PathBuf> = std::fs::read_to_string(layout.runtime_endpoint())
        .ok()
        .map(PathBuf::from);
    let runtime = match endpoint {
        Some(path) => Ok(RuntimeSource::Endpoint(path)),
        None => runtime(layout, None),
    };
    let mut failures = match runtime {
        Ok(runtime) => {
            let config = config(layout, "", IpAddr::from([0, 0, 0, 0]), runtime);
            coracle_kubelet::runtime::stop_all(&config).await
        }
        Err(error) => vec![format!("{error:#}")],
    };
    failures.extend(coracle_cni::cleanup(&cni_config(
        layout,
        Vec::new(),
        Vec::new(),
    )));
    let proxy = coracle_proxy::Config::new("", Vec::new(), Vec::new());
    failures.extend(
        coracle_proxy::cleanup(&proxy)
            .err()
            .map(|error| error.to_string()),
    );
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_and_labels_are_read() {
        let read = taint("dedicated=db:NoSchedule").unwrap();
        assert_eq!(
            (
                read.key.as_str(),
                read.value.as_deref(),
                read.effect.as_str()
            ),
            ("dedicated", Some("db"), "NoSchedule")
        );
        assert_eq!(taint("dedicated:NoExecute").unwrap().value, None);
        assert!(taint("dedicated=db").is_err() && taint("a:Sometimes").is_err());
        assert_eq!(labels(&["a=b".to_owned()]).unwrap()["a"], "b");
        assert!(labels(&["a".to_owned()]).is_err());
    }
}
