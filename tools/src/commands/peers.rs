//! `partita peers`: Partita beside KVM.

use super::say;
use clap::Args;
use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::EXIT_OK;
use partita_latency_tests::json_file::JsonFile;
use partita_latency_tests::{QUICK_SAMPLES, SAMPLES, SuiteOptions, peers};
use std::io::Write;
use std::path::PathBuf;

/// Measure exits, IPIs and timers under Partita, under KVM, and on the bare machine, side by side
///
/// Boots the latency payload three times over in the same QEMU, with time by instructions: on the bare machine, as a
/// partition, and as a guest of KVM on Debian's kernel with mitigations=off, which is fetched as a package and stays in the cache.
/// The same ELF file, the same loops. docs/peers.md says what is compared, and what is not.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  all rows are measured
  1  a boot failed, or samples are missing
  2  bad arguments, a package that cannot be had, or a machine that is not set up (ci/setup.sh does that)")]
pub(crate) struct PeersCommand {
    /// Take 200 samples of each row instead of 2,000
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file, too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Directory for logs and traces of all boots [default: target/partita/peers in the repository]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl PeersCommand {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        let json = self.json.as_deref().map(JsonFile::at).transpose()?;
        let out_dir = match &self.out {
            Some(dir) => dir.clone(),
            None => cargo_build::repository()?.join("target/partita/peers"),
        };
        let options = SuiteOptions {
            machine: MachineKind::Qemu,
            samples: if self.quick { QUICK_SAMPLES } else { SAMPLES },
            is_long: false,
            jobs: 1,
            out_dir,
        };
        let peers = match peers::run(&options) {
            Ok(peers) => peers,
            Err(error) => {
                // Nobody is left to tell where standard error is closed.
                let _ = writeln!(std::io::stderr(), "error: {error}");
                return Ok(error.exit_code());
            }
        };
        if let Some(json) = json {
            json.write(&peers)?;
        }
        say(format_args!("{}", peers::table(&peers).trim_fmt()));
        say(format_args!("KVM of Linux {}, mitigations=off, a guest of two vCPUs on CPUs of their own", peers.kernel));
        say(format_args!("{}", MachineKind::Qemu.tick(Clock::Icount)));
        Ok(EXIT_OK)
    }
}
