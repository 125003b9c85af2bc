//! Runs the `nft` program. Rules are text, as an administrator reads and writes them; the kernel
//! takes a whole script in one transaction or not at all.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::table::Family;

/// Searched after `PATH`, which a program started by a container runtime may lack.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run {}: {source}", program.display())]
    Run {
        program: PathBuf,
        source: std::io::Error,
    },
    /// The kernel or the program refused the script; nothing of it is in force.
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// The `nft` program of this host.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
}

impl Default for Nft {
    /// The program found in `PATH` or where distributions put it.
    fn default() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&path)
            .chain(DIRECTORIES.map(PathBuf::from))
            .map(|directory| directory.join("nft"))
            .find(|program| program.is_file())
            .unwrap_or_else(|| PathBuf::from("nft"));
        Nft { program }
    }
}

impl Nft {
    pub fn new(program: &Path) -> Self {
        Nft {
            program: program.to_owned(),
        }
    }

    /// Applies the script as one transaction.
    pub fn apply(&self, script: &str) -> Result<(), Error> {
        let run = |source| Error::Run {
            program: self.program.clone(),
            source,
        };
        let mut child = Command::new(&self.program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(run)?;
        // A program that ends early says why on standard error: that is the better message.
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(script.as_bytes()),
            None => Ok(()),
        };
        let output = child.wait_with_output().map_err(run)?;
        if !output.status.success() {
            return Err(Error::Refused(summary(&output.stderr)));
        }
        written.map_err(run)
    }

    /// What `nft list` says, as JSON, without the elements of sets and maps.
    pub fn list(&self, what: &[&str]) -> Result<serde_json::Value, Error> {
        let output = Command::new(&self.program)
            .args(["--json", "--terse", "list"])
            .args(what)
            .output()
            .map_err(|source| Error::Run {
                program: self.program.clone(),
                source,
            })?;
        if !output.status.success() {
            return Err(Error::Refused(summary(&output.stderr)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| Error::Refused(error.to_string()))
    }

    /// Removes the table with all that is in it. That it is not there is no error.
    pub fn remove_table(&self, family: Family, name: &str) -> Result<(), Error> {
        let table = format!("table {family} {name}");
        // Adding first makes the deletion good whether or not the table is there.
        self.apply(&format!("add {table}\ndelete {table}\n"))
    }
}

/// The first lines of what `nft` complains about; a refused batch can repeat one cause for
/// thousands of elements.
fn summary(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('^'))
        .map(|line| {
            let end = line
                .char_indices()
                .nth(300)
                .map_or(line.len(), |(at, _)| at);
            &line[..end]
        })
        .take(7)
        .collect();
    if lines.len() > 6 {
        lines[6] = "…";
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let error = Nft::new(Path::new("/nowhere/nft"))
            .apply("")
            .expect_err("there is none");
        assert!(error.to_string().contains("/nowhere/nft"), "{error}");
    }

    #[test]
    fn complaints_are_short() {
        let text = "Error: File exists\nadd element inet t m\n^^^^^^\n".repeat(100);
        let summary = summary(text.as_bytes());
        assert!(summary.starts_with("Error: File exists; add element"));
        assert!(summary.ends_with("; …") && summary.len() < 300, "{summary}");
    }
}
