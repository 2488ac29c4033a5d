//! The longest exit of each kind, whatever a guest does: no longer than `latency-tests/worst-case.toml` says
//! (docs/worst-case.md).
//!
//! In QEMU one clock counts the instructions of all pCPUs, so that the attacker is alone there: but for the housekeeping
//! core's, which wakes now and then, nobody else's are in its exits. In Bochs pCPUs run side by side: there the attacks of `hostile` and the neighbours of `lateness` are held to the limits
//! as they are.

use crate::system::{Left, is_long, machine, run};
use partita_host::cargo_build;
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_host::system_file::SystemFile;
use partita_host::trace::{Owner, Trace, WorstExit, worst_exits, worst_table};
use partita_trace::Event;
use partita_trace::names::ExitReason;
use partita_trace::snapshot::Body;
use std::collections::BTreeMap;

/// Limits by machine and kind, in ticks.
const LIMITS: &str = include_str!("../../../latency-tests/worst-case.toml");
/// An attacker beside nobody.
const SYSTEM: &str = r#"
[system]
name = "worst-case"
[machine]
pcpus = 3
[housekeeping]
pcpu = 0
smp_call_hz = 0
[trace]
ring = "8 MiB"
[[partition]]
name = "hostile"
pcpus = PCPUS
lapic = "passthrough"
memory = "8 MiB"
image = { kind = "payload", name = "hostile" }
cmdline = "OPTIONS"
expect = "EXPECT"
on_reboot = "end"
"#;

/// An attack: its options in the short form and in the long one, the attacker's pCPUs, and how its partition has to end.
type Attack = (&'static str, &'static str, &'static str, &'static str);

/// One after the other, they leave the guest in every way that there is for one vCPU by itself.
const ALONE: &[Attack] = &[
    ("attack=lvt steps=200", "attack=lvt steps=100000", "[1]", "finish"),
    ("attack=hypercalls steps=2000", "attack=hypercalls steps=500000", "[1]", "finish"),
    ("attack=instructions steps=1", "attack=instructions steps=200", "[1]", "finish"),
    ("attack=user steps=1", "attack=user steps=50", "[1]", "finish"),
    ("attack=shutdowns", "attack=shutdowns", "[1]", "anything"),
    ("attack=pages", "attack=pages", "[1]", "anything"),
];
/// Those that take long however short they are.
const LONG_ALONE: &[Attack] =
    &[("", "attack=msrs steps=100000", "[1]", "finish"), ("", "attack=ports steps=16", "[1]", "finish")];
/// In Bochs, where two vCPUs can be told apart, and all else is held by other tests.
const PAIR: &[Attack] = &[("attack=storm steps=60", "attack=storm steps=600", "[1, 2]", "finish")];

/// The limits of a machine.
fn limits(machine: MachineKind) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, BTreeMap<String, u64>> = toml::from_str(LIMITS).unwrap();
    for kind in all.values().flat_map(|limits| limits.keys()) {
        let is_one = ExitReason::ALL.iter().any(|reason| reason.name() == kind);
        assert!(is_one, "latency-tests/worst-case.toml: there is no kind of exit {kind:?}");
    }
    all.remove(&machine.result_name()).unwrap_or_default()
}

/// Asserts that each is within its limit.
fn assert_within(worst: &[WorstExit], names: &[String]) {
    let limits = limits(machine());
    println!("{}", worst_table(worst, names).trim_fmt());
    let beyond = worst.iter().filter(|exit| limits.get(exit.reason.name()).is_none_or(|limit| exit.ticks > *limit));
    let beyond: Vec<String> = beyond
        .map(|exit| {
            let limit = limits.get(exit.reason.name()).map_or("none".to_owned(), u64::to_string);
            format!("{}: {} ticks, the limit is {limit}", exit.reason.name(), exit.ticks)
        })
        .collect();
    assert!(
        beyond.is_empty(),
        "above latency-tests/worst-case.toml, [{}]:\n{}",
        machine().result_name(),
        beyond.join("\n")
    );
}

/// Asserts of a run of another test that no exit on these pCPUs took longer than its limit: in Bochs, where only the exit
/// itself counts.
pub(crate) fn hold(left: &Left, pcpus: &[u16]) {
    if machine() != MachineKind::Qemu {
        assert_within(&worst_exits([&left.trace], |pcpu| pcpus.contains(&pcpu)), &[String::new()]);
    }
}

/// Runs an attack, alone: the run ends with its partition.
fn run_alone((short, long, pcpus, expect): &Attack) -> Left {
    let options = if is_long() { long } else { short };
    let text = SYSTEM.replace("PCPUS", pcpus).replace("OPTIONS", options).replace("EXPECT", expect);
    let path = cargo_build::repository().unwrap().join("rt-partitions/systems/tests/worst-case.toml");
    let left = run(&SystemFile::parse(&text, &path).unwrap(), Clock::Icount, 300);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left
}

/// In QEMU so many exits of a kind may be longer in a run, if it has [`MANY`]: those in which the housekeeping core woke.
const WAKES_MAX: usize = 2;
/// See [`WAKES_MAX`]: of fewer exits all have to be within the limit, or none would be held to it.
const MANY: usize = 20;

/// Asserts that no more exits than that were longer than their limits, of those that are still in the rings.
fn assert_few_longer(trace: &Trace, name: &str) {
    let limits = limits(machine());
    let hypervisor = trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
    let mut longer: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for frame in hypervisor.flat_map(|region| &region.dump.rings).flat_map(|ring| ring.frames()) {
        let Body::Event(Event::Exit { reason, ticks, .. }) = frame.body else { continue };
        *counts.entry(reason.name()).or_default() += 1;
        if limits.get(reason.name()).is_none_or(|limit| ticks > *limit) {
            longer.entry(reason.name()).or_default().push(ticks);
        }
    }
    println!("{name}: longer than their limits: {longer:?}");
    assert!(!counts.is_empty(), "{name}: no exit is in the rings");
    let allowed = |name: &str| if limits.contains_key(name) && counts[name] >= MANY { WAKES_MAX } else { 0 };
    let many = longer.iter().find(|(name, ticks)| ticks.len() > allowed(name));
    assert!(many.is_none(), "{name}: above latency-tests/worst-case.toml, [{}]: {many:?}", machine().result_name());
}

#[test]
#[ignore = "boots an emulator"]
fn no_exit_takes_longer_than_its_limit() {
    let attacks = match (machine(), is_long()) {
        (MachineKind::Qemu, false) => ALONE.to_vec(),
        (MachineKind::Qemu, true) => [ALONE, LONG_ALONE].concat(),
        _ => PAIR.to_vec(),
    };
    let name = |attack: &Attack| if is_long() { attack.1 } else { attack.0 }.to_owned();
    let runs: Vec<(String, Trace)> = attacks.iter().map(|attack| (name(attack), run_alone(attack).trace)).collect();
    let worst = worst_exits(runs.iter().map(|(_, trace)| trace), |_| true);
    let names: Vec<String> = runs.iter().map(|(name, _)| name.clone()).collect();
    if machine() != MachineKind::Qemu {
        return assert_within(&worst, &names);
    }
    println!("{}", worst_table(&worst, &names).trim_fmt());
    runs.iter().for_each(|(name, trace)| assert_few_longer(trace, name));
}
