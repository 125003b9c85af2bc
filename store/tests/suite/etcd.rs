//! A real etcd for the suite, and what the store promises about it beyond the trait.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Instant,
};

use coracle_store::{Error, EtcdConfig, EtcdStore, Revision, Store, Transaction, Write};

use crate::fixture::{DEADLINE, events_until, put};

/// An etcd with its data in a temporary directory; ends with this.
pub struct Server {
    process: Child,
    client: SocketAddr,
    peer: SocketAddr,
    directory: tempfile::TempDir,
}

impl Server {
    /// `None` when there is no etcd on the PATH; that has been printed.
    pub fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            println!("skipped: there is no etcd on the PATH");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (client, peer) = (free_address(), free_address());
        let process = spawn(directory.path(), client, peer);
        Some(Server {
            process,
            client,
            peer,
            directory,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.client
    }

    pub fn config(&self) -> EtcdConfig {
        EtcdConfig::new(vec![format!("http://{}", self.client)])
    }

    /// A store, once the server answers.
    pub async fn connect(&self) -> EtcdStore {
        let started = Instant::now();
        loop {
            match EtcdStore::connect(&self.config()).await {
                Ok(store) => return store,
                Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
            }
        }
    }

    /// Kills the server and starts it again on the same data.
    fn restart(&mut self) {
        self.stop();
        self.process = spawn(self.directory.path(), self.client, self.peer);
    }

    fn stop(&mut self) {
        self.process.kill().expect("etcd is killed");
        self.process.wait().expect("etcd has ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

fn spawn(directory: &std::path::Path, client: SocketAddr, peer: SocketAddr) -> Child {
    let url = |address: SocketAddr| format!("http://{address}");
    Command::new("etcd")
        .arg("--data-dir")
        .arg(directory)
        .args(["--listen-client-urls", &url(client)])
        .args(["--advertise-client-urls", &url(client)])
        .args(["--listen-peer-urls", &url(peer)])
        .args(["--initial-advertise-peer-urls", &url(peer)])
        .args(["--initial-cluster", &format!("default={}", url(peer))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts")
}

/// Drops the history before `revision`, through etcd's JSON gateway.
pub fn compact(address: SocketAddr, revision: Revision) {
    let body = format!("{{\"revision\": \"{revision}\"}}");
    let mut connection = TcpStream::connect(address).expect("a connection");
    let length = body.len();
    write!(
        connection,
        "POST /v3/kv/compaction HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("a request");
    let mut response = String::new();
    connection
        .read_to_string(&mut response)
        .expect("a response");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_named() {
    let config = EtcdConfig::new(vec!["http://127.0.0.1:1".to_owned()]);
    let error = EtcdStore::connect(&config)
        .await
        .err()
        .expect("nobody is there");
    assert!(matches!(error, Error::Backend(_)), "{error}");
}

#[tokio::test]
async fn a_watch_survives_a_restart_of_etcd() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let store = server.connect().await;
    let start = put(&store, "/k", "1").await;
    let mut watch = store.watch("/", start).await.expect("a watch");
    let seen = put(&store, "/k", "2").await;
    assert_eq!(events_until(&mut watch, seen).await.len(), 1);
    server.restart();
    let started = Instant::now();
    let last = loop {
        let transaction = Transaction {
            compares: Vec::new(),
            writes: vec![Write::Put {
                key: "/after".into(),
                value: "3".into(),
            }],
            ..Transaction::default()
        };
        match store.commit(transaction).await {
            Ok(revision) => break revision,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(!events_until(&mut watch, last).await.is_empty());
}

#[tokio::test]
async fn history_is_compacted_in_turns() {
    let Some(server) = Server::start() else {
        return;
    };
    server.connect().await.close().await;
    let config = EtcdConfig {
        compact_every: std::time::Duration::from_millis(20),
        ..server.config()
    };
    let store = EtcdStore::connect(&config).await.expect("a store");
    let other = EtcdStore::connect(&config).await.expect("another store");
    assert!(store.size().await.is_some_and(|bytes| bytes > 0));
    let past = put(&store, "/k", "1").await;
    put(&store, "/k", "2").await;
    let started = Instant::now();
    loop {
        put(&other, "/k", "3").await;
        match store.watch("/", past).await.map(drop) {
            Err(Error::Compacted { requested, .. }) => break assert_eq!(requested, past),
            outcome => assert!(outcome.is_ok() && started.elapsed() < DEADLINE),
        }
    }
}
