//! Two servers on one etcd.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use coracle_api::codec::protobuf;
use coracle_store::{EtcdConfig, EtcdStore, Store as _, Transaction, Write};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, TokenRequest},
    core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::server::{PATIENCE, Server, kubeconfig};

/// An etcd; ends with this.
pub struct Etcd {
    process: Child,
    pub urls: [String; 2],
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    /// `None` when there is no etcd on the PATH; that has been printed.
    pub fn start(folder: &Path) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            println!("skipped: there is no etcd on the PATH");
            return None;
        }
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("an address")
        };
        let urls = [free(), free()].map(|address| format!("http://{address}"));
        let process = spawn(folder, &urls);
        Some(Etcd { process, urls })
    }

    fn restart(&mut self, folder: &Path) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn(folder, &self.urls);
    }
}

fn spawn(folder: &Path, [client, peer]: &[String; 2]) -> Child {
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args([
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
            client,
        ])
        .args([
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
        ])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": value}}))
        .expect("a ConfigMap")
}

#[tokio::test]
async fn two_servers_on_one_etcd_are_one_cluster() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [data, one, two] = folders.each_ref().map(tempfile::TempDir::path);
    let Some(mut etcd) = Etcd::start(data) else {
        return;
    };
    let file = data.join("encryption.yaml");
    std::fs::write(
        &file,
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: [{aesgcm: {keys: [{name: k, secret: YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=}]}}]\n",
    )
    .unwrap();
    let flags = [
        "--datastore-endpoint",
        &etcd.urls[0],
        "--encryption-provider-config",
        file.to_str().unwrap(),
        "--disable=controllers,scheduler",
        "--token=secret",
    ];
    wait_for(&etcd.urls[0]).await;
    let (first, second) = tokio::join!(
        Server::start_with(one, &flags),
        Server::start_with(two, &flags)
    );
    one_authority(&first, &second, two).await;
    refuses_another_token(&etcd.urls[0]);
    let [here, there]: [Api<ConfigMap>; 2] =
        [&first, &second].map(|server| Api::namespaced(server.client.clone(), "default"));
    let parameters = WatchParams::default().labels("!other");
    let mut events = there.watch(&parameters, "0").await.unwrap().boxed();
    // Whatever one has acknowledged, the other reads at once.
    for index in 0..50 {
        let name = format!("c{index}");
        here.create(&PostParams::default(), &config_map(&name, "1"))
            .await
            .unwrap();
        let read = there.get(&name).await.unwrap();
        let changed = ConfigMap {
            data: config_map(&name, "2").data,
            ..read
        };
        let replaced = there.replace(&name, &PostParams::default(), &changed).await;
        let version = replaced.unwrap().resource_version();
        assert_eq!(here.get(&name).await.unwrap().resource_version(), version);
    }
    let ours = |list: Vec<ConfigMap>| {
        let names = list.iter().map(kube::ResourceExt::name_any);
        names.filter(|name| name.starts_with('c')).count()
    };
    assert_eq!(
        ours(there.list(&ListParams::default()).await.unwrap().items),
        50
    );
    for kind in ["added", "modified"] {
        expect(&mut events, kind, "c0").await;
    }
    let secrets: Api<Secret> = Api::namespaced(first.client.clone(), "default");
    let secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}));
    secrets
        .create(&PostParams::default(), &secret.unwrap())
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::namespaced(second.client.clone(), "default");
    assert_eq!(secrets.get("s").await.unwrap().data.unwrap()["a"].0, b"b");
    // After a restart of etcd both go on, and so do their watches.
    etcd.restart(data);
    let deadline = std::time::Instant::now() + PATIENCE;
    while here
        .create(&PostParams::default(), &config_map("last", "1"))
        .await
        .is_err()
    {
        if here.get("last").await.is_ok() {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "etcd does not come back"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    expect(&mut events, "added", "last").await;
    assert!(there.get("last").await.is_ok());
}

#[tokio::test]
async fn a_cluster_of_upstream_goes_on_here() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [data, server] = folders.each_ref().map(tempfile::TempDir::path);
    let Some(etcd) = Etcd::start(data) else {
        return;
    };
    wait_for(&etcd.urls[0]).await;
    let config = EtcdConfig::new(vec![etcd.urls[0].clone()]);
    let store = EtcdStore::connect(&config).await.unwrap();
    let key = "/registry/configmaps/default/c";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "kube-system", "uid": "system"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default", "uid": "u"}, "data": {"key": "1"}});
    for (key, object) in [("/registry/namespaces/kube-system", namespace), (key, map)] {
        let value = protobuf::from_json(object.to_string().as_bytes()).unwrap();
        let write = Write::Put {
            key: key.into(),
            value: value.into(),
        };
        let transaction = Transaction {
            compares: Vec::new(),
            writes: vec![write],
            ..Transaction::default()
        };
        store.commit(transaction).await.unwrap();
    }
    let flags = [
        "--datastore-endpoint",
        &etcd.urls[0],
        "--disable=controllers,scheduler",
    ];
    let server = Server::start_with(server, &flags).await;
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    let system = namespaces.get("kube-system").await.unwrap();
    assert_eq!(system.uid().as_deref(), Some("system"));
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let mut map = maps.get("c").await.unwrap();
    map.data = config_map("c", "2").data;
    let replaced = maps.replace("c", &PostParams::default(), &map).await;
    assert_eq!(replaced.unwrap().uid().as_deref(), Some("u"));
    let stored = store.get(key).await.unwrap().unwrap().value.clone();
    assert!(stored.starts_with(b"{"), "{stored:?}");
}

/// A client of the first that trusts the first's authority reaches the second, and a token of the
/// first is good there.
async fn one_authority(first: &Server, second: &Server, second_folder: &Path) {
    let read = |server: &Server| {
        let kubeconfig = Kubeconfig::read_from(kubeconfig(server.data_dir()));
        kubeconfig.expect("a kubeconfig")
    };
    let (mut config, other) = (read(first), read(second));
    let cluster = |config: &Kubeconfig| config.clusters[0].cluster.clone().expect("a cluster");
    let server = cluster(&other).server;
    config.clusters[0]
        .cluster
        .as_mut()
        .expect("a cluster")
        .server = server;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options).await;
    let mut config = config.expect("a configuration");
    let client = Client::try_from(config.clone()).expect("a client");
    client
        .apiserver_version()
        .await
        .expect("the second trusts the first's client");

    let accounts: Api<ServiceAccount> = Api::namespaced(first.client.clone(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "robot"}}));
    let account = accounts
        .create(&PostParams::default(), &account.expect("an account"))
        .await;
    account.expect("it is created");
    let request = TokenRequest::default();
    let token = accounts
        .create_token_request("robot", &PostParams::default(), &request)
        .await;
    let token = token.expect("a token").status.expect("it was issued").token;
    config.auth_info = AuthInfo {
        token: Some(token.expect("a token").into()),
        ..AuthInfo::default()
    };
    let client = Client::try_from(config).expect("a client");
    let review = SelfSubjectReview::default();
    let review = Api::<SelfSubjectReview>::all(client)
        .create(&PostParams::default(), &review)
        .await;
    let user = review
        .expect("the token is good")
        .status
        .and_then(|status| status.user_info);
    let name = user.and_then(|user| user.username);
    assert_eq!(name.as_deref(), Some("system:serviceaccount:default:robot"));
    let kept = std::fs::read_to_string(second_folder.join("server/token"));
    assert_eq!(kept.expect("the token is kept"), "secret\n");
}

fn refuses_another_token(etcd: &str) {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--datastore-endpoint", etcd, "--token=guess"];
    let mut process = crate::server::spawn(folder.path(), &flags);
    assert!(!process.wait().expect("it ends").success());
    let log = crate::server::log(folder.path());
    assert!(
        log.contains("belongs to a cluster with another token"),
        "{log}"
    );
}

type Events<'a> = futures::stream::BoxStream<'a, kube::Result<WatchEvent<ConfigMap>>>;

/// Reads up to this event.
async fn expect(events: &mut Events<'_>, kind: &str, name: &str) {
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.try_next().await.expect("the watch goes on") {
            let (seen, object) = match event {
                WatchEvent::Added(object) => ("added", object),
                WatchEvent::Modified(object) => ("modified", object),
                _ => continue,
            };
            if seen == kind && object.name_any() == name {
                return;
            }
        }
        panic!("the watch ended");
    });
    found.await.expect("the event comes in time");
}

pub async fn wait_for(url: &str) {
    let address = url.trim_start_matches("http://");
    let deadline = std::time::Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "etcd does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
