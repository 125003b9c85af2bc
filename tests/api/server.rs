//! An API server for one test.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long anything may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `coracle server --disable-agent`. Killed when dropped.
pub struct Server {
    process: Process,
    data_dir: PathBuf,
    pub client: Client,
}

impl Server {
    /// With its store in memory, in a folder of its own.
    pub async fn start(data_dir: &Path) -> Server {
        Server::start_with(data_dir, &["--datastore-endpoint", "memory://"]).await
    }

    /// With these flags too. Returns when the API answers.
    pub async fn start_with(data_dir: &Path, flags: &[&str]) -> Server {
        let process = Process(spawn(data_dir, flags));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(client) = connect(data_dir).await {
                return Server {
                    process,
                    data_dir: data_dir.to_owned(),
                    client,
                };
            }
            assert!(
                Instant::now() < deadline,
                "the API does not answer: {}",
                log(data_dir)
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Ends the process with SIGKILL.
    pub fn kill(mut self) {
        self.process.0.kill().expect("the server can be killed");
        self.process.0.wait().expect("the server ends");
    }

    /// Ends the process with SIGTERM; its exit must be clean.
    pub fn terminate(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the server runs");
        let status = self.process.0.wait().expect("the server ends");
        assert!(status.success(), "{status}: {}", log(&self.data_dir));
    }
}

/// Starts the process without waiting for it.
pub fn spawn(data_dir: &Path, flags: &[&str]) -> Child {
    // A server that a killed one leaves its folder to must not be taken for it.
    let _ = std::fs::remove_file(kubeconfig(data_dir));
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(data_dir.join("server.log"))
        .expect("the log can be opened");
    Command::new(binary())
        .args([
            "server",
            "--disable-agent",
            "--config",
            "/dev/null",
            "--bind-address",
            "127.0.0.1",
        ])
        .args(["--https-listen-port", "0", "--data-dir"])
        .arg(data_dir)
        .args(flags)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the server can be started")
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_coracle")
}

pub fn kubeconfig(data_dir: &Path) -> PathBuf {
    data_dir.join("kubeconfig.yaml")
}

pub fn log(data_dir: &Path) -> String {
    std::fs::read_to_string(data_dir.join("server.log")).unwrap_or_default()
}

async fn connect(data_dir: &Path) -> Option<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig(data_dir)).ok()?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .ok()?;
    let client = Client::try_from(config).ok()?;
    client.apiserver_version().await.ok()?;
    Some(client)
}
