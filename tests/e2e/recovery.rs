//! What a cluster makes of being killed, in whole and in part. Each test has its own.

use std::{collections::BTreeMap, process::Command};

use crate::cluster::{Cluster, IMAGE};

fn containers(cluster: &Cluster) -> String {
    cluster.kubectl(
        "get pods -o jsonpath={range.items[*]}{.metadata.name}={.status.containerStatuses[0].containerID}/{.status.containerStatuses[0].restartCount}{\"\\n\"}{end}",
    )
}

fn deployment(cluster: &Cluster, replicas: u32, command: &str) {
    cluster.kubectl(&format!(
        "create deployment web --image={IMAGE} --replicas={replicas} -- {command}"
    ));
    cluster.kubectl("rollout status deployment/web --timeout=120s");
}

#[test]
fn a_killed_server_finds_its_pods_and_objects_again() {
    let mut cluster = Cluster::start("killed");
    deployment(&cluster, 3, "sleep 36000");
    cluster.kubectl("create configmap kept --from-literal=a=b");
    let before = containers(&cluster);
    for _ in 0..3 {
        cluster.kill_server();
        cluster.spawn_server();
        cluster.wait_ready();
    }
    assert_eq!(
        cluster.kubectl("get configmap kept -o jsonpath={.data.a}"),
        "b"
    );
    assert_eq!(containers(&cluster), before, "no container was restarted");
    cluster.kubectl("scale deployment web --replicas=4");
    cluster.kubectl("rollout status deployment/web --timeout=120s");
    let after = containers(&cluster);
    for line in before.lines() {
        assert!(after.contains(line), "{line} is not in\n{after}");
    }
}

#[test]
fn killed_containers_shims_and_containerd_recover() {
    let cluster = Cluster::start("broken");
    deployment(&cluster, 1, "sleep 36000");
    let restarts = "get pods -o jsonpath={.items[0].status.containerStatuses[0].restartCount}";
    let state = "get pods -o jsonpath={.items[0].status.phase}/{.items[0].status.containerStatuses[0].ready}";

    kill(&cluster, "sleep 36000");
    cluster.eventually(restarts, |count| count == "1");
    cluster.eventually(state, |state| state == "Running/true");
    let terminated = "get pods -o jsonpath={.items[0].status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(cluster.kubectl(terminated), "137");

    let running = "get pods -o jsonpath={.items[0].status.containerStatuses[0].state.running.startedAt}={.items[0].status.containerStatuses[0].containerID}";
    let id = |printed: &str| printed.split_once('=').map(|(_, id)| id.to_owned());
    let killed = id(&cluster.kubectl(running));
    kill(&cluster, "containerd-shim-runc-v2");
    cluster.eventually(running, |now| !now.starts_with('=') && id(now) != killed);
    cluster.eventually(state, |state| state == "Running/true");
    cluster.eventually("events", |printed| printed.contains("SandboxChanged"));

    let before = containers(&cluster);
    kill(&cluster, "containerd --config");
    cluster.kubectl("create configmap kept --from-literal=a=b");
    cluster.kubectl(&format!("run later --image={IMAGE} -- sleep 3600"));
    cluster.kubectl("wait pod/later --for=condition=Ready --timeout=120s");
    assert!(
        containers(&cluster).contains(before.trim()),
        "containerd's end restarts no container"
    );
}

#[test]
fn a_host_that_is_cut_off_runs_its_pods() {
    let address = "get node node-1 -o jsonpath={.status.addresses[0].address}";
    let look_up = "exec deployment/web -- nslookup kubernetes.default.svc.cluster.local";
    let mut cluster = Cluster::prepare("cutoff");
    cluster.unplug();
    cluster.spawn_server();
    cluster.wait_ready();
    cluster.import_image(IMAGE, "1.0");
    deployment(&cluster, 1, "sleep 36000");
    assert_eq!(cluster.kubectl(address), "10.42.0.1");
    cluster.eventually(look_up, |answer| answer.contains("10.43.0.1"));

    let before = containers(&cluster);
    cluster.kill_server();
    cluster.plug_in();
    cluster.spawn_server();
    cluster.eventually(address, |address| address == "192.0.2.10");
    let endpoints = "get endpointslice kubernetes -o jsonpath={.endpoints[*].addresses}";
    cluster.eventually(endpoints, |addresses| addresses == r#"["192.0.2.10"]"#);
    cluster.eventually(look_up, |answer| answer.contains("10.43.0.1"));
    assert_eq!(containers(&cluster), before, "no container was restarted");
}

/// Kills every process of the cluster whose command line holds `pattern`, with SIGKILL.
fn kill(cluster: &Cluster, pattern: &str) {
    let data_dir = cluster.data_dir().display().to_string();
    let mut killed = 0;
    for (pid, command) in processes() {
        let ours = in_network_of(cluster, pid) || command.contains(&data_dir);
        if command.contains(pattern) && ours {
            let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
            killed += usize::from(status.is_ok_and(|status| status.success()));
        }
    }
    assert!(killed > 0, "no process matches {pattern:?}");
}

/// Whether the process is below the cluster's containerd.
fn in_network_of(cluster: &Cluster, pid: u32) -> bool {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let uids = cluster.kubectl("get pods -A -o jsonpath={.items[*].metadata.uid}");
    uids.split_whitespace().any(|uid| cgroup.contains(uid))
}

fn processes() -> BTreeMap<u32, String> {
    let entries = std::fs::read_dir("/proc").expect("there is a /proc");
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some((
                pid,
                String::from_utf8_lossy(&command)
                    .replace('\0', " ")
                    .trim()
                    .to_owned(),
            ))
        })
        .collect()
}

/// What the pods of the cluster `clean` run, and those of no other: the tests run side by side, and
/// a process outside its cgroup shows only by its command line.
const ONLY_IN_CLEAN: &str = "sleep 36001";

/// What a node leaves on a host, as the host shows it.
fn traces(cluster_network: &str) -> BTreeMap<&'static str, Vec<String>> {
    let list = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .output()
            .expect("the program runs");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let in_network = format!("--net=/run/netns/{cluster_network}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("there are mounts");
    let commands = processes()
        .into_values()
        .filter(|command| command.contains("coracle-e2e-clean") || command.contains(ONLY_IN_CLEAN))
        .collect();
    BTreeMap::from([
        (
            "links",
            list("nsenter", &[&in_network, "ip", "-o", "-br", "link"]),
        ),
        (
            "addresses",
            list("nsenter", &[&in_network, "ip", "-o", "-br", "address"]),
        ),
        (
            "nft tables",
            list("nsenter", &[&in_network, "nft", "list", "tables"]),
        ),
        ("routes", list("nsenter", &[&in_network, "ip", "route"])),
        (
            "network namespaces",
            list("ip", &["netns", "list"])
                .into_iter()
                .filter(|line| line.starts_with("cni-"))
                .collect(),
        ),
        (
            "mounts",
            mounts
                .lines()
                .filter(|line| line.contains("coracle-e2e-clean"))
                .map(str::to_owned)
                .collect(),
        ),
        ("processes", commands),
    ])
}

fn collect_folders(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path().display().to_string());
            collect_folders(&entry.path(), found);
        }
    }
}

#[test]
fn stopping_leaves_nothing_on_the_host_but_the_data() {
    let mut cluster = Cluster::prepare("clean");
    let before = traces("coracle-clean");
    cluster.spawn_server();
    cluster.wait_ready();
    cluster.import_image(IMAGE, "1.0");
    deployment(&cluster, 2, ONLY_IN_CLEAN);
    cluster.kubectl("expose deployment web --port=80");
    let uids = cluster.kubectl("get pods -A -o jsonpath={.items[*].metadata.uid}");
    let stopped = cluster
        .command(crate::cluster::binary())
        .args(["stop", "--data-dir"])
        .arg(cluster.data_dir())
        .output()
        .expect("coracle stop runs");
    assert!(
        stopped.status.success(),
        "{}",
        String::from_utf8_lossy(&stopped.stderr)
    );
    assert_eq!(traces("coracle-clean"), before);
    let mut cgroups = Vec::new();
    collect_folders(std::path::Path::new("/sys/fs/cgroup"), &mut cgroups);
    for uid in uids.split_whitespace() {
        assert!(
            !cgroups.iter().any(|path| path.contains(uid)),
            "a cgroup of pod {uid} is left"
        );
    }
    assert!(
        cluster.data_dir().join("server/db").exists(),
        "the data is kept"
    );
}
