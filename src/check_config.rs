//! `coracle check-config`: what this machine lacks to run a node, and how to mend it.

use std::{net::TcpListener, path::Path};

use crate::data_dir::{self, Layout};

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Good(String),
    /// Works, but worse than it could.
    Warning {
        found: String,
        mend: String,
    },
    /// A node cannot run.
    Bad {
        found: String,
        mend: String,
    },
}

/// What to look at.
pub struct Wanted<'a> {
    pub layout: &'a Layout,
    /// 0 when any port will do.
    pub https_listen_port: u16,
    /// Whether a containerd has to be started.
    pub own_runtime: bool,
}

/// Looks at everything a node needs. Changes nothing.
pub fn checks(wanted: &Wanted<'_>) -> Vec<Check> {
    let mut checks = vec![
        Check {
            name: "root",
            outcome: root(),
        },
        Check {
            name: "port",
            outcome: port(wanted),
        },
        Check {
            name: "data directory",
            outcome: holder(wanted.layout),
        },
        Check {
            name: "overlayfs",
            outcome: filesystem("overlay"),
        },
        Check {
            name: "cgroups",
            outcome: cgroups(),
        },
        Check {
            name: "nftables",
            outcome: nftables(),
        },
        Check {
            name: "bridge netfilter",
            outcome: bridge_netfilter(),
        },
    ];
    if wanted.own_runtime {
        checks.push(Check {
            name: "containerd",
            outcome: program("containerd", "containerd"),
        });
        checks.push(Check {
            name: "ctr",
            outcome: program("ctr", "containerd"),
        });
        checks.push(Check {
            name: "runc",
            outcome: program("runc", "runc"),
        });
    }
    checks.push(Check {
        name: "nft",
        outcome: program("nft", "nftables"),
    });
    checks.push(Check {
        name: "kubectl",
        outcome: kubectl(),
    });
    checks
}

/// The table that `coracle check-config` prints.
pub fn table(checks: &[Check]) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut lines = String::new();
    for Check { name, outcome } in checks {
        let (sign, text) = match outcome {
            Outcome::Good(found) => ("ok  ", found.clone()),
            Outcome::Warning { found, mend } => ("warn", format!("{found}: {mend}")),
            Outcome::Bad { found, mend } => ("FAIL", format!("{found}: {mend}")),
        };
        lines.push_str(&format!("{sign}  {name:width$}  {text}\n"));
    }
    lines
}

/// What stands in the way of running a node, one line each.
pub fn failures(checks: &[Check]) -> Vec<String> {
    checks
        .iter()
        .filter_map(|check| match &check.outcome {
            Outcome::Bad { found, mend } => Some(format!("{}: {found}: {mend}", check.name)),
            _ => None,
        })
        .collect()
}

fn good(found: impl Into<String>) -> Outcome {
    Outcome::Good(found.into())
}

fn bad(found: impl Into<String>, mend: impl Into<String>) -> Outcome {
    Outcome::Bad {
        found: found.into(),
        mend: mend.into(),
    }
}

fn root() -> Outcome {
    if nix::unistd::geteuid().is_root() {
        good("running as root")
    } else {
        bad(
            "not root",
            "run it with sudo (or, for the API alone, with --disable-agent)",
        )
    }
}

fn port(wanted: &Wanted<'_>) -> Outcome {
    let port = wanted.https_listen_port;
    match TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => good(format!("{port} is free")),
        Err(error) => bad(
            format!("{port} cannot be listened on ({error})"),
            "stop what uses it (ss -ltnp shows it), or choose another with --https-listen-port",
        ),
    }
}

fn holder(layout: &Layout) -> Outcome {
    let root = layout.root.display();
    match data_dir::holder(layout) {
        Ok(None) => good(format!("{root} is free")),
        Ok(Some(pid)) => bad(
            format!("{root} is held by process {pid}"),
            format!("stop it with coracle stop --data-dir {root}, or choose another --data-dir"),
        ),
        Err(error) => bad(format!("{error:#}"), "choose another --data-dir"),
    }
}

fn filesystem(name: &str) -> Outcome {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name))
        || module_exists(name)
    {
        good("in the kernel")
    } else {
        bad(
            format!("the kernel has no {name}"),
            format!("load it with modprobe {name}, or use a kernel with CONFIG_OVERLAY_FS"),
        )
    }
}

fn module_exists(name: &str) -> bool {
    std::process::Command::new("modprobe")
        .arg(name)
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn cgroups() -> Outcome {
    const NEEDED: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];
    if let Ok(controllers) = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        let missing: Vec<&str> = NEEDED
            .into_iter()
            .filter(|name| !controllers.split_whitespace().any(|known| known == *name))
            .collect();
        return if missing.is_empty() {
            good("version 2")
        } else {
            bad(
                format!("version 2 without {}", missing.join(", ")),
                "enable them on the kernel's command line (cgroup_enable=…)",
            )
        };
    }
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|name| !Path::new("/sys/fs/cgroup").join(name).is_dir())
        .collect();
    if missing.is_empty() {
        good("version 1")
    } else {
        bad(
            format!("not mounted: {}", missing.join(", ")),
            "mount cgroup2 on /sys/fs/cgroup",
        )
    }
}

fn nftables() -> Outcome {
    let listed = std::process::Command::new("nft")
        .args(["list", "tables"])
        .output();
    match listed {
        Ok(output) if output.status.success() => good("in the kernel"),
        Ok(output) => bad(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            "use a kernel with CONFIG_NF_TABLES (modprobe nf_tables)",
        ),
        Err(_) => bad(
            "cannot be looked at without nft",
            "apt-get install nftables",
        ),
    }
}

fn bridge_netfilter() -> Outcome {
    if Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
        || module_exists("br_netfilter")
    {
        good("in the kernel")
    } else {
        Outcome::Warning {
            found: "the kernel has no br_netfilter".to_owned(),
            mend: "a pod cannot reach, through a Service, another pod of its own node; modprobe br_netfilter".to_owned(),
        }
    }
}

fn program(name: &str, package: &str) -> Outcome {
    match find(name) {
        Some(path) => good(path),
        None => bad(
            format!("no {name} on the PATH"),
            format!("apt-get install {package}"),
        ),
    }
}

fn kubectl() -> Outcome {
    match find("kubectl") {
        Some(path) => good(path),
        None => Outcome::Warning {
            found: "no kubectl on the PATH".to_owned(),
            mend: "install it from https://kubernetes.io/docs/tasks/tools".to_owned(),
        },
    }
}

fn find(name: &str) -> Option<String> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .map(|path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_with_its_remedy() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let wanted = Wanted {
            layout: &layout,
            https_listen_port: taken.local_addr().unwrap().port(),
            own_runtime: false,
        };
        let failures = failures(&checks(&wanted));
        assert!(
            failures
                .iter()
                .any(|line| line.starts_with("port:") && line.contains("--https-listen-port")),
            "{failures:?}"
        );
    }

    #[test]
    fn the_table_has_a_line_per_check() {
        let checks = [
            Check {
                name: "root",
                outcome: good("running as root"),
            },
            Check {
                name: "nft",
                outcome: bad("no nft", "apt-get install nftables"),
            },
        ];
        assert_eq!(
            table(&checks),
            "ok    root  running as root\nFAIL  nft   no nft: apt-get install nftables\n"
        );
    }
}
