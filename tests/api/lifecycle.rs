//! A server's life: start, refusal of a second, SIGTERM, SIGKILL, damage.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Service},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::server::{PATIENCE, Server, binary, kubeconfig, log, spawn};

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": "value"}}))
        .expect("a ConfigMap")
}

#[tokio::test]
async fn a_new_cluster_has_what_upstream_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    let namespaces = namespaces.list(&ListParams::default()).await.unwrap();
    let names: Vec<String> = namespaces.iter().map(ResourceExt::name_any).collect();
    assert_eq!(
        names,
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
    let services: Api<Service> = Api::namespaced(server.client.clone(), "default");
    let service = services.get("kubernetes").await.unwrap();
    let address = service.spec.and_then(|spec| spec.cluster_ip);
    assert_eq!(address.as_deref(), Some("10.43.0.1"));
    let mode = kubeconfig(dir.path())
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_the_api_server_says_of_itself_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "kube-system");
    let trust = "extension-apiserver-authentication";
    let published = config_maps.get(trust).await.unwrap().data.unwrap();
    assert!(published["client-ca-file"].starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(
        published["requestheader-allowed-names"],
        r#"["front-proxy-client"]"#
    );
    let services: Api<Service> = Api::namespaced(server.client.clone(), "default");
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    gone(&config_maps, trust).await;
    gone(&services, "kubernetes").await;
    gone(&namespaces, "kube-node-lease").await;
    let again = async {
        while config_maps.get(trust).await.is_err()
            || services.get("kubernetes").await.is_err()
            || namespaces.get("kube-node-lease").await.is_err()
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, again).await;
    in_time.expect("all three are there again");
    assert_eq!(
        config_maps.get(trust).await.unwrap().data.unwrap(),
        published
    );
    let leases: Api<Lease> = Api::namespaced(server.client.clone(), "kube-system");
    let of_servers = ListParams::default().labels("apiserver.kubernetes.io/identity");
    assert_eq!(leases.list(&of_servers).await.unwrap().items.len(), 1);
}

async fn gone<K>(api: &Api<K>, name: &str)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let deleted = api.delete(name, &DeleteParams::default()).await;
    deleted.unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[tokio::test]
async fn a_kubeconfig_may_be_a_bare_file_name() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--write-kubeconfig", "kubeconfig.yaml"];
    let mut server = std::process::Command::new(binary())
        .current_dir(dir.path())
        .args(["server", "--config", "/dev/null", "--disable-agent"])
        .args(["--https-listen-port", "0", "--data-dir", "data"])
        .args(flags)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let written = async {
        while !dir.path().join("kubeconfig.yaml").exists() {
            assert!(server.try_wait().unwrap().is_none(), "the server has ended");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, written).await;
    server.kill().unwrap();
    server.wait().unwrap();
    in_time.expect("the kubeconfig is written");
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let mut second = std::process::Command::new(binary())
        .args([
            "server",
            "--disable-agent",
            "--https-listen-port",
            "0",
            "--data-dir",
        ])
        .arg(dir.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let status = second.wait().unwrap();
    let mut message = String::new();
    std::io::Read::read_to_string(&mut second.stderr.take().unwrap(), &mut message).unwrap();
    assert!(!status.success());
    assert!(
        message.contains(&format!(
            "another coracle (process {}) is running on",
            server.pid()
        )),
        "{message}"
    );
}

#[tokio::test]
async fn bad_flags_and_files_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    std::fs::write(&config, "no-such-flag: 1\n").unwrap();
    let config = config.to_str().unwrap();
    for (flags, expected) in [
        (
            vec!["--cluster-dns", "192.0.2.1"],
            "is not within --service-cidr",
        ),
        (
            vec!["--service-cidr", "nonsense"],
            "invalid value 'nonsense' for '--service-cidr",
        ),
        (
            vec!["--datastore-endpoint", "ftp://x"],
            "--datastore-endpoint ftp://x is not supported",
        ),
        (
            vec!["--config", config],
            "unexpected argument '--no-such-flag'",
        ),
        (
            vec!["--config", "/no/such/file"],
            "cannot read the configuration file /no/such/file",
        ),
    ] {
        let output = std::process::Command::new(binary())
            .args([
                "server",
                "--disable-agent",
                "--https-listen-port",
                "0",
                "--data-dir",
            ])
            .arg(dir.path())
            .args(&flags)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && message.contains(expected),
            "{flags:?}: {message}"
        );
    }
}

#[tokio::test]
async fn objects_outlive_sigterm_and_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[]).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    api.create(&PostParams::default(), &config_map("first"))
        .await
        .unwrap();
    server.terminate();

    let server = Server::start_with(dir.path(), &[]).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let first = api.get("first").await.unwrap();
    let second = api
        .create(&PostParams::default(), &config_map("second"))
        .await
        .unwrap();
    let version = |object: &ConfigMap| object.resource_version().unwrap().parse::<u64>().unwrap();
    assert!(version(&second) > version(&first), "revisions go on");
    server.kill();

    let server = Server::start_with(dir.path(), &[]).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    assert_eq!(
        api.get("second").await.unwrap().resource_version(),
        second.resource_version()
    );
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_to_kills_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..5 {
        let server = Server::start_with(dir.path(), &[]).await;
        let over = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(Semaphore::new(0));
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
                let (over, writes) = (over.clone(), writes.clone());
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    for number in 0.. {
                        let name = format!("r{round}-w{writer}-{number}");
                        match api.create(&PostParams::default(), &config_map(&name)).await {
                            Ok(_) => {
                                written.push(name);
                                writes.add_permits(1);
                            }
                            Err(_) if over.load(Ordering::Relaxed) => break,
                            Err(error) => panic!("{name}: {error}"),
                        }
                    }
                    written
                })
            })
            .collect();
        let enough = writes.acquire_many(20 + 17 * round);
        let enough = tokio::time::timeout(PATIENCE, enough).await;
        let _ = enough.expect("there are writes").expect("it stays open");
        over.store(true, Ordering::Relaxed);
        server.kill();
        for writer in writers {
            acknowledged.append(&mut writer.await.unwrap());
        }
    }
    let server = Server::start_with(dir.path(), &[]).await;
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let kept: std::collections::BTreeSet<String> = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let lost: Vec<&String> = acknowledged
        .iter()
        .filter(|name| !kept.contains(*name))
        .collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", acknowledged.len());
}

#[tokio::test]
async fn a_damaged_database_is_said_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Server::start_with(dir.path(), &[]).await.terminate();
    let database = dir.path().join("server/db/state.db");
    std::fs::write(
        &database,
        "this is no database, it is a sentence of some length",
    )
    .unwrap();
    let status = spawn(dir.path(), &[]).wait().unwrap();
    assert!(!status.success());
    assert!(
        log(dir.path()).contains("is damaged"),
        "{}",
        log(dir.path())
    );
    assert!(
        std::fs::read(&database)
            .unwrap()
            .starts_with(b"this is no database")
    );
}
