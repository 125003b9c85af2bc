//! The configuration file of a managed containerd, in the version 2 format that every
//! containerd from 1.6 on reads.

use super::Paths;

/// How images are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    Overlayfs,
    /// Copies every layer: works on any file system, slowly.
    Native,
}

impl Snapshotter {
    fn name(self) -> &'static str {
        match self {
            Snapshotter::Overlayfs => "overlayfs",
            Snapshotter::Native => "native",
        }
    }
}

/// What the file depends on beside the paths.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    pub sandbox_image: &'a str,
    pub snapshotter: Snapshotter,
    /// Without CAP_SYS_RESOURCE nobody may make a process less likely to be killed when memory
    /// is short, so containerd has to leave the scores it cannot set.
    pub restrict_oom_score_adj: bool,
    /// Pods may ping and bind low ports without capabilities, as upstream's node images set it;
    /// needs the kernel's per-namespace sysctls.
    pub unprivileged_ports: bool,
}

/// Renders the file.
pub fn render(paths: &Paths, settings: &Settings<'_>) -> String {
    let quoted = |path: std::path::PathBuf| quote(&path.to_string_lossy());
    let unneeded = unneeded_plugins(settings.snapshotter)
        .iter()
        .map(|plugin| quote(plugin))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        r#"# Written by coracle at every start.
version = 2
root = {root}
state = {state}
oom_score = 0
disabled_plugins = [{unneeded}]

[grpc]
  address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {sandbox_image}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  enable_selinux = false
  restrict_oom_score_adj = {restrict_oom_score_adj}
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  enable_unprivileged_ports = {unprivileged_ports}
  enable_unprivileged_icmp = {unprivileged_ports}
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    snapshotter = "{snapshotter}"
    discard_unpacked_layers = false

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni_bin}
    conf_dir = {cni_conf}
    max_conf_num = 1

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {registries}

[plugins."io.containerd.internal.v1.opt"]
  path = {opt}
"#,
        root = quoted(paths.root()),
        state = quoted(paths.state()),
        socket = quoted(paths.socket()),
        sandbox_image = quote(settings.sandbox_image),
        restrict_oom_score_adj = settings.restrict_oom_score_adj,
        unprivileged_ports = settings.unprivileged_ports,
        snapshotter = settings.snapshotter.name(),
        cni_bin = quoted(paths.cni_bin()),
        cni_conf = quoted(paths.cni_conf()),
        registries = quoted(paths.registries()),
        opt = quoted(paths.root().join("opt")),
    )
}

/// Plugins that a Kubernetes node has no use for: each costs start-up time and memory.
fn unneeded_plugins(snapshotter: Snapshotter) -> Vec<&'static str> {
    let mut unneeded = vec![
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.erofs",
        "io.containerd.snapshotter.v1.zfs",
        "io.containerd.internal.v1.restart",
        "io.containerd.internal.v1.tracing",
        "io.containerd.tracing.processor.v1.otlp",
        "io.containerd.nri.v1.nri",
    ];
    if snapshotter == Snapshotter::Overlayfs {
        unneeded.push("io.containerd.snapshotter.v1.native");
    }
    unneeded
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", control as u32));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_quotes_stay_inside_their_strings() {
        assert_eq!(quote("/a\"b\\c\n"), "\"/a\\\"b\\\\c\\u000A\"");
    }

    #[test]
    fn the_chosen_snapshotter_is_not_disabled() {
        for snapshotter in [Snapshotter::Overlayfs, Snapshotter::Native] {
            let settings = Settings {
                sandbox_image: "pause",
                snapshotter,
                restrict_oom_score_adj: true,
                unprivileged_ports: true,
            };
            let text = render(&Paths::new(std::path::Path::new("/data")), &settings);
            assert!(text.contains(&format!("snapshotter = \"{}\"", snapshotter.name())));
            let disabled = text.lines().find(|line| line.starts_with("disabled"));
            assert!(!disabled.unwrap_or_default().contains(&format!(
                "io.containerd.snapshotter.v1.{}\"",
                snapshotter.name()
            )));
            assert!(text.contains("restrict_oom_score_adj = true"));
        }
    }
}
