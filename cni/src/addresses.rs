//! Which address belongs to which container: one small file for each address in use, named after
//! it.
//!
//! A file is written beside, flushed to the disk and renamed, under a lock, so a plugin killed at
//! any moment leaves either nothing or a whole entry. Addresses are given out in turn, so that one
//! just released is not used again at once.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    error::Error,
    invocation::{AttachmentKey, PortMapping},
};

/// The container's interface that holds an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    #[serde(flatten)]
    pub key: AttachmentKey,
    /// The path of the network namespace. When it no longer exists, the address is free.
    pub netns: PathBuf,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
}

impl Attachment {
    fn is_alive(&self) -> bool {
        self.netns.exists()
    }
}

/// An address in use and by whom.
#[derive(Clone, Debug)]
pub struct Entry {
    pub address: IpAddr,
    pub attachment: Attachment,
    pub since: SystemTime,
}

/// The addresses of one network.
pub struct Addresses {
    subnets: Vec<IpNet>,
    directory: PathBuf,
}

impl Addresses {
    pub fn open(config: &Config) -> Result<Self, Error> {
        let directory = config.state().join("addresses");
        fs::create_dir_all(&directory)
            .map_err(|error| Error::io(format!("make {}", directory.display()), error))?;
        Ok(Addresses {
            subnets: config.subnets.clone(),
            directory,
        })
    }

    /// One address of each subnet, for the attachment alone, until it is released.
    pub fn reserve(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, Error> {
        let _lock = self.lock()?;
        let mut used = self.used()?;
        let mut reserved = Vec::new();
        for subnet in &self.subnets {
            let address = match self.reserve_in(subnet, &mut used, attachment) {
                Ok(address) => address,
                Err(error) => {
                    for address in &reserved {
                        self.remove(*address)?;
                    }
                    return Err(error);
                }
            };
            reserved.push(address);
        }
        self.flush()?;
        Ok(reserved)
    }

    fn reserve_in(
        &self,
        subnet: &IpNet,
        used: &mut HashSet<IpAddr>,
        attachment: &Attachment,
    ) -> Result<IpAddr, Error> {
        let marker = self.directory.join(match subnet {
            IpNet::V4(_) => "last.4",
            IpNet::V6(_) => "last.6",
        });
        let last = fs::read_to_string(&marker)
            .ok()
            .and_then(|text| text.parse().ok());
        let mut free = next_free(subnet, last, used);
        if free.is_none() {
            *used = self.reclaim()?;
            free = next_free(subnet, last, used);
        }
        let address = free.ok_or_else(|| Error::Exhausted(subnet.to_string()))?;
        self.write(address, attachment)?;
        // Losing this to a crash costs nothing but the order, so it is not flushed.
        fs::write(&marker, address.to_string())
            .map_err(|error| Error::io(format!("write {}", marker.display()), error))?;
        Ok(address)
    }

    /// Frees the addresses of every attachment that is chosen, and returns what they were.
    pub fn release(&self, chosen: impl Fn(&Attachment) -> bool) -> Result<Vec<Entry>, Error> {
        let _lock = self.lock()?;
        let mut entries = self.entries()?;
        entries.retain(|entry| chosen(&entry.attachment));
        for entry in &entries {
            self.remove(entry.address)?;
        }
        if !entries.is_empty() {
            self.flush()?;
        }
        Ok(entries)
    }

    /// Frees these addresses again, after a failure.
    pub fn give_back(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        let _lock = self.lock()?;
        addresses
            .iter()
            .try_for_each(|address| self.remove(*address))
    }

    /// Every address in use by a container that may still live, the oldest first.
    pub fn live(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = self.entries()?;
        entries.retain(|entry| entry.attachment.is_alive());
        entries.sort_by_key(|entry| entry.since);
        Ok(entries)
    }

    fn entries(&self) -> Result<Vec<Entry>, Error> {
        Ok(self
            .used()?
            .into_iter()
            .filter_map(|address| {
                let mut file = File::open(self.file(address)).ok()?;
                let mut content = Vec::new();
                file.read_to_end(&mut content).ok()?;
                Some(Entry {
                    address,
                    attachment: serde_json::from_slice(&content).ok()?,
                    since: file.metadata().ok()?.modified().ok()?,
                })
            })
            .collect())
    }

    /// Frees what no living container holds; returns what is still in use.
    fn reclaim(&self) -> Result<HashSet<IpAddr>, Error> {
        let live: HashSet<IpAddr> = self.live()?.iter().map(|entry| entry.address).collect();
        for address in self.used()?.difference(&live) {
            self.remove(*address)?;
        }
        Ok(live)
    }

    fn used(&self) -> Result<HashSet<IpAddr>, Error> {
        let read = |error| Error::io(format!("read {}", self.directory.display()), error);
        let mut used = HashSet::new();
        for entry in fs::read_dir(&self.directory).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            used.extend(name.to_str().and_then(|name| name.parse::<IpAddr>().ok()));
        }
        Ok(used)
    }

    fn file(&self, address: IpAddr) -> PathBuf {
        self.directory.join(address.to_string())
    }

    fn write(&self, address: IpAddr, attachment: &Attachment) -> Result<(), Error> {
        let file = self.file(address);
        // The lock is held, so the one name serves all; what a crash left is written over.
        let beside = self.directory.join("new");
        let written = || -> io::Result<()> {
            let mut new = File::create(&beside)?;
            new.write_all(&serde_json::to_vec(attachment)?)?;
            new.sync_all()?;
            fs::rename(&beside, &file)
        };
        written().map_err(|error| Error::io(format!("write {}", file.display()), error))
    }

    fn remove(&self, address: IpAddr) -> Result<(), Error> {
        let file = self.file(address);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", file.display()), error))
            }
            _ => Ok(()),
        }
    }

    fn flush(&self) -> Result<(), Error> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| Error::io(format!("flush {}", self.directory.display()), error))
    }

    fn lock(&self) -> Result<Flock<File>, Error> {
        lock(&self.directory.join("lock"))
    }
}

/// Waits for the file's lock and holds it until it is dropped.
pub fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let failed = |error| Error::io(format!("lock {}", path.display()), error);
    let mut file = File::create(path).map_err(failed)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((same, nix::errno::Errno::EINTR)) => file = same,
            Err((_, error)) => return Err(failed(error.into())),
        }
    }
}

/// The first free address after `last`, round about. The network's own, the gateway's, which is
/// the first, and the broadcast address are never given out.
fn next_free(subnet: &IpNet, last: Option<IpAddr>, used: &HashSet<IpAddr>) -> Option<IpAddr> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let address = |number: u128| match subnet {
        IpNet::V4(_) => IpAddr::V4((number as u32).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    };
    let (first, last_of_all) = (
        number(subnet.network()) + 2,
        number(subnet.broadcast()) - u128::from(subnet.addr().is_ipv4()),
    );
    let start = match last {
        Some(last) if subnet.contains(&last) && number(last) < last_of_all => {
            (number(last) + 1).max(first)
        }
        _ => first,
    };
    (start..=last_of_all)
        .chain(first..start)
        .map(address)
        // Of a huge range only as many as are taken have to be looked at, and one more.
        .find(|address| !used.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(directory: &Path, subnet: &str) -> Addresses {
        let subnet = subnet.parse().expect("a subnet");
        let config = Config::new(directory, vec![subnet], Vec::new());
        Addresses::open(&config).expect("opened")
    }

    fn attachment(id: &str, netns: &Path) -> Attachment {
        Attachment {
            key: AttachmentKey {
                container_id: id.to_owned(),
                ifname: "eth0".to_owned(),
            },
            netns: netns.to_owned(),
            port_mappings: Vec::new(),
        }
    }

    fn reserve(addresses: &Addresses, id: &str, netns: &Path) -> Option<String> {
        match addresses.reserve(&attachment(id, netns)) {
            Ok(reserved) => Some(reserved[0].to_string()),
            Err(Error::Exhausted(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn addresses_go_round_and_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let here = dir.path();
        let addresses = addresses(here, "10.0.0.0/29");
        let next = || reserve(&addresses, "a", here);
        // Of eight, three are spoken for.
        assert_eq!(next().as_deref(), Some("10.0.0.2"));
        assert_eq!(next().as_deref(), Some("10.0.0.3"));
        assert_eq!(next().as_deref(), Some("10.0.0.4"));
        addresses
            .give_back(&["10.0.0.2".parse().expect("an address")])
            .expect("given back");
        assert_eq!(next().as_deref(), Some("10.0.0.5"));
        assert_eq!(next().as_deref(), Some("10.0.0.6"));
        assert_eq!(next().as_deref(), Some("10.0.0.2"));
        assert_eq!(next(), None);
    }

    #[test]
    fn an_address_whose_container_vanished_is_taken_back_when_it_is_needed() {
        let dir = tempfile::tempdir().expect("a directory");
        let addresses = addresses(dir.path(), "10.0.0.0/30");
        let netns = dir.path().join("netns");
        fs::write(&netns, "").expect("written");
        assert_eq!(
            reserve(&addresses, "a", &netns).as_deref(),
            Some("10.0.0.2")
        );
        assert_eq!(reserve(&addresses, "b", dir.path()), None);
        fs::remove_file(&netns).expect("removed");
        assert_eq!(
            reserve(&addresses, "b", dir.path()).as_deref(),
            Some("10.0.0.2")
        );
        // The first holder's late release must not free what is the other's now.
        let released = addresses.release(|of| of.key.container_id == "a");
        assert!(released.expect("no error").is_empty());
        assert_eq!(reserve(&addresses, "c", dir.path()), None);
    }

    #[test]
    fn what_a_crash_left_half_done_does_no_harm() {
        let dir = tempfile::tempdir().expect("a directory");
        let addresses = addresses(dir.path(), "10.0.0.0/30");
        fs::write(addresses.directory.join("new"), "{\"contai").expect("written");
        fs::write(addresses.directory.join("10.0.0.2"), "").expect("written");
        fs::write(addresses.directory.join("last.4"), "nonsense").expect("written");
        assert_eq!(
            reserve(&addresses, "a", dir.path()).as_deref(),
            Some("10.0.0.2")
        );
        let released = addresses.release(|of| of.key.container_id == "a");
        assert_eq!(released.expect("no error").len(), 1);
        assert!(addresses.used().expect("read").is_empty());
    }

    #[test]
    fn both_families_count_from_two() {
        let used = HashSet::from(["fd00::2".parse().expect("an address")]);
        let free = |subnet: &str, last: Option<&str>| {
            let last = last.map(|last| last.parse().expect("an address"));
            next_free(&subnet.parse().expect("a subnet"), last, &used).map(|a| a.to_string())
        };
        assert_eq!(free("fd00::/64", None).as_deref(), Some("fd00::3"));
        assert_eq!(
            free("fd00::/112", Some("fd00::ffff")).as_deref(),
            Some("fd00::3")
        );
        assert_eq!(
            free("10.0.0.0/24", Some("10.9.0.7")).as_deref(),
            Some("10.0.0.2")
        );
    }
}
