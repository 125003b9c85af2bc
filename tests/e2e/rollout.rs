//! Deployments under `kubectl`: scale, set image, rollout.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::cluster::{Cluster, IMAGE, IMAGE_2, Namespace};

/// A web server that answers with its image's version, ready as soon as it does, and that keeps
/// answering while its endpoint is withdrawn.
fn web(namespace: &Namespace<'_>, replicas: u32) {
    namespace.apply(&format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: web
        image: {IMAGE}
        command: [sh, -c]
        args: ['echo version $VERSION > /var/www/index.html; exec httpd -f -p 8080 -h /var/www']
        ports: [{{name: http, containerPort: 8080}}]
        lifecycle: {{preStop: {{exec: {{command: [sleep, '3']}}}}}}
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}
"
    ));
    namespace.kubectl("rollout status deployment/web --timeout=120s");
}

#[test]
fn scale_set_image_history_and_undo() {
    let namespace = Cluster::shared().namespace();
    web(&namespace, 1);
    assert_eq!(
        namespace.kubectl("scale deployment web --replicas=3"),
        "deployment.apps/web scaled\n"
    );
    namespace.kubectl("rollout status deployment/web --timeout=120s");
    assert_eq!(
        namespace
            .kubectl("get pods -l app=web -o name")
            .lines()
            .count(),
        3
    );
    let line = namespace.kubectl("get deployment web --no-headers");
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>()[..4],
        ["web", "3/3", "3", "3"]
    );

    assert_eq!(
        namespace.kubectl(&format!("set image deployment/web web={IMAGE_2}")),
        "deployment.apps/web image updated\n"
    );
    let status = namespace.kubectl("rollout status deployment/web --timeout=120s");
    assert!(
        status.ends_with("deployment \"web\" successfully rolled out\n"),
        "{status}"
    );
    let history = namespace.kubectl("rollout history deployment/web");
    assert!(
        history.contains("REVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n"),
        "{history}"
    );

    assert_eq!(
        namespace.kubectl("rollout undo deployment/web"),
        "deployment.apps/web rolled back\n"
    );
    namespace.kubectl("rollout status deployment/web --timeout=120s");
    assert_eq!(
        namespace
            .kubectl("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}"),
        IMAGE
    );
    assert_eq!(
        namespace.kubectl("rollout restart deployment/web"),
        "deployment.apps/web restarted\n"
    );
    namespace.kubectl("rollout status deployment/web --timeout=120s");
}

#[test]
fn a_paused_rollout_waits_for_its_resumption() {
    let namespace = Cluster::shared().namespace();
    web(&namespace, 1);
    assert_eq!(
        namespace.kubectl("rollout pause deployment/web"),
        "deployment.apps/web paused\n"
    );
    namespace.kubectl(&format!("set image deployment/web web={IMAGE_2}"));
    namespace.eventually(
        "get deployment web -o jsonpath={.status.observedGeneration}:{.metadata.generation}",
        |generations| {
            generations
                .split_once(':')
                .is_some_and(|(observed, wanted)| observed == wanted)
        },
    );
    assert_eq!(
        namespace.kubectl("get replicasets -o name").lines().count(),
        1
    );
    assert_eq!(
        namespace.kubectl("rollout resume deployment/web"),
        "deployment.apps/web resumed\n"
    );
    namespace.kubectl("rollout status deployment/web --timeout=120s");
    assert_eq!(
        namespace.kubectl("get replicasets -o name").lines().count(),
        2
    );
}

#[test]
fn a_rolling_update_loses_no_request() {
    let namespace = Cluster::shared().namespace();
    web(&namespace, 3);
    let address = namespace.kubectl("get service web -o jsonpath={.spec.clusterIP}");
    let url = format!("http://{address}/");
    namespace
        .cluster
        .command("curl")
        .args([
            "-sf",
            "--retry",
            "20",
            "--retry-connrefused",
            "--retry-delay",
            "1",
            &url,
        ])
        .output()
        .expect("curl runs");

    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut request: Command = namespace.cluster.command("curl");
            request.args(["-sS", "--fail", "--max-time", "5", "--http1.1", &url]);
            let over = over.clone();
            std::thread::spawn(move || {
                let (mut answers, mut lost) = (Vec::new(), Vec::new());
                while !over.load(Ordering::Relaxed) {
                    let output = request.output().expect("curl runs");
                    if output.status.success() {
                        answers.push(String::from_utf8_lossy(&output.stdout).into_owned());
                    } else {
                        lost.push(String::from_utf8_lossy(&output.stderr).into_owned());
                    }
                }
                (answers, lost)
            })
        })
        .collect();
    namespace.kubectl(&format!("set image deployment/web web={IMAGE_2}"));
    namespace.kubectl("rollout status deployment/web --timeout=120s");
    namespace.eventually("get pods -l app=web -o name", |names| {
        names.lines().count() == 3
    });
    over.store(true, Ordering::Relaxed);

    let (mut answers, mut lost) = (Vec::new(), Vec::new());
    for client in clients {
        let (mut answered, mut failed) = client.join().expect("the client ends");
        answers.append(&mut answered);
        lost.append(&mut failed);
    }
    assert!(
        lost.is_empty(),
        "{} of {} requests were lost: {lost:?}",
        lost.len(),
        answers.len()
    );
    assert!(answers.iter().any(|answer| answer.contains("version 1.0")));
    assert!(answers.iter().any(|answer| answer.contains("version 2.0")));
}
