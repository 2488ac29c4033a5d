//! `partita costs`: what exits cost beside instructions.

use super::say;
use clap::Args;
use clap::builder::PossibleValuesParser;
use partita_host::cargo_build;
use partita_host::outcome::EXIT_OK;
use partita_latency_tests::costs;
use std::io::Write;
use std::path::PathBuf;

/// Count what each frequent exit costs on hardware beside its instructions
///
/// Boots the latency payload in QEMU with SVM, logs each instruction that the hypervisor executes, and counts in the way that
/// each kind of exit goes most often: loads, stores, cache lines, branches, locked operations, and instructions that serialise or
/// are slow in other ways. docs/worst-case.md says what the columns are.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
  0  counted
  1  a boot failed, or its log has not all exits
  2  bad arguments, or a machine that is not set up (ci/setup.sh does that)")]
pub(crate) struct Costs {
    /// Directory for logs and traces of all boots [default: target/partita/costs in the repository]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the instructions of this kind of exit, too
    #[arg(long, value_name = "EXIT", value_parser = PossibleValuesParser::new(costs::listed_kinds()))]
    listing: Option<String>,
}

impl Costs {
    pub(crate) fn execute(&self) -> anyhow::Result<u8> {
        let out_dir = match &self.out {
            Some(dir) => dir.clone(),
            None => cargo_build::repository()?.join("target/partita/costs"),
        };
        let costs = match costs::run(&out_dir) {
            Ok(costs) => costs,
            Err(error) => {
                // Nobody is left to tell where standard error is closed.
                let _ = writeln!(std::io::stderr(), "error: {error}");
                return Ok(error.exit_code());
            }
        };
        say(format_args!("{}", costs::table(&costs).trim_fmt()));
        if let Some(name) = &self.listing {
            let Some(text) = costs::listing_of(&costs, name) else {
                anyhow::bail!("no {name} was among the exits of the boots, which are in {}", out_dir.display());
            };
            say(format_args!("\n{}", text.trim_end()));
        }
        Ok(EXIT_OK)
    }
}
