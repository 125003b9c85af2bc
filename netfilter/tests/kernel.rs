//! Against the real kernel, each test in a network namespace of its own. Needs root and `nft`.

use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
};

use coracle_netfilter::{
    Error, Family, Nft,
    conntrack::{self, Endpoint},
    table_comment,
};

/// Runs `test` on a thread in a new network namespace whose loopback device is up.
fn in_network_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip runs").success());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_table_is_seen_with_its_comment_until_it_is_removed() {
    in_network_namespace(|| {
        let nft = Nft::default();
        let look = || table_comment(Family::Inet, "ours").expect("the kernel answers");
        assert_eq!(look(), None);
        nft.remove_table(Family::Inet, "ours").expect("no error");
        nft.apply("table inet ours { comment \"version 1\"\n }")
            .expect("applied");
        assert_eq!(look().as_deref(), Some("version 1"));
        assert_eq!(table_comment(Family::Ip, "ours").expect("answered"), None);
        let refused = nft.apply("add chain inet ours c\nadd rule inet ours nowhere accept\n");
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        assert!(
            nft.apply("delete chain inet ours c\n").is_err(),
            "all or nothing"
        );
        nft.remove_table(Family::Inet, "ours").expect("removed");
        assert_eq!(look(), None);
    });
}

#[test]
fn only_the_flows_meant_are_forgotten() {
    in_network_namespace(|| {
        // A rule that looks at connections makes the kernel track them in this namespace.
        Nft::default()
            .apply(
                "table inet t { chain out { type nat hook output priority -100\n \
                 udp dport 53 dnat ip to 127.0.0.1:5353\n ct state new accept\n }\n }",
            )
            .expect("applied");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        for to in ["127.0.0.2:53", "127.0.0.2:54", "[::1]:55"] {
            let from: SocketAddr = match to.starts_with('[') {
                true => "[::1]:0".parse().expect("an address"),
                false => "127.0.0.1:0".parse().expect("an address"),
            };
            let other = UdpSocket::bind(from).expect("bound");
            other.send_to(b"x", to).expect("sent");
        }
        client.send_to(b"x", "127.0.0.2:53").expect("sent");
        let seen = || {
            let mut seen = Vec::new();
            conntrack::forget(|connection| {
                seen.push((connection.destination, connection.answered_by));
                false
            })
            .expect("the kernel answers");
            seen
        };
        let endpoint = |text: &str| {
            let address: SocketAddr = text.parse().expect("an address");
            Endpoint {
                address: address.ip(),
                port: address.port(),
            }
        };
        let translated = (endpoint("127.0.0.2:53"), endpoint("127.0.0.1:5353"));
        assert_eq!(seen().len(), 4, "{:?}", seen());
        assert_eq!(seen().iter().filter(|flow| **flow == translated).count(), 2);
        let forgotten = conntrack::forget(|connection| {
            connection.protocol == 17 && connection.answered_by == endpoint("127.0.0.1:5353")
        });
        assert_eq!(forgotten.expect("forgotten"), 2);
        assert_eq!(seen().len(), 2, "{:?}", seen());
        assert!(seen().iter().any(|(to, _)| *to == endpoint("[::1]:55")));
    });
}
