//! The host tool: `cargo partita ...`.

mod commands;

use clap::{Parser, Subcommand};
use partita_host::outcome::EXIT_BAD_INPUT;
use std::io::Write;
use std::process::ExitCode;

const EXIT_CODES: &str = "Exit codes:
  0  success
  1  the run took place and failed: a partition failed, the hypervisor refused, the time was up;
     or parts of a trace are damaged
  2  bad arguments or input, or a machine that is not set up (ci/setup.sh does that); nothing was run";

/// Builds, runs and examines systems of real-time partitions.
#[derive(Debug, Parser)]
#[command(name = "partita", bin_name = "cargo partita", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(commands::check::Check),
    Run(commands::run::Run),
    Image(commands::image::Image),
    Bench(commands::bench::Bench),
    Peers(commands::peers::PeersCommand),
    Costs(commands::costs::Costs),
    Size(commands::size::Size),
    Trace(commands::trace::TraceCommand),
}

fn main() -> ExitCode {
    // Bad arguments end here, with exit code 2 as well.
    let result = match Cli::parse().command {
        Command::Check(check) => check.execute(),
        Command::Run(run) => run.execute(),
        Command::Image(image) => image.execute(),
        Command::Bench(bench) => bench.execute(),
        Command::Peers(peers) => peers.execute(),
        Command::Costs(costs) => costs.execute(),
        Command::Size(size) => size.execute(),
        Command::Trace(trace) => trace.execute(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(EXIT_BAD_INPUT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_arguments_are_refused() {
        for args in [
            &["partita"][..],
            &["partita", "run"],
            &["partita", "run", "s.toml", "--timeout", "0"],
            &["partita", "run", "s.toml", "--timeout", "soon"],
            &["partita", "run", "s.toml", "--witness"],
            &["partita", "run", "s.toml", "--type", "d.txt"],
            &["partita", "run", "s.toml", "--type", "=d.txt"],
            &["partita", "run", "s.toml", "--show", "rt0", "--quiet"],
            &["partita", "run", "s.toml", "--console", "rt0", "--console", "rt1"],
            &["partita", "image", "s.toml"],
            &["partita", "image", "-o", "s.iso"],
            &["partita", "bench", "rows"],
            &["partita", "bench", "--json"],
            &["partita", "bench", "--machine", "fly"],
            &["partita", "bench", "--allow-slower"],
            &["partita", "bench", "--quick", "--long"],
            &["partita", "bench", "--quick", "--tighten"],
            &["partita", "bench", "--profile", "--machine", "bochs"],
            &["partita", "bench", "--from-trace", "d", "--quick"],
            &["partita", "fly"],
            &["partita", "trace"],
            &["partita", "trace", "decode"],
            &["partita", "trace", "decode", "d", "--limit", "1", "--tail", "1"],
            &["partita", "trace", "decode", "d", "--kind", "fly"],
            &["partita", "trace", "decode", "d", "--pcpu", "-1"],
            &["partita", "trace", "decode", "d", "--around", "soon"],
            &["partita", "trace", "decode", "d", "--around", "worst:fly"],
            &["partita", "trace", "decode", "d", "--within", "1ms"],
        ] {
            assert!(Cli::try_parse_from(args).is_err(), "{args:?}");
        }
        for args in [
            &["partita", "run", "s.toml", "--icount", "--timeout", "5", "--witness"][..],
            &["partita", "run", "s.toml", "--console"],
            &[
                "partita",
                "run",
                "s.toml",
                "--console",
                "rt0",
                "--commands",
                "c.txt",
                "--type",
                "a=x",
                "--type",
                "b=y=z",
            ],
            &["partita", "run", "s.toml", "--show", "rt0,hypervisor", "--show", "rt1"],
            &["partita", "run", "s.toml", "--commands", "c.txt", "--icount"],
            &["partita", "image", "s.toml", "-o", "s.iso", "--cmdline", "console serial=com2"],
            &["partita", "bench", "--machine", "all", "--compare", "old.json", "--allow-slower", "--json", "new.json"],
            &["partita", "bench", "--machine", "kvm", "--long", "--histograms"],
            &["partita", "bench", "--from-trace", "d", "e", "--histogram"],
            &["partita", "bench", "--machine", "bochs:svm", "--tighten"],
            &["partita", "trace", "decode", "d", "--around", "worst:exit", "--within", "5us", "--kind", "exit"],
        ] {
            assert!(Cli::try_parse_from(args).is_ok(), "{args:?}");
        }
    }
}
