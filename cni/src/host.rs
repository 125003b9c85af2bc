//! The kernel's settings and namespaces.

use std::{
    fs::{self, File},
    path::Path,
};

use nix::sched::{CloneFlags, setns};

use crate::error::Error;

/// Sets a sysctl of the calling thread's network namespace, given as a path below `/proc/sys`.
/// It is written only when it differs, as some are read-only in containers that test this.
pub fn set_sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|error| Error::io(format!("set {name} to {value}"), error))
}

/// The network namespace of a container.
#[derive(Debug)]
pub struct Netns(pub File);

impl Netns {
    pub fn open(path: &Path) -> Result<Self, Error> {
        File::open(path).map(Netns).map_err(|error| {
            Error::io(
                format!("open the network namespace {}", path.display()),
                error,
            )
        })
    }

    /// Runs `act` on a thread of its own in the namespace; the caller's thread stays where it is.
    pub fn within<T: Send>(
        &self,
        act: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let thread = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET)
                .map_err(|error| Error::io("enter the network namespace", error.into()))?;
            act()
        };
        std::thread::scope(|scope| match scope.spawn(thread).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// The link that the default route goes through.
pub fn default_link() -> Option<String> {
    // `/proc/net` is that of the process's first thread, which may be in another namespace.
    let routes = fs::read_to_string("/proc/thread-self/net/route").ok()?;
    link_of_default(&routes).map(str::to_owned)
}

/// The columns are the link, the destination and the gateway, in hexadecimal; a mask comes eighth.
fn link_of_default(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let (link, destination) = (columns.next()?, columns.next()?);
        let mask = columns.nth(5)?;
        (destination == "00000000" && mask == "00000000").then_some(link)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_route_is_found() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
            cni0\t00002A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\n";
        assert_eq!(super::link_of_default(routes), Some("eth0"));
        assert_eq!(super::link_of_default("Iface\n"), None);
    }
}
