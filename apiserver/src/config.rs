//! What can be set about the API server.

use std::{ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

/// Defaults are upstream's, with k3s's networks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Host and port at which clients reach the server, for discovery.
    pub public_address: String,
    /// Requests that are handled at once; priority levels share them, and further requests wait.
    pub max_requests: usize,
    /// What Services get their addresses from.
    pub service_cidr: IpNet,
    pub node_ports: RangeInclusive<u16>,
    /// How long Events are kept.
    pub event_ttl: Duration,
    /// A watch without `timeoutSeconds` ends after one to two times this.
    pub min_watch_timeout: Duration,
    /// Requests that are not long-running are ended after this.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            public_address: "127.0.0.1:6443".to_owned(),
            max_requests: 600,
            service_cidr: IpNet::V4(ipnet::Ipv4Net::new_assert(
                std::net::Ipv4Addr::new(10, 43, 0, 0),
                16,
            )),
            node_ports: 30000..=32767,
            event_ttl: Duration::from_secs(3600),
            min_watch_timeout: Duration::from_secs(1800),
            request_timeout: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// How long a watch lasts that does not say, spread so that not all end at once.
    pub fn watch_timeout(&self) -> Duration {
        let mut byte = [0_u8; 2];
        // Without randomness the timeout is merely the shortest.
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
        let spread = f64::from(u16::from_ne_bytes(byte)) / f64::from(u16::MAX);
        self.min_watch_timeout.mul_f64(1.0 + spread)
    }
}
