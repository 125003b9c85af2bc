//! Keeps a containerd running: adopts the one that an earlier process of ours left, starts one
//! when there is none, and starts it again when it ends.
//!
//! containerd stands in a process group of its own and outlives us, and its shims outlive it: a
//! crash of either stops no container.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use k8s_cri::v1::{ImageSpec, ImageStatusRequest};
use nix::sys::signal::Signal;
use tokio::{
    process::{Child, Command},
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Health, HealthWatch, Paths,
    health::ask,
    process::{self, Pidfd},
    settings::{Settings, Snapshotter, render},
};
use crate::{
    config::{Config, Managed, RuntimeSource},
    cri::Cri,
};

/// Between two looks at a healthy runtime, as upstream.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks at a runtime that is starting or whose network is not ready yet.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// For so long after a change the runtime is looked at often.
const SOON: Duration = Duration::from_secs(10);
/// A containerd that does not answer for longer after its start is started again.
const START_DEADLINE: Duration = Duration::from_secs(60);
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A containerd that ran for longer is started again at once.
const BACKOFF_RESET: Duration = Duration::from_secs(60);

/// Keeps the runtime of the node up, or only watches it when somebody else runs it.
pub struct Supervisor {
    source: RuntimeSource,
    paths: Paths,
    cni_plugin: Option<PathBuf>,
    cri: Cri,
    health: watch::Sender<Arc<Health>>,
    poke: Arc<Notify>,
}

enum Running {
    Started(Child),
    Adopted(Pidfd),
}

impl Running {
    async fn ended(&mut self) -> String {
        match self {
            Running::Started(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Running::Adopted(process) => match process.ended().await {
                Ok(()) => "it was not our child".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }

    fn pid(&self) -> Option<i32> {
        match self {
            Running::Started(child) => child.id().and_then(|pid| i32::try_from(pid).ok()),
            Running::Adopted(process) => Some(process.pid()),
        }
    }
}

impl Supervisor {
    pub fn new(config: &Config, cri: Cri) -> Self {
        Supervisor {
            source: config.runtime.clone(),
            paths: Paths::new(&config.data_dir),
            cni_plugin: config.cni_plugin.clone(),
            cri,
            health: watch::channel(Arc::new(Health::unknown())).0,
            poke: Arc::default(),
        }
    }

    /// What is known of the runtime from now on.
    pub fn health(&self) -> HealthWatch {
        HealthWatch(self.health.subscribe())
    }

    /// Wakes the supervisor up: something that the health depends on has changed.
    pub fn poke(&self) -> Arc<Notify> {
        self.poke.clone()
    }

    /// Runs until `shutdown`, and leaves the runtime running then.
    ///
    /// # Errors
    /// Only when the runtime cannot be set up at all; one that ends is started again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let supervised = async {
            match &self.source {
                RuntimeSource::Managed(managed) => self.supervise(managed).await,
                RuntimeSource::Endpoint(_) => Ok(()),
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = self.look() => Ok(()),
            Err(error) = supervised => Err(error),
        }
    }

    /// Keeps [`Health`] up to date; never returns.
    async fn look(&self) {
        let mut changed = Instant::now();
        let mut error = None;
        loop {
            let before = self.health.borrow().clone();
            let now = ask(&self.cri, &before).await;
            // A runtime that does not answer becomes an error only after a while.
            if now != *before || now.runtime_error() != error {
                changed = Instant::now();
                error = now.runtime_error();
                self.health.send_replace(Arc::new(now.clone()));
            }
            let settled = now.usable() && now.network_error().is_none();
            let wait = if settled || changed.elapsed() > SOON {
                LOOK
            } else {
                LOOK_SOON
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.poke.notified() => changed = Instant::now(),
            }
        }
    }

    async fn supervise(&self, managed: &Managed) -> Result<(), Error> {
        let changed = self.prepare(managed)?;
        let mut backoff = BACKOFF;
        let mut adopted = self.adopt(changed).await;
        loop {
            let started = Instant::now();
            let mut running = match adopted.take() {
                Some(running) => running,
                None => self.start(managed)?,
            };
            self.poke.notify_one();
            let pid = running.pid();
            let reason = tokio::select! {
                reason = running.ended() => reason,
                never = self.serve(managed, pid) => match never {},
            };
            tracing::warn!(%reason, "containerd ended, it is started again");
            self.poke.notify_one();
            if started.elapsed() > BACKOFF_RESET {
                backoff = BACKOFF;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// What has to be done beside a running containerd.
    async fn serve(&self, managed: &Managed, pid: Option<i32>) -> std::convert::Infallible {
        let started = Instant::now();
        let mut health = self.health();
        if tokio::time::timeout(START_DEADLINE, health.usable())
            .await
            .is_err()
            && let Some(pid) = pid
        {
            tracing::warn!(pid, "containerd does not answer, it is killed");
            if let Err(error) = process::signal(pid, Signal::SIGKILL) {
                tracing::warn!(pid, %error, "cannot kill containerd");
            }
        }
        tracing::info!(after = ?started.elapsed(), "containerd is ready");
        let mut backoff = BACKOFF;
        while let Err(error) = import_sandbox_image(&self.paths, managed, &self.cri).await {
            tracing::warn!(%error, "cannot provide the sandbox image, trying again");
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        std::future::pending().await
    }

    /// Makes directories and files. Tells whether the configuration differs from what a running
    /// containerd may have read.
    fn prepare(&self, managed: &Managed) -> Result<bool, Error> {
        let paths = &self.paths;
        discard_state_of_last_boot(paths)?;
        for directory in [
            paths.root(),
            paths.state(),
            paths.registries(),
            paths.cni_bin(),
            paths.cni_conf(),
        ] {
            write(&directory, fs::create_dir_all(&directory))?;
        }
        for file in [paths.log(), paths.pid_file()] {
            if let Some(directory) = file.parent() {
                write(directory, fs::create_dir_all(directory))?;
            }
        }
        if let Some(plugin) = &self.cni_plugin {
            // containerd runs the second to bring up each pod's loopback device.
            for name in ["coracle-cni", "loopback"] {
                link(plugin, &paths.cni_bin().join(name))?;
            }
        }
        let settings = Settings {
            sandbox_image: &managed.sandbox_image,
            snapshotter: snapshotter(),
            restrict_oom_score_adj: !has_cap_sys_resource(),
            unprivileged_ports: Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start").exists(),
        };
        let text = render(paths, &settings);
        let file = paths.settings();
        let changed = fs::read_to_string(&file).is_ok_and(|before| before != text);
        write(&file, fs::write(&file, text))?;
        Ok(changed)
    }

    /// The containerd of this data directory that already runs, if it does.
    async fn adopt(&self, changed: bool) -> Option<Running> {
        let settings = self.paths.settings();
        let pids = process::find(|line| process::is_containerd_with(line, &settings));
        if changed || pids.len() > 1 {
            for pid in pids {
                tracing::info!(pid, "the containerd that runs is replaced");
                if let Err(error) = process::end(pid, Duration::from_secs(10)).await {
                    tracing::warn!(pid, %error, "cannot end containerd");
                }
            }
            return None;
        }
        let pid = *pids.first()?;
        let process = Pidfd::open(pid).ok()?;
        tracing::info!(pid, "the containerd that runs is kept");
        Some(Running::Adopted(process))
    }

    fn start(&self, managed: &Managed) -> Result<Running, Error> {
        let program = process::resolve(&managed.containerd);
        let failed = |source| Error::Start {
            program: program.clone(),
            source,
        };
        rotate(&self.paths.log());
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.paths.log())
            .map_err(failed)?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(self.paths.settings())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        if let Some(pid) = child.id() {
            tracing::info!(pid, "containerd is starting");
            let file = self.paths.pid_file();
            write(&file, fs::write(&file, pid.to_string()))?;
        }
        Ok(Running::Started(child))
    }
}

fn write<T>(path: &Path, result: std::io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// Sockets and bundles of an earlier boot name processes and mounts that are no more.
fn discard_state_of_last_boot(paths: &Paths) -> Result<(), Error> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let file = paths.boot_id();
    let known = fs::read_to_string(&file).unwrap_or_default();
    if !known.is_empty() && known != boot_id {
        let state = paths.state();
        if state.exists() {
            write(&state, fs::remove_dir_all(&state))?;
        }
    }
    if let Some(directory) = file.parent() {
        write(directory, fs::create_dir_all(directory))?;
    }
    write(&file, fs::write(&file, boot_id))
}

fn link(target: &Path, link: &Path) -> Result<(), Error> {
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    if link.symlink_metadata().is_ok() {
        write(link, fs::remove_file(link))?;
    }
    write(link, std::os::unix::fs::symlink(target, link))
}

/// Keeps one log of an earlier run when the current one has grown large.
fn rotate(log: &Path) {
    const LARGE: u64 = 16 << 20;
    if fs::metadata(log).is_ok_and(|metadata| metadata.len() > LARGE)
        && let Err(error) = fs::rename(log, log.with_extension("log.1"))
    {
        tracing::warn!(%error, "cannot rotate the log of containerd");
    }
}

fn snapshotter() -> Snapshotter {
    let listed = || {
        fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .lines()
            .any(|line| line.trim_end().ends_with("\toverlay"))
    };
    // The file system is listed only once its module is loaded.
    let loaded = || {
        listed()
            || std::process::Command::new("modprobe")
                .arg("overlay")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success() && listed())
    };
    if loaded() {
        Snapshotter::Overlayfs
    } else {
        tracing::warn!("the kernel has no overlay file system: images are copied");
        Snapshotter::Native
    }
}

fn has_cap_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_SYS_RESOURCE) != 0)
}

/// Makes the sandbox image known to the runtime, from the archive that we carry.
async fn import_sandbox_image(paths: &Paths, managed: &Managed, cri: &Cri) -> Result<(), Error> {
    let image = &managed.sandbox_image;
    let failed = |reason: String| Error::Import {
        image: image.clone(),
        reason,
    };
    if image_known(cri, image).await.map_err(failed)? {
        return Ok(());
    }
    let program = process::resolve(&managed.ctr);
    let mut child = Command::new(&program)
        .arg("--address")
        .arg(paths.socket())
        .args(["--namespace", "k8s.io", "images", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Start { program, source })?;
    let archive = (managed.sandbox_archive)();
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // When it does not read to the end, its own error says why.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, &archive).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(reason));
    }
    // containerd tells its CRI service of new images in passing.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !image_known(cri, image).await.map_err(failed)? {
        if Instant::now() > deadline {
            return Err(failed("the runtime does not list it".to_owned()));
        }
        tokio::time::sleep(LOOK_SOON).await;
    }
    Ok(())
}

async fn image_known(cri: &Cri, image: &str) -> Result<bool, String> {
    let request = ImageStatusRequest {
        image: Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        }),
        verbose: false,
    };
    match cri.image.clone().image_status(request).await {
        Ok(response) => Ok(response.into_inner().image.is_some()),
        Err(status) => Err(status.message().to_owned()),
    }
}
