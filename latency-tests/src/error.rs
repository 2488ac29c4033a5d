//! How the suite fails.

use crate::boot::Boot;
use partita_host::outcome::{EXIT_BAD_INPUT, EXIT_RUN_FAILED};
use std::path::PathBuf;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// A boot could not take place: bad input, or a machine that is not set up.
    #[error("{0:#}")]
    SetUp(#[from] anyhow::Error),
    /// A boot took place and failed.
    #[error("the boot {boot} of the latency suite: {outcome}; its logs are in {}", dir.display())]
    BootFailed {
        /// Which.
        boot: Boot,
        /// What it came to.
        outcome: String,
        /// Where its logs are.
        dir: PathBuf,
    },
    /// The boot of KVM with the payload as its guest took place and failed, or left a trace that does not have all samples.
    #[error("the boot of KVM: {outcome}; its logs are in {}", dir.display())]
    KvmFailed {
        /// What it came to, or what is wrong.
        outcome: String,
        /// Where its logs are.
        dir: PathBuf,
    },
    /// A boot left a trace that does not have all samples.
    #[error("the boot {boot} of the latency suite: {problem}; its logs and trace are in {}", dir.display())]
    Samples {
        /// Which.
        boot: Boot,
        /// What is missing or wrong.
        problem: String,
        /// Where its trace is.
        dir: PathBuf,
    },
}

impl SuiteError {
    /// The exit code of the tool.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::SetUp(_) => EXIT_BAD_INPUT,
            Self::BootFailed { .. } | Self::KvmFailed { .. } | Self::Samples { .. } => EXIT_RUN_FAILED,
        }
    }
}
