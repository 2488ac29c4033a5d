//! A guest that writes garbage over its own trace window: its trace is lost, and said to be; nothing else is.

use super::{Attack, HOSTILE, last_word, lines, refused, seed, until_end};
use crate::system::{Left, clocks};
use When::{Accepted, AtOnce};
use partita_host::emulator::Clock;
use partita_host::trace::Owner;
use std::process::{Command, Output};

/// Bad windows that are announced first.
const BAD_WINDOWS: u64 = 15;

/// When garbage comes.
#[derive(Clone, Copy)]
enum When {
    AtOnce,
    /// When the hypervisor has accepted the window.
    Accepted,
}
/// An odd seed spoils at once, an even one later.
fn seed_for(when: When) -> u64 {
    match when {
        AtOnce => seed() | 1,
        Accepted => seed() & !1,
    }
}

fn run(clock: Clock, kind: &str, when: When) -> Left {
    let options = format!("attack=ring kind={kind}");
    let attack = Attack { clock, memory: "8 MiB", seed: seed_for(when), ..Attack::new(&options) };
    let left = attack.run(&[until_end()]);
    let consoles = left.consoles();
    assert!(last_word(&left).contains("finished, success"), "{consoles}");
    assert_eq!(refused(&left), (BAD_WINDOWS, 0), "{consoles}");
    assert!(lines(&left).last().is_some_and(|line| line.ends_with(" 0 wrong")), "{consoles}");
    left
}

fn tool(left: &Left, view: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_partita")).args(["trace", view]).arg(left.dir()).output().unwrap()
}

fn garbage_is_its_own(clock: Clock, kind: &str, when: When) {
    let left = run(clock, kind, when);
    let consoles = left.consoles();
    let is_hostile = |owner: &Owner| matches!(owner, Owner::Partition { number: HOSTILE, .. });
    let named = "partita: the trace window of partition 1: no trace region: its magic is missing";
    let says_so = left.console("hypervisor").lines().filter(|line| line.trim_end() == named).count();
    let views = ["decode", "hist"].map(|view| tool(&left, view));
    // The hypervisor's region and the real-time guest's are there, and whole: `assert_untouched` has read them.
    let others = left.trace.regions.iter().filter(|region| !is_hostile(&region.owner)).count();
    assert_eq!(others, 2, "{consoles}");
    if kind == "rings" {
        // The header is true, so that the region is shown, with what is wrong in it, and nothing is wrong elsewhere.
        assert_eq!(says_so, 0, "{consoles}");
        assert!(left.trace.regions.iter().any(|region| is_hostile(&region.owner)), "{consoles}");
        let damage = &left.trace.damage;
        assert!(!damage.is_empty() && damage.iter().all(|line| line.starts_with("hostile: ")), "{damage:?}");
        assert!(views.iter().all(|view| view.status.code() == Some(1)), "{views:?}");
    } else {
        // The hypervisor names the partition whose window it leaves out, when it was announced and at the end, or then only.
        assert!((1..=2).contains(&says_so), "{consoles}");
        assert!(!left.trace.regions.iter().any(|region| is_hostile(&region.owner)), "{consoles}");
        assert!(left.trace.damage.is_empty(), "{:?}", left.trace.damage);
        assert!(views.iter().all(|view| view.status.success()), "{views:?}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn garbage_in_a_trace_window_is_the_guests_own() {
    for (kind, when) in [("header", AtOnce), ("header", Accepted), ("rings", AtOnce), ("all", Accepted)] {
        garbage_is_its_own(Clock::Icount, kind, when);
    }
    if clocks().contains(&Clock::Host) {
        for (kind, when) in [("rings", Accepted), ("all", AtOnce)] {
            garbage_is_its_own(Clock::Host, kind, when);
        }
    }
}
