//! Secrets at rest, and what of Leases and Events reaches the disk.

use std::{path::Path, process::Command, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Secret};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::json;

use crate::server::{Server, binary};

/// Base64 of "abracadabra".
const WORD: &str = "YWJyYWNhZGFicmE=";

fn secret(name: &str) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"word": WORD}}))
        .expect("a Secret")
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "default")
}

async fn create(client: &Client, count: usize) {
    let secrets = secrets(client);
    futures::stream::iter(0..count)
        .map(async |index| {
            let (parameters, secret) = (PostParams::default(), secret(&format!("s{index}")));
            let made = secrets.create(&parameters, &secret).await;
            made.expect("the Secret is created");
        })
        .buffer_unordered(32)
        .for_each(async |()| ())
        .await;
}

fn secrets_encrypt(data_dir: &Path, verb: &str) -> (bool, String) {
    let output = Command::new(binary())
        .args(["secrets-encrypt", verb, "--data-dir"])
        .arg(data_dir)
        .output()
        .expect("the command runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Whether the word is anywhere in the database.
fn on_disk(data_dir: &Path, word: &str) -> bool {
    ["state.db", "state.db-wal"].iter().any(|file| {
        let bytes = std::fs::read(data_dir.join("server/db").join(file)).unwrap_or_default();
        bytes
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    })
}

fn keys(data_dir: &Path) -> usize {
    let text = std::fs::read_to_string(data_dir.join("server/cred/encryption-config.json"));
    text.expect("the keys are there")
        .matches("\"secret\"")
        .count()
}

#[tokio::test]
async fn secrets_are_encrypted_at_rest_and_keys_rotate_under_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[]).await;
    create(&server.client, 20).await;
    assert!(!on_disk(dir.path(), WORD));
    assert!(on_disk(dir.path(), "k8s:enc:secretbox:v1:coracle-"));
    let (ok, status) = secrets_encrypt(dir.path(), "status");
    assert!(
        ok && status.contains("Encryption Status: Enabled"),
        "{status}"
    );
    let key = |status: &str| {
        let line = status.lines().find(|line| line.starts_with(" *"));
        line.expect("a key is active").to_owned()
    };
    let (ok, said) = secrets_encrypt(dir.path(), "rotate-keys");
    assert!(
        ok && said.contains("objects were encrypted again"),
        "{said}"
    );
    let (_, after) = secrets_encrypt(dir.path(), "status");
    assert_ne!(key(&status), key(&after));
    assert!(after.contains("reencrypt_finished"), "{after}");
    assert_eq!(keys(dir.path()), 1);
    server.terminate();
    let (ok, said) = secrets_encrypt(dir.path(), "status");
    assert!(!ok && said.contains("it must run"), "{said}");
    let server = Server::start_with(dir.path(), &[]).await;
    let listed = secrets(&server.client).list(&ListParams::default()).await;
    assert_eq!(listed.unwrap().items.len(), 20);
}

#[tokio::test]
async fn a_rotation_that_is_killed_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path(), &[]).await;
    create(&server.client, 300).await;
    for after in [0_u64, 15, 40, 90] {
        let rotation = Command::new(binary())
            .args(["secrets-encrypt", "rotate-keys", "--data-dir"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .spawn();
        let mut rotation = rotation.unwrap();
        tokio::time::sleep(Duration::from_millis(after)).await;
        server.kill();
        let _ = rotation.wait();
        server = Server::start_with(dir.path(), &[]).await;
        let listed = secrets(&server.client).list(&ListParams::default()).await;
        assert_eq!(listed.unwrap().items.len(), 300);
    }
    let (ok, said) = secrets_encrypt(dir.path(), "reencrypt");
    assert!(ok, "{said}");
    assert_eq!(keys(dir.path()), 1);
    let (_, status) = secrets_encrypt(dir.path(), "status");
    assert!(
        !status.contains("Not Encrypted") && !status.contains("Unreadable"),
        "{status}"
    );
}

#[tokio::test]
async fn a_configuration_of_encryption_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("encryption.yaml");
    let configure = |providers: &str| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: ['*.']\n  providers: [{providers}]\n"
        );
        let new = dir.path().join("encryption.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    let key = |name: &str, letter: &str| {
        let secret = match letter {
            "a" => "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=",
            _ => "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI=",
        };
        format!("{{name: {name}, secret: '{secret}'}}")
    };
    // A Secret from before, with the server's own key.
    let server = Server::start_with(dir.path(), &[]).await;
    create(&server.client, 1).await;
    server.terminate();
    configure(&format!(
        "{{aescbc: {{keys: [{}]}}}}, {{identity: {{}}}}",
        key("one", "a")
    ));
    let path = file.to_str().unwrap();
    let flags = [
        "--encryption-provider-config",
        path,
        "--encryption-provider-config-automatic-reload",
    ];
    let server = Server::start_with(dir.path(), &flags).await;
    let (ok, said) = secrets_encrypt(dir.path(), "reencrypt");
    assert!(
        ok && said.contains("objects were encrypted again"),
        "{said}"
    );
    assert!(on_disk(dir.path(), "k8s:enc:aescbc:v1:one:"));
    let (ok, said) = secrets_encrypt(dir.path(), "rotate-keys");
    assert!(
        !ok && said.contains("--encryption-provider-config"),
        "{said}"
    );
    configure(&format!(
        "{{aesgcm: {{keys: [{}]}}}}, {{aescbc: {{keys: [{}]}}}}",
        key("two", "b"),
        key("one", "a")
    ));
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    while !secrets_encrypt(dir.path(), "status").1.contains("AES-GCM") {
        assert!(
            std::time::Instant::now() < deadline,
            "the file is not read again"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (ok, said) = secrets_encrypt(dir.path(), "reencrypt");
    assert!(ok, "{said}");
    server.terminate();
    let server = Server::start_with(dir.path(), &flags).await;
    assert_eq!(
        secrets(&server.client)
            .get("s0")
            .await
            .unwrap()
            .data
            .unwrap()
            .len(),
        1
    );
}

async fn lease_writes(data_dir: &Path, flags: &[&str]) -> (bool, bool) {
    let server = Server::start_with(data_dir, flags).await;
    let leases: Api<Lease> = Api::namespaced(server.client.clone(), "default");
    let lease: Lease = serde_json::from_value(
        json!({"metadata": {"name": "beat"}, "spec": {"holderIdentity": "pulse"}}),
    )
    .unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
    create(&server.client, 1).await;
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = server.client.request_text(request).await.unwrap();
    let written = |prefix: &str| {
        let name = format!("coracle_store_written_bytes_total{{prefix=\"{prefix}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.is_some_and(|bytes| bytes.parse::<u64>().unwrap() > 0)
    };
    assert!(written("/registry/secrets"), "{metrics}");
    (written("/registry/leases"), on_disk(data_dir, "pulse"))
}

#[tokio::test]
async fn leases_reach_the_disk_only_when_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(lease_writes(dir.path(), &[]).await, (false, false));
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--durable-leases-and-events"];
    assert_eq!(lease_writes(dir.path(), &flags).await, (true, true));
}
