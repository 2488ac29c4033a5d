//! Why an image cannot be made.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// A file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// GRUB cannot boot the kernel.
    #[error("{} cannot be booted by multiboot2: {why}", path.display())]
    Kernel {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The command line has a character that no loader passes on.
    #[error("the command line {text:?} has the character {character:?}; leave it out")]
    Character {
        /// The command line.
        text: String,
        /// The character.
        character: char,
    },
    /// The command line is longer than what the hypervisor takes.
    #[error("the command line has {len} bytes; shorten it to {max} at most")]
    TooLong {
        /// Its length.
        len: usize,
        /// The longest.
        max: usize,
    },
    /// A part of GRUB is not installed.
    #[error("there is no GRUB for {machines} at {}; run ci/setup.sh to install it", dir.display())]
    NoGrub {
        /// What it boots.
        machines: &'static str,
        /// Where it would be.
        dir: PathBuf,
    },
    /// A program is not installed.
    #[error("cannot run {program}: {cause}; run ci/setup.sh to install it")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// A program failed.
    #[error("{program} failed:\n{output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it said.
        output: String,
    },
}

impl IsoError {
    /// Makes an error of what kept a file from being read.
    pub(super) fn reading(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Read { path: path.to_path_buf(), cause }
    }

    /// Makes an error of what kept a file from being written.
    pub(super) fn writing(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Write { path: path.to_path_buf(), cause }
    }
}
