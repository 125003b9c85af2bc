//! A cluster for tests: `coracle server` in a network namespace of its own, so that it can stand
//! beside another cluster on this machine, with a data directory of its own.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The image that all pods of the tests run: busybox.
pub const IMAGE: &str = "docker.io/library/busybox:1.0";
/// The same with another `VERSION` in its environment.
pub const IMAGE_2: &str = "docker.io/library/busybox:2.0";

/// How long anything that should happen may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running cluster. Stopped, with all traces of it removed, when dropped.
pub struct Cluster {
    name: String,
    data_dir: PathBuf,
    /// The server's process, while it runs: nsenter replaces itself with the program it runs.
    pub server: Option<Child>,
}

impl Cluster {
    /// The cluster that tests share. Started by the first that asks, stopped at exit.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        extern "C" fn stop() {
            if let Some(cluster) = SHARED.get() {
                cluster.stop();
            }
        }
        SHARED.get_or_init(|| {
            let cluster = Cluster::start("shared");
            // SAFETY: `stop` is a plain function without arguments that does not unwind out of
            // the handler in any way that matters: the process is ending.
            unsafe { libc::atexit(stop) };
            cluster
        })
    }

    /// Starts a cluster of this name and waits until its node is Ready. What an earlier run under
    /// the same name left behind is removed first.
    pub fn start(name: &str) -> Cluster {
        let mut cluster = Cluster::prepare(name);
        cluster.spawn_server();
        cluster.wait_ready();
        cluster.import_images();
        cluster
    }

    /// A cluster whose server was not started yet.
    pub fn prepare(name: &str) -> Cluster {
        let cluster = Cluster {
            name: format!("coracle-{name}"),
            data_dir: std::env::temp_dir().join(format!("coracle-e2e-{name}")),
            server: None,
        };
        cluster.stop();
        cluster.make_network();
        std::fs::create_dir_all(&cluster.data_dir).expect("the data directory can be created");
        cluster
    }

    /// An `eth0` with a default route to nowhere: all that the node needs to have an address.
    fn make_network(&self) {
        let ns = &self.name;
        run("ip", ["netns", "add", ns]);
        run("ip", ["-n", ns, "link", "set", "lo", "up"]);
        self.plug_in();
    }

    /// Gives the host its network.
    pub fn plug_in(&self) {
        for line in [
            "link add eth0 type veth peer name outside",
            "link set outside up",
            "addr add 192.0.2.10/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.0.2.1 dev eth0",
        ] {
            let ns = ["-n", &self.name];
            run("ip", ns.into_iter().chain(line.split(' ')));
        }
    }

    /// Takes the host's network away.
    pub fn unplug(&self) {
        run("ip", ["-n", &self.name, "link", "delete", "eth0"]);
    }

    /// Starts the server process; its log is `server.log` in the data directory.
    pub fn spawn_server(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("the log can be opened");
        let server = self
            .command(binary())
            .args([
                "server",
                "-v",
                "--config",
                "/dev/null",
                "--node-name",
                "node-1",
                "--horizontal-pod-autoscaler-sync-period",
                "3s",
                "--data-dir",
            ])
            .arg(&self.data_dir)
            .stdout(log.try_clone().expect("the log can be shared"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("the server can be started");
        self.server = Some(server);
    }

    /// Waits until the node is Ready.
    pub fn wait_ready(&self) {
        let status = self
            .command(binary())
            .args(["status", "--wait", "60s", "--data-dir"])
            .arg(&self.data_dir)
            .output()
            .expect("coracle status runs");
        assert!(
            status.status.success(),
            "the node is not Ready: {}\n{}",
            String::from_utf8_lossy(&status.stderr),
            self.log_tail()
        );
    }

    fn import_images(&self) {
        for (image, version) in [(IMAGE, "1.0"), (IMAGE_2, "2.0")] {
            self.import_image(image, version);
        }
    }

    /// Writes a busybox image of this name and loads it.
    pub fn import_image(&self, image: &str, version: &str) {
        self.import(image, version, None);
    }

    /// The same for an image whose containers run this file, which stands below `tests/e2e`.
    pub fn import_stand_in(&self, image: &str, version: &str, script: &str) {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
        self.import(image, version, Some(&tests.join(script)));
    }

    fn import(&self, image: &str, version: &str, script: Option<&Path>) {
        let name = image.replace(['/', ':'], "-");
        let file = self.data_dir.join(format!("image-{name}.tar"));
        let maker = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/examples/hello/image.sh");
        let mut arguments = vec![OsStr::new(image), file.as_os_str(), OsStr::new(version)];
        arguments.extend(script.map(Path::as_os_str));
        run(maker, arguments);
        let imported = self
            .command(binary())
            .args(["images", "import", "--data-dir"])
            .arg(&self.data_dir)
            .arg(&file)
            .output()
            .expect("coracle images import runs");
        assert!(
            imported.status.success(),
            "{}",
            String::from_utf8_lossy(&imported.stderr)
        );
        std::fs::remove_file(file).expect("the archive can be removed");
    }

    /// A command that runs in the cluster's network namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.network().display()))
            .arg("--")
            .arg(program)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &self.data_dir);
        command
    }

    /// `kubectl` with these arguments, split at white space, ready to be changed and run.
    pub fn kubectl_command(&self, arguments: &str) -> Command {
        let mut command = self.command("kubectl");
        command.args(arguments.split_whitespace());
        command
    }

    /// `kubectl` that is ended, and so fails, when it takes far too long.
    pub fn bounded(&self, arguments: &str) -> Command {
        let mut command = self.command("timeout");
        let limit = PATIENCE + Duration::from_secs(30);
        command.args([&limit.as_secs().to_string(), "kubectl"]);
        command.args(arguments.split_whitespace());
        command
    }

    /// What `kubectl` prints; it must succeed.
    pub fn kubectl(&self, arguments: &str) -> String {
        let output = self.bounded(arguments).output().expect("kubectl runs");
        self.expect_success(arguments, &output)
    }

    /// What comes on a terminal at which `kubectl` with these arguments, split by a shell, is
    /// run and this is typed; it must succeed.
    pub fn at_terminal(&self, arguments: &str, typed: &str) -> String {
        let mut command = self.command("timeout");
        command.args([&PATIENCE.as_secs().to_string(), "script", "-qec"]);
        command.arg(format!("kubectl {arguments}")).arg("/dev/null");
        self.with_open_input(command, arguments, typed)
    }

    /// What `kubectl` prints when given this on a pipe that stays open; it must end by itself
    /// and succeed.
    pub fn kubectl_with_open(&self, arguments: &str, input: &str) -> String {
        self.with_open_input(self.bounded(arguments), arguments, input)
    }

    fn with_open_input(&self, mut command: Command, arguments: &str, input: &str) -> String {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        stdin
            .write_all(input.as_bytes())
            .expect("kubectl reads its input");
        let output = child.wait_with_output().expect("kubectl ends");
        drop(stdin);
        self.expect_success(arguments, &output)
    }

    /// What `kubectl` prints when given this on its standard input; it must succeed.
    pub fn kubectl_with(&self, arguments: &str, input: &str) -> String {
        let mut child = self
            .bounded(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child
            .stdin
            .take()
            .expect("standard input is a pipe")
            .write_all(input.as_bytes())
            .expect("kubectl reads its input");
        let output = child.wait_with_output().expect("kubectl ends");
        self.expect_success(arguments, &output)
    }

    /// What `kubectl` prints to standard error; it must fail.
    pub fn kubectl_fails(&self, arguments: &str) -> String {
        let output = self.bounded(arguments).output().expect("kubectl runs");
        assert!(!output.status.success(), "kubectl {arguments} should fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn expect_success(&self, arguments: &str, output: &Output) -> String {
        assert!(
            output.status.success(),
            "kubectl {arguments}: {}\n{}{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log_tail()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Repeats `kubectl` until what it prints satisfies `wanted`.
    pub fn eventually(&self, arguments: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.bounded(arguments).output().expect("kubectl runs");
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && wanted(&printed) {
                return printed;
            }
            assert!(
                Instant::now() < deadline,
                "kubectl {arguments} still prints: {printed}{}\n{}",
                String::from_utf8_lossy(&output.stderr),
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A namespace of the test's own, deleted with all in it when dropped.
    pub fn namespace(&self) -> Namespace<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&format!("create namespace {name}"));
        Namespace {
            cluster: self,
            name,
        }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig.yaml")
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The file that stands for the cluster's network namespace.
    pub fn network(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Kills the server with SIGKILL and waits until it is gone.
    pub fn kill_server(&mut self) {
        let mut server = self.server.take().expect("the server was started");
        server.kill().expect("the server can be killed");
        server.wait().expect("the server ends");
    }

    fn log(&self) -> PathBuf {
        self.data_dir.join("server.log")
    }

    /// The end of the server's log, for messages.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Stops the cluster, if it runs, and removes every trace of it.
    pub fn stop(&self) {
        if self.network().exists() {
            let stopped = self
                .command(binary())
                .args(["stop", "--remove-data", "--data-dir"])
                .arg(&self.data_dir)
                .output()
                .expect("coracle stop runs");
            if !stopped.status.success() {
                eprintln!("coracle stop: {}", String::from_utf8_lossy(&stopped.stderr));
            }
            run("ip", ["netns", "delete", &self.name]);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        self.stop();
        if let Some(server) = &mut self.server {
            let _ = server.wait();
        }
    }
}

/// A namespace that one test has for itself.
pub struct Namespace<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Namespace<'_> {
    /// `kubectl -n NAMESPACE …`; it must succeed.
    pub fn kubectl(&self, arguments: &str) -> String {
        self.cluster.kubectl(&self.scoped(arguments))
    }

    /// `kubectl -n NAMESPACE apply -f -`
    pub fn apply(&self, manifest: &str) -> String {
        self.cluster
            .kubectl_with(&self.scoped("apply -f -"), manifest)
    }

    /// See [`Cluster::eventually`].
    pub fn eventually(&self, arguments: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.cluster.eventually(&self.scoped(arguments), wanted)
    }

    /// See [`Cluster::kubectl_fails`].
    pub fn kubectl_fails(&self, arguments: &str) -> String {
        self.cluster.kubectl_fails(&self.scoped(arguments))
    }

    pub fn scoped(&self, arguments: &str) -> String {
        format!("-n {} {arguments}", self.name)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = self
            .cluster
            .kubectl_command(&format!("delete namespace {} --wait=false", self.name))
            .output();
    }
}

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_coracle"))
}

fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) {
    let output = Command::new(program.as_ref())
        .args(arguments)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .output()
        .expect("the program runs");
    assert!(
        output.status.success(),
        "{:?}: {}",
        program.as_ref(),
        String::from_utf8_lossy(&output.stderr)
    );
}
