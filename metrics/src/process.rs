//! Memory and processor time of the process, as Prometheus' client libraries show them, and which
//! version it is.

use std::{fs, time::Duration};

use crate::{Description, Kind, Page, Stability};

/// Shows memory, processor time and files of the process, from `/proc`.
pub fn process(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // What follows the command, which may hold blanks: state is the first of them.
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map(|(_, fields)| fields.split(' ').collect())
        .unwrap_or_default();
    let number = |index: usize| {
        let field = fields.get(index).and_then(|field| field.parse().ok());
        field.unwrap_or(0u64)
    };
    // Linux counts processor time in hundredths of a second, and pages are of 4 KiB.
    let ticks = Duration::from_millis(10 * (number(11) + number(12)));
    // Started so many ticks after the machine.
    let booted = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = booted
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse().ok());
    let started = Duration::from_secs(booted.unwrap_or(0)) + Duration::from_millis(10 * number(19));
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = |name: &str| {
        let mut lines = limits.lines();
        let soft = lines.find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        // What is unlimited shows as the largest number, as Go's library has it.
        soft.map_or(0.0, |soft| soft.parse().unwrap_or(u64::MAX as f64))
    };
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    page.counter(
        "process_cpu_seconds_total",
        "Processor time of the process, in seconds.",
        ticks.as_secs_f64(),
    );
    for (name, help, value) in [
        (
            "process_max_fds",
            "Files that the process may have open.",
            limit("Max open files"),
        ),
        (
            "process_open_fds",
            "Files that the process has open.",
            open as f64,
        ),
        (
            "process_resident_memory_bytes",
            "Bytes of the process that are in memory.",
            (number(21) * 4096) as f64,
        ),
        (
            "process_start_time_seconds",
            "When the process was started, in seconds since 1970.",
            started.as_secs_f64(),
        ),
        (
            "process_virtual_memory_bytes",
            "Bytes of address space that the process has.",
            number(20) as f64,
        ),
        (
            "process_virtual_memory_max_bytes",
            "Bytes of address space that the process may have.",
            limit("Max address space"),
        ),
    ] {
        page.gauge(name, help, value);
    }
}

/// Shows which version it is: `version` of Kubernetes, for example `v1.36.2`.
pub fn version(page: &mut Page, version: &str) {
    let build = Description {
        name: "kubernetes_build_info",
        stability: Stability::Beta,
        help: "1, with the version of Kubernetes that this build is, and the platform that it runs on.",
    };
    let labels = [
        "build_date",
        "compiler",
        "git_commit",
        "git_tree_state",
        "git_version",
        "go_version",
        "major",
        "minor",
        "platform",
    ];
    let number = version.trim_start_matches('v');
    let mut parts = number.split('.');
    let (major, minor) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    // As Go calls it.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let platform = format!("linux/{architecture}");
    page.family(&build, Kind::Gauge, &labels, |samples| {
        let values = ["", "rustc", "", "", version, "", major, minor, &platform];
        samples.add(&values, 1.0);
    });
    let compatible = Description {
        name: "version_info",
        stability: Stability::Alpha,
        help: "1, with the versions whose behaviour the component has and is compatible with.",
    };
    let labels = ["binary", "component", "emulation", "min_compat"];
    page.family(&compatible, Kind::Gauge, &labels, |samples| {
        let binary = number.split('+').next().unwrap_or(number);
        let before: u32 = minor.parse().unwrap_or(1);
        let (emulation, oldest) = (
            format!("{major}.{minor}"),
            format!("{major}.{}", before.saturating_sub(1)),
        );
        samples.add(&[binary, "kube", &emulation, &oldest], 1.0);
    });
}
