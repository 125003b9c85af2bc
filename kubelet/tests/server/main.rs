//! The node's endpoints between a real containerd and stock kubectl. Needs root, containerd and
//! kubectl; without them there is nothing to test.
//!
//! kubectl speaks to a stand-in for the API server that knows one pod and passes everything
//! else on to the node.

mod api;
mod node;
#[path = "../support/mod.rs"]
mod support;

use std::{process::Stdio, time::Duration};

use axum::{body::Body, extract::Request};
use coracle_transport::{Backend, Forwarder};
use k8s_cri::v1::StopContainerRequest;
use node::Node;
use serde_json::Value;
use support::{TakenDown, available, config};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_reaches_containers_by_spdy_and_by_websocket() {
    if !available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let _taken_down = TakenDown(config.clone());
    let node = Box::pin(Node::start(&config, directory.path())).await;
    for spdy in [false, true] {
        exit_codes_and_streams(&node, spdy).await;
        input_ends(&node, spdy).await;
        terminals(&node, spdy).await;
        errors(&node, spdy).await;
        ports(&node, spdy).await;
    }
    attach(&node).await;
    strangers(&node).await;
    logs(&node).await;
    node.shutdown.cancel();
}

async fn exit_codes_and_streams(node: &Node, spdy: bool) {
    let script = "echo out; echo err >&2; exit 7";
    let arguments = ["exec", "p", "-c", "c", "--", "sh", "-c", script];
    let output = node.output(spdy, &arguments, None).await;
    assert_eq!(text(&output.stdout), "out\n", "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr),
        "err\ncommand terminated with exit code 7\n"
    );
    assert_eq!(output.status.code(), Some(7));
}

async fn input_ends(node: &Node, spdy: bool) {
    let arguments = ["exec", "-i", "p", "-c", "c", "--", "cat"];
    let input = b"0123456789abcde\n".repeat(100_000);
    let output = node.output(spdy, &arguments, Some(&input)).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == input, "{} bytes", output.stdout.len());
}

/// `script` gives kubectl the terminal that it insists on.
async fn terminals(node: &Node, spdy: bool) {
    let websockets = if spdy { "false" } else { "true" };
    let kubectl = format!(
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS={websockets} kubectl --server http://{} exec -it p -c c -- sh -c 'until stty size 2>/dev/null | grep 33; do sleep 0.1; done; read line && echo got $line'",
        node.api
    );
    let mut child = Command::new("script")
        .env("KUBECONFIG", "/dev/null")
        .env("HOME", &node.directory)
        .args([
            "-qefc",
            &format!("stty rows 33 cols 77; {kubectl}"),
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"line\n").await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap();
    let shown = text(&output.unwrap().stdout);
    assert!(shown.contains("33 77"), "{shown}");
    assert!(shown.contains("got line"), "{shown}");
}

async fn errors(node: &Node, spdy: bool) {
    let arguments = ["exec", "p", "-c", "c", "--", "missing"];
    let output = node.output(spdy, &arguments, None).await;
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("error executing command in container: failed to exec in container"),
        "{stderr}"
    );
    assert!(
        stderr.contains("\"missing\": executable file not found in $PATH"),
        "{stderr}"
    );
    // From the kubelet itself, before anything is upgraded.
    let arguments = ["exec", "p", "-c", "none", "--", "true"];
    let output = node.output(spdy, &arguments, None).await;
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("container none not found in pod p")
            || stderr.contains("container not found (\"none\")"),
        "{stderr}"
    );
}

async fn ports(node: &Node, spdy: bool) {
    let remote = format!(":{}", node.port);
    let mut child = node
        .kubectl(spdy, &["port-forward", "p", &remote])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    let line = line.expect("kubectl says where it listens");
    let local = line
        .strip_prefix("Forwarding from ")
        .and_then(|line| line.split_once(" -> "))
        .unwrap_or_else(|| panic!("{line}"))
        .0;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(local).await.unwrap();
        stream
            .write_all(b"GET /passwd HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = text(&answer);
        assert!(
            answer.starts_with("HTTP/1.") && answer.contains("web:x:1000"),
            "{answer}"
        );
    }
    child.kill().await.unwrap();
}

async fn attach(node: &Node) {
    let arguments = ["attach", "-i", "p", "-c", "shell"];
    let input = b"echo attached $((40 + 2))\nexit 3\n";
    let output = node.output(false, &arguments, Some(input)).await;
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("attached 42"),
        "{stdout} {}",
        text(&output.stderr)
    );
}

async fn strangers(node: &Node) {
    let forwarder = Forwarder::new(CancellationToken::new());
    let get = async |backend: &Backend, path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = forwarder.forward(backend, request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        (status, text(&body.unwrap()))
    };
    assert_eq!(
        get(&node.stranger, "/pods").await,
        (401, "Unauthorized".to_owned())
    );
    assert_eq!(get(&node.backend, "/healthz").await, (200, "ok".to_owned()));
    let (status, pods) = get(&node.backend, "/runningpods/").await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(status, 200);
    assert_eq!(pods["kind"], "PodList");
    assert_eq!(pods["items"][0]["metadata"]["name"], "p");
    let (status, error) = get(&node.backend, "/containerLogs/default/p/c?previous=true").await;
    let expected = "previous terminated container \"c\" in pod \"p\" not found";
    assert_eq!((status, error.as_str()), (400, expected));
    let (status, error) = get(&node.backend, "/containerLogs/default/gone/c").await;
    assert_eq!(
        (status, error.as_str()),
        (404, "pod \"gone\" does not exist")
    );
    let (status, output) = get(&node.backend, "/exec/default/p/c?output=1&command=true").await;
    assert_eq!((status, output.as_str()), (500, "Upgrade request required"));
}

async fn logs(node: &Node) {
    let output = node.output(false, &["logs", "p", "-c", "c"], None).await;
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["started", "warned"]);
    let follow = node.output(false, &["logs", "-f", "--tail=1", "p", "-c", "c"], None);
    let stop = async {
        let container = node.host.0.lock().status.clone().unwrap();
        let container = container.container_statuses.unwrap().remove(0);
        let id = container.container_id.unwrap();
        let request = StopContainerRequest {
            container_id: id.trim_start_matches("containerd://").to_owned(),
            timeout: 0,
        };
        let mut runtime = node.cri.runtime.clone();
        runtime.stop_container(request).await.unwrap();
    };
    let (output, ()) = tokio::join!(follow, stop);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 1);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
