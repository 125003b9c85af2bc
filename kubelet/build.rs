//! Compiles the pause program (`src/pause/program.rs`) for the target, so that the crate can
//! carry it. Everything else about it stands in `src/pause/mod.rs`.

use std::{env, path::PathBuf, process::Command};

const PROGRAM: &str = "src/pause/program.rs";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PROGRAM}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let variable = |name| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("pause");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=pause"])
        .args(["-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols"])
        .args(["-Crelocation-model=static", "-Ctarget-feature=+crt-static"])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib"])
        .args(["-Clink-arg=-static", "-Clink-arg=-Wl,--build-id=none"])
        // Without it each segment would start on a page of its own in the file.
        .arg("-Clink-arg=-Wl,-z,noseparate-code")
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(&output)
        .arg(PROGRAM);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    let status = rustc.status().expect("cannot run rustc");
    assert!(status.success(), "cannot compile the pause program");
}
