//! `partita check`: is a system file fit to be run?

use super::say;
use clap::Args;
use partita_host::outcome::EXIT_OK;
use partita_host::system_file::SystemFile;
use partita_host::{assemble, system_file};
use std::path::PathBuf;

/// Validate a system file without building or running anything
///
/// Checks the file's form, the rules of a system, and what can be known about the images: that their files are there
/// and fit into their partitions, and that payloads exist. Warns of partitions with `required = false` that the system
/// would start without.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo partita check rt-partitions/systems/demo.toml")]
pub(crate) struct Check {
    /// The system file
    #[arg(value_name = "SYSTEM.toml")]
    system: PathBuf,
}

impl Check {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        let system = SystemFile::load(&self.system)?;
        for warning in assemble::check(&system)? {
            say(format_args!("warning: {warning}"));
        }
        let config = &system.config;
        say(format_args!("{}: system {} is fine", self.system.display(), config.name));
        say(format_args!("  {} pCPUs, pCPU {} is the hypervisor's", system.machine.pcpus, config.housekeeping.pcpu));
        for partition in &config.partitions {
            let pcpus: Vec<String> = partition.pcpus.iter().map(u16::to_string).collect();
            let memory = system_file::human(partition.memory_bytes);
            say(format_args!("  partition {}: pCPU {}, {memory}", partition.name, pcpus.join(", ")));
        }
        Ok(EXIT_OK)
    }
}
