//! `kubectl run -i`, `attach` and `debug`: with a terminal, with a pipe that stays open and with
//! one that ends, to containers with and without a terminal.

use crate::cluster::{Cluster, IMAGE};

#[test]
fn what_a_short_command_prints_is_not_lost() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    for name in ["one", "two"] {
        let run = format!("run {name} --rm -i --restart=Never --image={IMAGE} -- echo said-{name}");
        let printed = cluster.kubectl_with(&namespace.scoped(&run), "");
        assert!(printed.contains(&format!("said-{name}\n")), "{printed}");
    }
    let run = format!("run three --rm -it --restart=Never --image={IMAGE} -- echo said-three");
    let printed = cluster.at_terminal(&namespace.scoped(&run), "");
    assert!(printed.contains("said-three\r\n"), "{printed}");
    assert_eq!(namespace.kubectl("get pods -o name"), "");
}

#[test]
fn a_shell_is_used_at_a_terminal_and_through_a_pipe() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    namespace.kubectl(&format!("run target --image={IMAGE} -- sleep 1000"));
    namespace.kubectl("wait pod/target --for=condition=Ready --timeout=120s");
    let typed = "echo answer-$((40+2))\nexit\n";
    let debug = |flags: &str| {
        let debug = format!("debug target {flags} --image={IMAGE} -- /bin/sh");
        namespace.scoped(&debug)
    };
    let shell = cluster.at_terminal(&debug("-it"), typed);
    assert!(shell.contains("answer-42"), "{shell}");
    // kubectl says that it has no terminal; the shell has one all the same.
    let shell = cluster.kubectl_with_open(&debug("-it"), typed);
    assert!(shell.contains("answer-42"), "{shell}");
    let shell = cluster.kubectl_with_open(&debug("-i"), typed);
    assert!(shell.contains("answer-42"), "{shell}");

    // What reads to the end of its input comes to it.
    for (name, flags) in [("pipe", "-i"), ("terminal", "-it")] {
        let run = format!("run {name} --rm {flags} --restart=Never --image={IMAGE} -- sort -r");
        let sorted = cluster.kubectl_with(&namespace.scoped(&run), "first\nsecond\n");
        let sorted = sorted.replace('\r', "");
        assert!(sorted.contains("second\nfirst\n"), "{sorted}");
    }
    namespace.kubectl("delete pod target --grace-period=1 --wait=false");
}
