//! Names of what is proxied to (`https:web:8443`), and the servers that they stand for.

use std::{net::IpAddr, sync::Arc};

use coracle_transport::Backend;
use rustls::{ClientConfig, pki_types::ServerName};

use crate::error::ApiError;

/// `name`, `name:port` or `scheme:name:port`; parts that are not given are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub https: bool,
    pub name: &'a str,
    pub port: &'a str,
}

impl<'a> Target<'a> {
    pub fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let https = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Target { https, name, port })
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A server spoken to over TLS.
pub fn tls_backend(host: &str, port: u16, config: &Arc<ClientConfig>) -> Result<Backend, ApiError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| ApiError::internal(format!("{host:?} is no host name: {error}")))?;
    Ok(Backend {
        address: join(host, port),
        tls: Some((config.clone(), name)),
    })
}

/// Whether requests may be passed on to the address: it must not lead back to this host or to
/// the whole network.
pub fn is_allowed(address: &str) -> bool {
    match address.parse() {
        Ok(IpAddr::V4(address)) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast())
        }
        Ok(IpAddr::V6(address)) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_multicast())
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_up_to_three_parts() {
        let target = |https, name, port| Some(Target { https, name, port });
        assert_eq!(Target::parse("web"), target(false, "web", ""));
        assert_eq!(Target::parse("web:http"), target(false, "web", "http"));
        assert_eq!(Target::parse("https:web:1"), target(true, "web", "1"));
        assert_eq!(Target::parse("https:web:"), target(true, "web", ""));
        for invalid in ["", ":80", "ftp:web:21", "a:b:c:d"] {
            assert_eq!(Target::parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn addresses_of_this_host_are_not_allowed() {
        for allowed in ["10.42.0.5", "192.168.1.1", "fd00::1", "8.8.8.8"] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in [
            "",
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "host",
        ] {
            assert!(!is_allowed(refused), "{refused}");
        }
        assert_eq!(join("fd00::1", 80), "[fd00::1]:80");
    }
}
