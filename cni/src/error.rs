//! What can go wrong, and how it is told to the runtime: a JSON object with one of the codes of
//! the specification.

use std::io;

use serde_json::json;

use crate::invocation::SUPPORTED_VERSIONS;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("incompatible CNI versions")]
    IncompatibleVersion(String),
    #[error("{0}")]
    Environment(String),
    #[error("cannot {attempt}: {source}")]
    Io { attempt: String, source: io::Error },
    #[error("cannot read the network configuration: {0}")]
    Decode(serde_json::Error),
    #[error("invalid network configuration: {0}")]
    Config(String),
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(String),
    #[error("{ifname:?} already exists in the container")]
    InterfaceExists { ifname: String },
    #[error("cannot {attempt}: {}", errno(.source))]
    Link {
        attempt: String,
        source: rtnetlink::Error,
    },
    #[error(transparent)]
    Rules(#[from] coracle_netfilter::Error),
    /// The container is not as `ADD` left it.
    #[error("{0}")]
    Check(String),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

/// The kernel's error as text; the netlink library's own form names only numbers.
fn errno(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            io::Error::from_raw_os_error(-message.raw_code()).to_string()
        }
        other => other.to_string(),
    }
}

impl Error {
    pub fn io(attempt: impl Into<String>, source: io::Error) -> Self {
        Error::Io {
            attempt: attempt.into(),
            source,
        }
    }

    pub fn link(attempt: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let attempt = attempt.into();
        move |source| Error::Link { attempt, source }
    }

    /// All of them as one; `Ok` when there is none.
    pub fn all(mut errors: Vec<Error>) -> Result<(), Error> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }

    /// Below 100 the specification's, from 100 on this plugin's.
    fn code(&self) -> u32 {
        match self {
            Error::IncompatibleVersion(_) => 1,
            Error::Environment(_) => 4,
            Error::Io { .. } => 5,
            Error::Decode(_) => 6,
            Error::Config(_) => 7,
            Error::Exhausted(_) => 100,
            Error::InterfaceExists { .. } => 101,
            Error::Link { .. } => 102,
            Error::Rules(_) => 103,
            Error::Check(_) => 104,
            Error::Several(errors) => errors.first().map_or(999, Error::code),
        }
    }

    /// The error as the runtime reads it.
    pub fn report(&self, version: &str) -> String {
        let version = match version {
            "" => SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1],
            version => version,
        };
        let details = match self {
            Error::IncompatibleVersion(asked) => {
                format!("config is {asked:?}, plugin supports {SUPPORTED_VERSIONS:?}")
            }
            _ => String::new(),
        };
        json!({
            "cniVersion": version,
            "code": self.code(),
            "msg": self.to_string(),
            "details": details,
        })
        .to_string()
    }
}
