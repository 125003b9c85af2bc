//! Flags about who is let in and what is told of it.

use kube::{Client, Config};
use serde_json::Value;

use crate::server::Server;

/// A client of the same server with another credential, or with none.
async fn with_token(server: &Server, data_dir: &std::path::Path, token: Option<&str>) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(crate::server::kubeconfig(data_dir));
    let options = kube::config::KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig.expect("a kubeconfig"), &options).await;
    let mut config = config.expect("a configuration");
    config.auth_info = kube::config::AuthInfo {
        token: token.map(|token| token.to_owned().into()),
        ..kube::config::AuthInfo::default()
    };
    // The server is the one that the test holds.
    assert!(server.pid() > 0);
    Client::try_from(config).expect("a client")
}

async fn get(client: &Client, path: &str) -> u16 {
    let request = http::Request::get(path)
        .body(Vec::new())
        .expect("a request");
    match client.request_text(request).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{path}: {error}"),
    }
}

#[tokio::test]
async fn tokens_and_strangers_are_let_in_where_the_files_say_and_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tokens = file("tokens.csv", "sesame,ali,7,\"system:masters\"\n");
    let policy = file(
        "policy.yaml",
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- {level: Metadata, users: [ali]}\n",
    );
    let anonymous = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: [{path: /livez}]}\n";
    let authentication = file("authentication.yaml", anonymous);
    let log = dir.path().join("audit.log");
    let flags = [
        "--datastore-endpoint=memory://",
        &format!("--token-auth-file={tokens}"),
        &format!("--authentication-config={authentication}"),
        &format!("--audit-policy-file={policy}"),
        &format!("--audit-log-path={}", log.display()),
    ];
    let server = Server::start_with(dir.path(), &flags).await;
    let ali = with_token(&server, dir.path(), Some("sesame")).await;
    assert_eq!(get(&ali, "/api/v1/nodes").await, 200);
    let wrong = with_token(&server, dir.path(), Some("open")).await;
    assert_eq!(get(&wrong, "/livez").await, 401);
    let stranger = with_token(&server, dir.path(), None).await;
    assert_eq!(get(&stranger, "/livez").await, 200);
    assert_eq!(get(&stranger, "/version").await, 401);
    // The file is followed.
    file(
        "authentication.yaml",
        &anonymous.replace("/livez", "/version"),
    );
    let deadline = std::time::Instant::now() + crate::server::PATIENCE;
    while get(&stranger, "/version").await != 200 {
        assert!(
            std::time::Instant::now() < deadline,
            "the file is not read again"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(get(&stranger, "/livez").await, 401);
    server.terminate();
    let text = std::fs::read_to_string(&log).unwrap();
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 1, "{text}");
    assert_eq!(events[0]["user"]["username"], "ali");
    assert_eq!(events[0]["requestURI"], "/api/v1/nodes");
    assert_eq!(events[0]["sourceIPs"][0], "127.0.0.1");
}
