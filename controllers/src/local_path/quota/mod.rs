//! Holds volumes to their sizes, where the file system has project quotas.
//!
//! Enter at [`Quotas`]. A volume's folder and all in it are of one project, whose use of the disk
//! the file system limits. Which project that is stands in the folder's attributes; the volume
//! says it too, for when the folder has gone.

mod kernel;

use std::{io, path::Path};

use parking_lot::Mutex;

pub use kernel::Kernel;

/// The first project that is taken for a volume. Those below are left to others: people count
/// theirs from one up, and the kubelet's ephemeral storage from 2^20.
const FIRST: u32 = 0x4c50_0000;
/// How many there are.
const COUNT: u32 = 0x1_0000;

/// What a file system does for projects. The kernel's errors come as they are.
pub trait Projects: Send + Sync {
    /// Whether limits hold in the file system that the folder is in.
    fn are_enforced(&self, folder: &Path) -> io::Result<bool>;
    /// The folder's project; zero is none.
    fn project(&self, folder: &Path) -> io::Result<u32>;
    /// Makes the folder, and what will be made in it, the project's.
    fn assign(&self, folder: &Path, project: u32) -> io::Result<()>;
    /// Whether anything is the project's, or limited for it.
    fn is_used(&self, folder: &Path, project: u32) -> io::Result<bool>;
    /// Limits what the project may use of the folder's file system; zero is no limit.
    fn limit(&self, folder: &Path, project: u32, bytes: u64) -> io::Result<()>;
}

/// Whether a volume is held to its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    By {
        project: u32,
    },
    /// Why not, in words.
    Not(String),
}

pub struct Quotas {
    projects: Box<dyn Projects>,
    /// From the choice of a project until the folder is of it, which makes it used.
    choosing: Mutex<()>,
}

fn is_ours(project: u32) -> bool {
    (FIRST..FIRST + COUNT).contains(&project)
}

impl Quotas {
    pub fn new(projects: Box<dyn Projects>) -> Self {
        Quotas {
            projects,
            choosing: Mutex::default(),
        }
    }

    /// Holds the folder of a new volume, in which there is nothing yet, to this size. Done again,
    /// it stays with the same project.
    pub fn hold(&self, folder: &Path, bytes: u64) -> Held {
        match self.projects.are_enforced(folder) {
            Ok(true) => {}
            Ok(false) => return Held::Not("the file system has no project quotas".to_owned()),
            Err(error) => {
                return Held::Not(format!("the file system has no project quotas: {error}"));
            }
        }
        match self.try_hold(folder, bytes) {
            Ok(project) => Held::By { project },
            Err(error) => Held::Not(format!("its project quota cannot be set: {error}")),
        }
    }

    fn try_hold(&self, folder: &Path, bytes: u64) -> io::Result<u32> {
        let _choosing = self.choosing.lock();
        let known = self.projects.project(folder)?;
        let project = if is_ours(known) {
            known
        } else {
            self.free_project(folder)?
        };
        self.projects.assign(folder, project)?;
        self.projects.limit(folder, project, bytes)?;
        Ok(project)
    }

    fn free_project(&self, folder: &Path) -> io::Result<u32> {
        for project in FIRST..FIRST + COUNT {
            if !self.projects.is_used(folder, project)? {
                return Ok(project);
            }
        }
        Err(io::Error::other("all projects are used"))
    }

    /// Gives a volume that is held this size. One that is not held stays free.
    ///
    /// # Errors
    /// When the file system does not take the limit.
    pub fn resize(&self, folder: &Path, bytes: u64) -> io::Result<()> {
        match self.projects.project(folder) {
            Ok(project) if is_ours(project) => self.projects.limit(folder, project, bytes),
            // Where there are no quotas, there may be no attributes to read.
            Err(error) if self.projects.are_enforced(folder).unwrap_or(false) => Err(error),
            _ => Ok(()),
        }
    }

    /// The project of a volume's folder.
    pub fn project(&self, folder: &Path) -> Option<u32> {
        self.projects
            .project(folder)
            .ok()
            .filter(|project| is_ours(*project))
    }

    /// Gives back the project of a volume that is gone. `folder` is any of the same file system.
    ///
    /// # Errors
    /// When the file system does not let go of the limit.
    pub fn release(&self, folder: &Path, project: u32) -> io::Result<()> {
        if !is_ours(project) {
            return Ok(());
        }
        match self.projects.limit(folder, project, 0) {
            // Quotas have been turned off since, and their limits with them.
            Err(error) if !self.projects.are_enforced(folder).unwrap_or(false) => {
                tracing::debug!(project, %error, "no quota to give back");
                Ok(())
            }
            other => other,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

    use super::*;

    /// A file system as it says it is.
    #[derive(Clone, Default)]
    pub struct Fake(pub Arc<Mutex<Disk>>);

    #[derive(Default)]
    pub struct Disk {
        pub enforces: bool,
        pub refuses: bool,
        pub projects: BTreeMap<PathBuf, u32>,
        pub limits: BTreeMap<u32, u64>,
    }

    impl Fake {
        pub fn enforcing() -> Self {
            let fake = Fake::default();
            fake.0.lock().enforces = true;
            fake
        }
    }

    impl Projects for Fake {
        fn are_enforced(&self, _: &Path) -> io::Result<bool> {
            Ok(self.0.lock().enforces)
        }

        fn project(&self, folder: &Path) -> io::Result<u32> {
            Ok(self.0.lock().projects.get(folder).copied().unwrap_or(0))
        }

        fn assign(&self, folder: &Path, project: u32) -> io::Result<()> {
            self.0.lock().projects.insert(folder.to_owned(), project);
            Ok(())
        }

        fn is_used(&self, _: &Path, project: u32) -> io::Result<bool> {
            let disk = self.0.lock();
            let assigned = disk.projects.values().any(|known| *known == project);
            Ok(assigned || disk.limits.contains_key(&project))
        }

        fn limit(&self, _: &Path, project: u32, bytes: u64) -> io::Result<()> {
            let mut disk = self.0.lock();
            if disk.refuses {
                return Err(io::Error::from(io::ErrorKind::PermissionDenied));
            }
            match bytes {
                0 => disk.limits.remove(&project),
                bytes => disk.limits.insert(project, bytes),
            };
            Ok(())
        }
    }

    fn by(project: u32) -> Held {
        Held::By { project }
    }

    #[test]
    fn each_volume_gets_a_project_of_its_own_and_gives_it_back() {
        let fake = Fake::enforcing();
        let quotas = Quotas::new(Box::new(fake.clone()));
        let (one, other) = (Path::new("/s/one"), Path::new("/s/other"));
        // Somebody else's project is not taken, and neither is one that others count from.
        fake.0.lock().limits.insert(FIRST, 5);
        assert_eq!(quotas.hold(one, 100), by(FIRST + 1));
        assert_eq!(quotas.hold(other, 200), by(FIRST + 2));
        // Ended before it was told: the same again.
        assert_eq!(quotas.hold(one, 100), by(FIRST + 1));
        quotas.resize(one, 300).expect("resized");
        assert_eq!(fake.0.lock().limits[&(FIRST + 1)], 300);
        assert_eq!(quotas.project(one), Some(FIRST + 1));
        fake.0.lock().projects.remove(one);
        quotas.release(other, FIRST + 1).expect("released");
        assert!(!fake.0.lock().limits.contains_key(&(FIRST + 1)));
        assert_eq!(quotas.hold(Path::new("/s/third"), 1), by(FIRST + 1));
    }

    #[test]
    fn what_is_not_held_says_why() {
        let fake = Fake::default();
        let quotas = Quotas::new(Box::new(fake.clone()));
        let folder = Path::new("/s/one");
        let why = Held::Not("the file system has no project quotas".to_owned());
        assert_eq!(quotas.hold(folder, 1), why);
        quotas.resize(folder, 2).expect("nothing to resize");
        assert!(fake.0.lock().limits.is_empty());
        fake.0.lock().enforces = true;
        fake.0.lock().refuses = true;
        let Held::Not(why) = quotas.hold(folder, 1) else {
            panic!("held");
        };
        assert_eq!(why, "its project quota cannot be set: permission denied");
        assert!(quotas.release(folder, FIRST).is_err());
        assert!(quotas.resize(folder, 9).is_err());
        // The projects of others are not given back, and none is where there are no quotas.
        assert!(quotas.release(folder, 7).is_ok());
        fake.0.lock().enforces = false;
        assert!(quotas.release(folder, FIRST).is_ok());
    }
}
