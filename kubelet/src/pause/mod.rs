//! The sandbox image: the pause program, carried in the binary, and the OCI archive around it
//! that a runtime imports, so that a node starts pods without a registry.
//!
//! Enter at [`IMAGE`] and [`archive`]. The archive is the same bytes on every call, so importing
//! it again changes nothing.

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// What the runtime is told to run sandboxes from (containerd's `sandbox_image`).
pub const IMAGE: &str = "coracle.io/pause:1";

/// The pause program itself: a static ELF file for this binary's architecture.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The name that OCI and Go use for this architecture.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// An OCI image archive (a tar file of a few kilobytes) that holds [`IMAGE`].
pub fn archive() -> Vec<u8> {
    let layer = tar(&[("pause", 0o755, PROGRAM)]);
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": ARCHITECTURE,
        "os": "linux",
        // Upstream's image runs as this user too: the program needs no rights.
        "config": { "Entrypoint": ["/pause"], "User": "65535:65535", "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "coracle" }],
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({ "architecture": ARCHITECTURE, "os": "linux" });
    entry["annotations"] = json!({
        "io.containerd.image.name": IMAGE,
        "org.opencontainers.image.ref.name": IMAGE,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    })
    .to_string()
    .into_bytes();
    let blob = |content: &[u8]| format!("blobs/sha256/{:x}", Sha256::digest(content));
    tar(&[
        ("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", 0o644, &index),
        (&blob(&manifest), 0o644, &manifest),
        (&blob(&config), 0o644, &config),
        (&blob(&layer), 0o644, &layer),
    ])
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

/// A tar file of regular files given as name, mode and content.
fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        builder
            .append_data(&mut header, name, *content)
            .expect("names are short, and a Vec takes every write");
    }
    builder.into_inner().expect("a Vec takes every write")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        io::Read as _,
        os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
        process::Command,
        time::{Duration, Instant},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;

    fn files(archive: &[u8]) -> HashMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        archive
            .entries()
            .expect("a tar file")
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let name = entry.path().expect("a path").display().to_string();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("its content");
                (name, content)
            })
            .collect()
    }

    #[test]
    fn the_archive_leads_from_the_index_to_the_program() {
        let files = files(&archive());
        let parse = |content: &[u8]| -> serde_json::Value {
            serde_json::from_slice(content).expect("valid JSON")
        };
        let blob = |descriptor: &serde_json::Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let content = &files[&digest.replace("sha256:", "blobs/sha256/")];
            assert_eq!(descriptor["size"], content.len());
            content.clone()
        };
        let index = parse(&files["index.json"]);
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], IMAGE);
        let manifest = parse(&blob(entry));
        let config = parse(&blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(super::tests::files(&layer)["pause"], PROGRAM);
        assert_eq!(archive(), archive());
    }

    #[test]
    fn the_program_is_small_and_ends_well_on_a_signal() {
        assert!(PROGRAM.len() < 8192, "{} bytes", PROGRAM.len());
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pause");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(&path)
            .expect("a file");
        std::io::Write::write_all(&mut file, PROGRAM).expect("written");
        drop(file);
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut child = Command::new(&path).spawn().expect("it runs");
            let pid = Pid::from_raw(child.id() as i32);
            // It sleeps nowhere but where it waits for signals.
            let status = format!("/proc/{pid}/status");
            let deadline = Instant::now() + Duration::from_secs(5);
            while !std::fs::read_to_string(&status).is_ok_and(|text| text.contains("State:\tS"))
                && Instant::now() < deadline
            {
                std::thread::yield_now();
            }
            kill(pid, Signal::SIGCHLD).expect("sent");
            kill(pid, signal).expect("sent");
            let ended = loop {
                match child.try_wait().expect("it is a child") {
                    None if Instant::now() < deadline => std::thread::yield_now(),
                    ended => break ended,
                }
            };
            let _ = child.kill();
            let status = ended.expect("it ends");
            assert_eq!((status.code(), status.signal()), (Some(0), None));
        }
    }
}
