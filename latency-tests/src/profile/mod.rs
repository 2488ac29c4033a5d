//! How many instructions each function of the hypervisor executes on the paths behind the rows: what a row that became slower is
//! compared with.
//!
//! - `kind`: the paths, and the rows that they are behind.
//! - `measure`: boots that log each instruction.
//! - `change`: what grew between two profiles.

mod change;
mod kind;
mod measure;

pub use change::{Change, changes};
pub use kind::PathKind;
pub use measure::{measure, of_boot, ways_of_boot};

use partita_host::cargo_build;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

const HEAD: &str = "# Instructions of the hypervisor from an exit to the next entry (exit.*), and of a round of calls on pCPU 0 (round.*), by the
# function that they are of; what is inlined from elsewhere counts for the function that it is in. QEMU, SVM, tracing on.
# Written by `cargo partita bench --profile`; a row above its budget is compared with it.

";

/// Instructions by function.
pub type Functions = BTreeMap<String, u64>;

/// The profile of each path, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Profile {
    /// The paths.
    pub paths: BTreeMap<String, Functions>,
}

impl Profile {
    /// The path of the profile of this repository.
    ///
    /// # Errors
    /// The repository is not there any more.
    pub fn path() -> anyhow::Result<PathBuf> {
        Ok(cargo_build::repository()?.join("latency-tests/profiles/qemu-svm.toml"))
    }

    /// Reads the profile of this repository.
    ///
    /// # Errors
    /// It cannot be read, or is malformed.
    pub fn of_repository() -> anyhow::Result<Self> {
        let path = Self::path()?;
        let cure = "write it with `cargo partita bench --profile`";
        let text = std::fs::read_to_string(&path)
            .map_err(|error| anyhow::anyhow!("cannot read the profile {}: {error}; {cure}", path.display()))?;
        Self::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}; {cure}", path.display()))
    }

    /// Reads the text of a profile.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The text of the profile.
    ///
    /// # Errors
    /// There are none: each of its keys can be written.
    pub fn text(&self) -> anyhow::Result<String> {
        Ok(format!("{HEAD}{}", toml::to_string(self)?))
    }

    /// The instructions of a path, if it is there.
    pub fn total(&self, path: &str) -> Option<u64> {
        self.paths.get(path).map(total)
    }
}

/// All instructions.
fn total(functions: &Functions) -> u64 {
    functions.values().fold(0, |sum, count| sum.saturating_add(*count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_back() {
        let functions = Functions::from([("a::b<c> as d".to_owned(), 3), ("e".to_owned(), 4)]);
        let profile = Profile { paths: BTreeMap::from([("exit.cpuid".to_owned(), functions)]) };
        assert_eq!(Profile::parse(&profile.text().unwrap()).unwrap(), profile);
        assert_eq!((profile.total("exit.cpuid"), profile.total("exit.io")), (Some(7), None));
        assert!(Profile::parse("[\"exit.cpuid\"]\nf = -1").is_err());
        assert!(HEAD.lines().all(|line| line.chars().count() <= 132));
    }

    #[test]
    fn the_repositorys_profile_has_every_path() {
        let profile = Profile::of_repository().unwrap();
        for kind in PathKind::ALL {
            assert!(profile.total(kind.name()).is_some_and(|total| total > 10), "{}", kind.name());
        }
        assert_eq!(profile.paths.len(), PathKind::ALL.len());
    }
}
