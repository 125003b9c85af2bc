//! `kubectl top` and autoscalers, under real load.

use crate::cluster::{Cluster, IMAGE, Namespace};

/// Pods that are as busy as they may be, until a file tells them to rest.
fn busy(namespace: &Namespace<'_>) {
    namespace.apply(&format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: busy}}
spec:
  selector: {{matchLabels: {{app: busy}}}}
  template:
    metadata: {{labels: {{app: busy}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: work
        image: {IMAGE}
        command: [sh, -c, 'while [ ! -e /tmp/rest ]; do :; done; sleep 1000']
        resources: {{requests: {{cpu: 50m, memory: 16Mi}}, limits: {{cpu: 100m}}}}
      - name: idle
        image: {IMAGE}
        command: [sleep, '1000']
        resources: {{requests: {{cpu: 10m, memory: 16Mi}}}}
"
    ));
    namespace.kubectl("rollout status deployment/busy --timeout=120s");
}

#[test]
fn an_autoscaler_follows_the_load_up_and_down() {
    let namespace = Cluster::shared().namespace();
    busy(&namespace);
    namespace.apply(
        "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  maxReplicas: 3
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  metrics:
  - type: ContainerResource
    containerResource:
      {name: cpu, container: work, target: {type: Utilization, averageUtilization: 50}}
",
    );
    namespace.eventually(
        "get deployment busy -o jsonpath={.status.readyReplicas}",
        |it| it == "3",
    );
    let condition = |type_: &str| {
        format!(
            "get hpa busy -o jsonpath={{.status.conditions[?(@.type==\"{type_}\")]['status','reason']}}"
        )
    };
    namespace.eventually(&condition("ScalingActive"), |it| {
        it == "True ValidMetricFound"
    });
    namespace.eventually(&condition("ScalingLimited"), |it| {
        it == "True TooManyReplicas"
    });
    let pods = namespace.kubectl("get pods -l app=busy -o name");
    assert_eq!(pods.lines().count(), 3, "{pods}");
    for pod in pods.lines() {
        namespace.kubectl(&format!("exec {pod} -c work -- touch /tmp/rest"));
    }
    namespace.eventually("get deployment busy -o jsonpath={.spec.replicas}", |it| {
        it == "1"
    });
    namespace.eventually(&condition("AbleToScale"), |it| it.starts_with("True "));
    let events = namespace.eventually("get events -o jsonpath={.items[*].message}", |it| {
        it.contains("New size: 1; reason: All metrics below target")
    });
    let up = "New size: 3; reason: cpu container resource utilization (percentage of request) \
              above target";
    assert!(events.contains(up), "{events}");
    let described = namespace.kubectl("describe hpa busy");
    let line = "resource cpu of container \"work\" on pods";
    assert!(described.contains(line), "{described}");
}

#[test]
fn top_shows_what_nodes_and_pods_use() {
    let namespace = Cluster::shared().namespace();
    busy(&namespace);
    let nodes = namespace.kubectl("top nodes --no-headers");
    let cells: Vec<&str> = nodes.split_whitespace().collect();
    assert_eq!((cells.len(), cells[0]), (5, "node-1"), "{nodes}");
    assert!(
        cells[1].ends_with('m') && cells[2].ends_with('%'),
        "{nodes}"
    );
    assert_ne!(cells[3], "0Mi");
    let has_figures = |it: &str| it.contains("busy-");
    let pods = namespace.eventually("top pods -l app=busy --no-headers", has_figures);
    assert_eq!(pods.lines().count(), 1, "{pods}");
    let containers = namespace.kubectl("top pods --containers --sort-by=cpu --no-headers");
    let rows: Vec<Vec<&str>> = containers
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!((rows[0][1], rows[1][1]), ("work", "idle"), "{containers}");
    let cpu: u32 = rows[0][2].trim_end_matches('m').parse().expect("a number");
    assert!((50..=150).contains(&cpu), "{containers}");
    let everywhere = namespace.kubectl("top pods -A --no-headers");
    assert!(everywhere.contains(&namespace.name), "{everywhere}");
    let table = namespace.kubectl("get pods.metrics.k8s.io");
    assert!(
        table.starts_with("NAME") && table.contains("WINDOW"),
        "{table}"
    );
    let none = namespace.cluster.kubectl_fails("top pod no-such-pod");
    assert!(none.contains("NotFound"), "{none}");
}

#[test]
fn metrics_that_nobody_serves_are_said_so() {
    let namespace = Cluster::shared().namespace();
    namespace.kubectl(&format!(
        "create deployment web --image={IMAGE} -- sleep 1000"
    ));
    namespace.apply(
        "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 3
  metrics:
  - {type: Pods, pods: {metric: {name: qps}, target: {type: AverageValue, averageValue: 10}}}
",
    );
    let reason =
        "get hpa web -o jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].reason}";
    namespace.eventually(reason, |it| it == "FailedGetPodsMetric");
    let described = namespace.kubectl("describe hpa web");
    let why = "the HPA was unable to compute the replica count: unable to get metric qps: unable \
               to fetch metrics from custom metrics API: no custom metrics API \
               (custom.metrics.k8s.io) registered";
    assert!(described.contains(why), "{described}");
}
