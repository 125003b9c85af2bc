//! The supervisor and a real containerd. Needs root and the containerd of the machine; without
//! them there is nothing to test.

use std::time::Duration;

mod support;

use coracle_kubelet::{
    Config,
    cri::Cri,
    runtime::{HealthWatch, Paths, Supervisor, stop_all},
};
use support::{TakenDown, available, config};
use tokio_util::sync::CancellationToken;

struct Run {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    health: HealthWatch,
}

impl Run {
    async fn start(config: &Config) -> Self {
        let supervisor = Supervisor::new(config, Cri::new(&config.runtime_socket()));
        let mut health = supervisor.health();
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        let task = tokio::spawn(async move {
            supervisor.run(until).await.expect("it can be set up");
        });
        tokio::time::timeout(Duration::from_secs(30), health.usable())
            .await
            .expect("containerd gets ready");
        Run {
            shutdown,
            task,
            health,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("it ends");
    }
}

fn pid(config: &Config) -> i32 {
    let file = Paths::new(&config.data_dir).pid_file();
    let text = std::fs::read_to_string(file).expect("there is a pid file");
    text.parse().expect("it holds a number")
}

#[tokio::test]
async fn containerd_is_kept_over_a_restart_of_ours_and_restarted_when_killed() {
    if !available() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path());
    let _taken_down = TakenDown(config.clone());
    let run = Run::start(&config).await;
    assert_eq!(run.health.get().name, "containerd");
    let first = pid(&config);
    run.stop().await;

    let mut run = Run::start(&config).await;
    assert_eq!(pid(&config), first, "the running containerd is adopted");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(first),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it is killed");
    let again = async {
        while pid(&config) == first {
            run.health.changed().await;
        }
        run.health.usable().await;
    };
    tokio::time::timeout(Duration::from_secs(30), again)
        .await
        .expect("containerd is started again");
    let second = pid(&config);
    run.stop().await;
    assert_eq!(stop_all(&config).await, Vec::<String>::new());
    // A child that nobody has waited for yet has no command line any more.
    let line = std::fs::read(format!("/proc/{second}/cmdline"));
    assert!(line.unwrap_or_default().is_empty(), "containerd has ended");
}
