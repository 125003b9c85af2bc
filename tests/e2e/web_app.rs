//! A web application as users of Kubernetes write it, with every command that they type.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
};

use crate::{
    cluster::{Cluster, IMAGE, Namespace},
    workloads::{apply, file, first_pod, images},
};

const MANIFESTS: [&str; 6] = [
    "web-app/configmap.yaml",
    "web-app/secret.yaml",
    "web-app/pvc.yaml",
    "web-app/service.yaml",
    "web-app/deployment.yaml",
    "web-app/hpa.yaml",
];

#[test]
fn a_web_application_is_run_changed_and_removed() {
    let cluster = Cluster::shared();
    images(cluster);
    let namespace = cluster.namespace();
    let info = cluster.kubectl("cluster-info");
    assert!(info.contains("is running at"), "{info}");
    cluster.kubectl("config current-context");
    assert!(cluster.kubectl("get nodes").contains("Ready"));
    apply(&namespace, &MANIFESTS);
    // Its pods run at once and are ready after five seconds.
    let phases = "get pods -l app=web-app -o jsonpath={.items[*].status.phase}";
    namespace.eventually(phases, |it| it == "Running Running Running");
    listed(&namespace);
    looked_into(&namespace);
    namespace.kubectl("rollout status deployment/web-app --timeout=120s");
    reached(&namespace);
    changed(&namespace);
    namespace.kubectl(&format!("apply -f {}", file("web-app/networkpolicy.yaml")));
    namespace.kubectl("delete networkpolicy --all");
    namespace.eventually("top pods", |it| it.contains("web-app-"));
    namespace.kubectl("top nodes");

    namespace.kubectl(&format!("delete -f {}", file("web-app/deployment.yaml")));
    namespace.kubectl("delete pod,pvc,configmap,secret --all --timeout=60s");
    assert_eq!(namespace.kubectl("get pods,pvc,secrets -o name"), "");
}

fn listed(namespace: &Namespace<'_>) {
    let listed = namespace.kubectl("get pods,deploy,svc");
    for name in [
        "pod/web-app-",
        "deployment.apps/web-app",
        "service/web-app-lb",
    ] {
        assert!(listed.contains(name), "{listed}");
    }
    assert!(namespace.kubectl("get configmaps").contains("app-config"));
    assert!(namespace.kubectl("get secrets").contains("db-secret"));
    let mut watch = started(namespace, "get pods -w");
    let mut first = [0; 4];
    let output = watch.stdout.as_mut().expect("its output is a pipe");
    output.read_exact(&mut first).expect("pods are listed");
    ended(watch);
    assert_eq!(&first, b"NAME");
    let events = namespace.kubectl("get events --sort-by=.metadata.creationTimestamp");
    assert!(events.contains("ProvisioningSucceeded"), "{events}");
}

/// A `kubectl` that goes on until it is [`ended`].
fn started(namespace: &Namespace<'_>, arguments: &str) -> Child {
    let arguments = namespace.scoped(arguments);
    let mut kubectl = namespace.cluster.bounded(&arguments);
    let kubectl = kubectl.stdout(Stdio::piped()).stderr(Stdio::null());
    kubectl.spawn().expect("kubectl runs")
}

fn ended(mut kubectl: Child) {
    // Not by SIGKILL, which what bounds its time could not pass on.
    let id = kubectl.id().to_string();
    let asked = Command::new("kill").arg(id).status().expect("kill runs");
    assert!(asked.success(), "kubectl should still run");
    kubectl.wait().expect("kubectl ends");
}

/// Everything by which users look into pods.
fn looked_into(namespace: &Namespace<'_>) {
    let cluster = namespace.cluster;
    let pod = first_pod(namespace, "app=web-app");
    let described = namespace.kubectl(&format!("describe pod {pod}"));
    assert!(described.contains("myapp/web:v1.0") && described.contains("Liveness:"));
    let logs = namespace.kubectl(&format!("logs {pod}"));
    assert_eq!(logs, "listening in version v1.0\n");
    assert_eq!(namespace.kubectl(&format!("logs {pod} -c web")), logs);
    let environment = namespace.kubectl(&format!("exec {pod} -- env"));
    assert!(
        environment.contains("DATABASE_URL=postgres://user:pass@db_host:5432/myapp"),
        "{environment}"
    );
    let exec = namespace.scoped(&format!("exec -it {pod} -- /bin/sh"));
    let shell = cluster.at_terminal(&exec, "echo i-am-$(hostname)\nexit\n");
    assert!(shell.contains(&format!("i-am-{pod}")), "{shell}");
    namespace.kubectl(&format!("exec {pod} -- touch /app/uploads/x"));
    let manifest = file("web-app/pvc.yaml");
    namespace.kubectl(&format!("cp {manifest} {pod}:/tmp/pvc.yaml"));
    let copied = namespace.kubectl(&format!("exec {pod} -- cat /tmp/pvc.yaml"));
    assert!(copied.contains("uploads-pvc"), "{copied}");
    let debug = namespace.scoped(&format!("debug {pod} -it --image={IMAGE} -- /bin/sh"));
    let shell = cluster.at_terminal(&debug, "wget -qO- localhost:3000/health\nexit\n");
    assert!(shell.contains("health ok"), "{shell}");
}

/// The ways to the application: its Service, from within and through a forwarded port.
fn reached(namespace: &Namespace<'_>) {
    let run = format!(
        "run test-pod --image={IMAGE} --rm -it --restart=Never \
         -- wget -qO- http://web-app-service/health"
    );
    let page = namespace.cluster.at_terminal(&namespace.scoped(&run), "");
    assert!(page.contains("health ok"), "{page}");

    let mut forward = started(namespace, "port-forward svc/web-app-service 8080:80");
    let mut first = [0; 10];
    let output = forward.stdout.as_mut().expect("its output is a pipe");
    output.read_exact(&mut first).expect("the port is open");
    let curl = ["-sSf", "--max-time", "30", "http://127.0.0.1:8080/ready"];
    let page = namespace.cluster.command("curl").args(curl).output();
    ended(forward);
    let page = page.expect("curl runs").stdout;
    assert_eq!(String::from_utf8_lossy(&page), "ready ok\n");
}

/// Scaling, new versions, and the way back.
fn changed(namespace: &Namespace<'_>) {
    namespace.kubectl("delete hpa web-app-hpa");
    namespace.kubectl("autoscale deployment web-app --cpu-percent=70 --min=2 --max=10");
    assert!(namespace.kubectl("get hpa").contains("Deployment/web-app"));
    namespace.kubectl("delete hpa web-app");
    namespace.kubectl("scale deployment web-app --replicas=5");
    namespace.kubectl("set image deployment/web-app web=myapp/web:v1.1");
    namespace.kubectl("rollout status deployment/web-app --timeout=120s");
    let image = ".spec.containers[0].image";
    let images = format!("get pods -l app=web-app -o jsonpath={{.items[*]{image}}}");
    namespace.eventually(&images, |it| it == ["myapp/web:v1.1"; 5].join(" "));
    ended_and_restarted(namespace);
    let history = namespace.kubectl("rollout history deployment/web-app");
    assert!(history.contains("\n2 "), "{history}");

    namespace.kubectl("scale deployment web-app --replicas=1");
    namespace.kubectl("rollout undo deployment/web-app");
    let image = format!("get deployment web-app -o jsonpath={{.spec.template{image}}}");
    assert_eq!(namespace.kubectl(&image), "myapp/web:v1.0");
    namespace.kubectl("rollout restart deployment/web-app");
    namespace.kubectl("rollout status deployment/web-app --timeout=120s");
}

/// The log of a container that ends is followed to its end, and found when it runs again.
fn ended_and_restarted(namespace: &Namespace<'_>) {
    let pod = first_pod(namespace, "app=web-app");
    let mut follow = started(namespace, &format!("logs -f {pod}"));
    let expected = "listening in version v1.1\n";
    let mut log = vec![0; expected.len()];
    let output = follow.stdout.as_mut().expect("its output is a pipe");
    output.read_exact(&mut log).expect("the log is followed");
    assert_eq!(String::from_utf8_lossy(&log), expected);
    let kill = namespace.scoped(&format!("exec {pod} -- kill 1"));
    // It may be killed itself with the container before it can say that all went well.
    let killed = namespace.cluster.bounded(&kill).output();
    killed.expect("kubectl runs");
    follow.wait().expect("kubectl ends with the container");
    let previous = format!("logs {pod} --previous");
    namespace.eventually(&previous, |it| it == expected);
}
