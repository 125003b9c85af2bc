//! What came and went over the network interfaces of a pod.

use std::{fs, path::Path};

use jiff::Timestamp;

use crate::server::summary::{InterfaceStats, NetworkStats};

/// One interface's line of `/proc/PID/net/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// The interfaces that a process sees, but for loopback.
pub fn of_process(pid: i32) -> Vec<Interface> {
    let file = Path::new("/proc").join(pid.to_string()).join("net/dev");
    parse(&fs::read_to_string(file).unwrap_or_default())
}

fn parse(text: &str) -> Vec<Interface> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, numbers)| {
            let numbers: Vec<u64> = numbers
                .split_whitespace()
                .map_while(|number| number.parse().ok())
                .collect();
            let at = |first: usize| Traffic {
                bytes: numbers[first],
                packets: numbers[first + 1],
                errors: numbers[first + 2],
                dropped: numbers[first + 3],
            };
            (numbers.len() >= 12 && name.trim() != "lo").then(|| Interface {
                name: name.trim().to_owned(),
                received: at(0),
                sent: at(8),
            })
        })
        .collect()
}

/// As the summary tells it; `None` without any interface.
pub fn stats(interfaces: &[Interface]) -> Option<NetworkStats> {
    let stats = |interface: &Interface| InterfaceStats {
        name: interface.name.clone(),
        rx_bytes: Some(interface.received.bytes),
        rx_errors: Some(interface.received.errors),
        tx_bytes: Some(interface.sent.bytes),
        tx_errors: Some(interface.sent.errors),
    };
    let first = interfaces.iter().find(|interface| interface.name == "eth0");
    Some(NetworkStats {
        time: Timestamp::now(),
        default: stats(first.or_else(|| interfaces.first())?),
        interfaces: interfaces.iter().map(stats).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_as_the_kernel_writes_them() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n    lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  eth0: 1296 16 1 2 0 0 0 0 816 12 3 4 0 0 0 0\n";
        let interfaces = parse(text);
        assert_eq!(interfaces.len(), 1);
        let eth0 = &interfaces[0];
        assert_eq!((eth0.received.bytes, eth0.received.dropped), (1296, 2));
        assert_eq!((eth0.sent.bytes, eth0.sent.errors), (816, 3));
        let network = stats(&interfaces).unwrap();
        assert_eq!(
            (network.default.name.as_str(), network.default.tx_bytes),
            ("eth0", Some(816))
        );
        assert_eq!(stats(&[]), None);
    }
}
