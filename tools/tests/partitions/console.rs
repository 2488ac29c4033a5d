//! The hypervisor's console, by a script of commands.

use crate::system::{load, run_with_commands};
use partita_host::emulator::Clock;
use partita_host::outcome::RunOutcome;

#[test]
#[ignore = "boots an emulator"]
fn commands_are_answered_one_by_one() {
    for clock in [Clock::Icount, Clock::Host] {
        // The guest never ends, nor do the kicks: the last command ends the run.
        let system = load("kicks.toml", &[("smp_call_rounds = 1000", "smp_call_rounds = 0")]);
        let left = run_with_commands(&system, clock, 120, &["help", "no such thing", "partitions", "help", "quit"]);
        assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
        let help = left.answers("help");
        assert!(help.iter().any(|line| line.contains("partitions")), "{}", left.consoles());
        assert_eq!(help, left.answers_to("help", 1), "{}", left.consoles());
        assert!(!left.answers("no such thing").is_empty(), "{}", left.consoles());
        assert!(left.answers("partitions").iter().any(|line| line.contains("target")), "{}", left.consoles());
    }
}
