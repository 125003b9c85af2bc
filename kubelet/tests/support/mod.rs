//! What tests with a real containerd share: a node's configuration in a directory of its own,
//! and images around the machine's static busybox.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod node;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use coracle_kubelet::{
    Config,
    cgroups::remove_tree,
    config::{Managed, RuntimeSource},
    cri::Cri,
    runtime::stop_all,
};
use k8s_cri::v1::{ImageSpec, ImageStatusRequest};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Long enough for anything that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const BUSYBOX: &str = "coracle.test/busybox:1";

/// Whether the machine has what a node needs.
pub fn available() -> bool {
    let programs = ["containerd", "ctr", "runc"].iter().all(|program| {
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
            .iter()
            .any(|directory| Path::new(directory).join(program).exists())
    });
    nix::unistd::Uid::effective().is_root() && programs && Path::new("/bin/busybox").exists()
}

pub fn config(directory: &Path) -> Config {
    let source = RuntimeSource::Managed(Managed {
        containerd: "containerd".into(),
        ctr: "ctr".into(),
        sandbox_image: coracle_kubelet::pause::IMAGE.to_owned(),
        sandbox_archive: coracle_kubelet::pause::archive,
    });
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    let mut config = Config::new("node", address, directory, source);
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    config.cgroup_root = format!("/coracle-test-{}-{number}", std::process::id()).into();
    config
}

/// Takes the node down when the test ends, however it ends.
pub struct TakenDown(pub Config);

impl Drop for TakenDown {
    fn drop(&mut self) {
        let config = self.0.clone();
        let stop = move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for taking down")
                .block_on(async {
                    let mut errors = stop_all(&config).await;
                    // It is this test's own, unlike a real node's.
                    errors.extend(remove_tree(&config.cgroup_root).await);
                    errors
                })
        };
        let errors = std::thread::spawn(stop).join();
        if !std::thread::panicking() {
            assert_eq!(errors.expect("it does not panic"), Vec::<String>::new());
        }
    }
}

/// Loads an image of busybox under a name and waits until the CRI knows it too: it hears of what
/// `ctr` imports a moment later.
pub async fn import(config: &Config, name: &str) {
    let socket = config.runtime_socket();
    let file = config.data_dir.join("image.tar");
    fs::write(&file, archive(name)).expect("the archive is written");
    let request = ImageStatusRequest {
        image: Some(ImageSpec {
            image: name.to_owned(),
            ..ImageSpec::default()
        }),
        verbose: false,
    };
    let mut images = Cri::new(&socket).image;
    let import = async {
        // Until containerd answers.
        while !ctr_import(&socket, &file).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loop {
            if let Ok(status) = images.image_status(request.clone()).await
                && status.into_inner().image.is_some()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, import)
        .await
        .expect("the image is loaded");
}

async fn ctr_import(socket: &Path, file: &Path) -> bool {
    let output = tokio::process::Command::new("ctr")
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(file)
        .output()
        .await
        .expect("ctr starts");
    output.status.success()
}

/// An OCI archive with busybox and a link for each of its applets that tests use; it sleeps
/// unless told otherwise.
pub fn archive(name: &str) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox is installed");
    let mut layer = tar::Builder::new(Vec::new());
    file(&mut layer, "bin/busybox", 0o755, &busybox);
    file(
        &mut layer,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n",
    );
    for applet in [
        "sh", "sleep", "cat", "echo", "true", "false", "ls", "id", "env", "httpd", "wget", "touch",
        "stat", "hostname", "test", "kill", "nc", "trap", "stty", "readlink", "mount", "grep",
        "head",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .expect("a link is written");
    }
    let layer = layer.into_inner().expect("the layer is written");
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
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
    entry["annotations"] = json!({ "io.containerd.image.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] })
        .to_string()
        .into_bytes();
    let mut archive = tar::Builder::new(Vec::new());
    file(
        &mut archive,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    );
    file(&mut archive, "index.json", 0o644, &index);
    for blob in [&layer, &config, &manifest] {
        let path = format!("blobs/sha256/{:x}", Sha256::digest(blob));
        file(&mut archive, &path, 0o644, blob);
    }
    archive.into_inner().expect("the archive is written")
}

fn file(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive
        .append_data(&mut header, path, content)
        .expect("a file is written");
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}
