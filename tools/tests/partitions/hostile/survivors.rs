//! Attacks that the attacker survives: it counts what it was refused, and the hypervisor counts the same.

use super::{Attack, amount, command, last_word, lines, numbers, pass, refused, stops, until_end};
use crate::bystander::rounds;
use crate::system::{Left, is_long, uses_vmx};
use partita_host::emulator::Clock;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, StopCause};
use partita_trace::snapshot::Body;

/// The attacker's pCPUs.
const PCPUS: [u16; 2] = [1, 4];
/// Registers of the ranges that SVM's permission map knows, but for the timer's count, and ports.
const MSRS: u64 = 3 * 0x2000 - 1;
const PORTS: u64 = 1 << 16;

/// What the attacker's last line says.
pub(super) struct Said {
    pub(super) tries: u64,
    accesses: u64,
    ipis: u64,
}

/// Runs an attack to its end.
fn run(attack: &Attack<'_>) -> (Left, Said) {
    let left = attack.run(&[until_end()]);
    let consoles = left.consoles();
    let lines = lines(&left);
    let last = lines.last().unwrap_or_else(|| panic!("{consoles}"));
    println!("{last}");
    assert!(last.ends_with(", 0 wrong"), "{consoles}");
    let (tries, refusals) = last.split_once(" tries, ").unwrap_or_else(|| panic!("{consoles}"));
    let (accesses, ipis) = numbers(refusals.split_once("refused ").unwrap().1);
    let said = Said { tries: tries.rsplit(' ').next().unwrap().parse().unwrap(), accesses, ipis };
    assert!(last_word(&left).starts_with("partita: partition 1 \"hostile\": finished, success; "), "{consoles}");
    let stops = stops(&left);
    assert!(
        matches!(stops[..], [stop] if stop.cause == StopCause::Finished && stop.detail == 0),
        "{stops:?}\n{consoles}"
    );
    (left, said)
}

/// What the attacker says before its last line: how many tries there were of each kind.
pub(super) fn of_these<const KINDS: usize>(left: &Left) -> [u64; KINDS] {
    let lines = lines(left);
    let line = lines.iter().find_map(|line| line.split_once(": of these: "));
    let (_, kinds) = line.unwrap_or_else(|| panic!("{}", left.consoles()));
    let words = kinds.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    words.collect::<Vec<u64>>().try_into().unwrap()
}

/// Refused accesses and IPIs that the trace of the attacker's pCPUs keeps, and frames that it does not.
pub(super) fn traced(left: &Left) -> (u64, u64, u64) {
    let hypervisor = left.trace.regions.iter().filter(|region| region.owner == Owner::Hypervisor);
    let rings = hypervisor.flat_map(|region| &region.dump.rings).filter(|ring| PCPUS.contains(&ring.ring));
    let (mut accesses, mut ipis, mut overwritten) = (0, 0, 0);
    for ring in rings {
        overwritten += ring.summary().0.overwritten;
        for frame in ring.frames() {
            match frame.body {
                Body::Event(Event::PolicyRefused { .. }) => accesses += 1,
                Body::Event(Event::IcrRefused { .. }) => ipis += 1,
                _ => {}
            }
        }
    }
    (accesses, ipis, overwritten)
}

/// The same, with an exact count on both sides, and in the trace if its rings kept all; if not, nothing is missing that was
/// not overwritten.
pub(super) fn run_exactly(attack: &Attack<'_>) -> (Left, Said) {
    let (left, said) = run(attack);
    assert!(said.tries > 0);
    assert_eq!(refused(&left), (said.accesses, said.ipis), "{}", left.consoles());
    let (accesses, ipis, overwritten) = traced(&left);
    println!("traced: {accesses} accesses, {ipis} IPIs; {overwritten} frames overwritten");
    if overwritten == 0 {
        assert_eq!((accesses, ipis), (said.accesses, said.ipis));
    } else {
        assert!(accesses <= said.accesses && ipis <= said.ipis, "{accesses} {ipis}");
        assert!(accesses + ipis + overwritten >= said.accesses + said.ipis, "{accesses} {ipis} {overwritten}");
    }
    (left, said)
}

pub(super) fn exits(left: &Left, reason: ExitReason) -> u64 {
    PCPUS.iter().map(|pcpu| left.count(*pcpu, HistogramId::Exit(reason))).sum()
}

#[test]
#[ignore = "boots an emulator"]
fn every_msr_is_read_and_written() {
    let steps = amount(2000, 100_000, 500);
    let (left, said) = run_exactly(&Attack::new(&format!("attack=msrs steps={steps}")));
    let [reads, writes, left_out, icr, other_reads, other_writes] = of_these(&left);
    // Each is read, and has six values; of the ICR's own there is one. What would stop the partition is left out, which only
    // some values of APIC_BASE would.
    assert_eq!((reads, writes + left_out, icr), (MSRS, 6 * (MSRS - 1), 1));
    assert!(left_out < 6, "{left_out}");
    assert!(other_reads > steps / 2 && other_writes == 6 * other_reads, "{other_reads} {other_writes}");
    assert_eq!(said.tries, reads + writes + icr + other_reads + other_writes);
    // What is refused is an exit, and some registers that are not.
    let (reads, writes) = (exits(&left, ExitReason::MsrRead), exits(&left, ExitReason::MsrWrite));
    assert!(reads + writes >= said.accesses, "{reads} {writes}");
}

#[test]
#[ignore = "boots an emulator"]
fn every_port_is_read_and_written() {
    // String forms at every so many ports.
    let stride = amount(64, 1, 1024);
    let (left, said) = run_exactly(&Attack::new(&format!("attack=ports steps={stride}")));
    let [reads, writes, left_out, strings] = of_these(&left);
    assert_eq!((reads, writes + left_out), (3 * PORTS, 3 * PORTS));
    // Of its own console's ports eight by the byte, seven by words, five by double words; the port that finishes by each
    // width; and by one random value at most the three ways to power off and to reset.
    assert!((20 + 3..=20 + 3 + 3).contains(&left_out), "{left_out}");
    // Those that begin before its console's ports, and reach one, are refused as all others.
    let device_ports = 0x1100 + 0x10;
    let others = (0..PORTS).filter(|port| *port >= 0x1100 && !(0x4000..0x4010).contains(port));
    let ports = device_ports + others.filter(|port| port % stride == 1 % stride).count() as u64;
    assert_eq!(strings, 12 * (ports - 8));
    assert_eq!(said.tries, reads + writes + strings);
    let (ins, outs) = (exits(&left, ExitReason::IoIn), exits(&left, ExitReason::IoOut));
    // But for its own console, each is an exit.
    assert!(ins >= reads - 20 && outs >= writes, "{ins} {outs}");
    assert!(ins + outs >= reads - 20 + writes + strings, "{ins} {outs}");
}

#[test]
#[ignore = "boots an emulator"]
fn local_vectors_have_no_forbidden_mode() {
    let steps = amount(10_000, 200_000, 2000);
    let (_, said) = run_exactly(&Attack::new(&format!("attack=lvt steps={steps}")));
    // Switched on and off, each entry with each of its flags.
    assert_eq!(said.tries, 2 * 6 * 512 + steps);
}

#[test]
#[ignore = "boots an emulator"]
fn no_hypercall_does_harm() {
    let steps = amount(30_000, 1_000_000, 5000);
    let (left, said) = run_exactly(&Attack::new(&format!("attack=hypercalls steps={steps}")));
    // But for the call that ends the partition, which chance chooses now and then.
    assert!((steps * 99 / 100..=steps).contains(&said.tries), "{}", said.tries);
    assert!(exits(&left, ExitReason::Hypercall) >= said.tries);
}

#[test]
#[ignore = "boots an emulator"]
fn no_privileged_instruction_gets_through() {
    let steps = amount(20, 1000, 2);
    /// In the list; all INT n but the NMI's; bits of CR4; far calls and jumps; by features; time-stamp counters; FS; general
    /// detection, and VMRUN in 32-bit code.
    const EACH: u64 = 152 + 255 + 17 + 8 * 2 + 9 + 2 + 1 + 2;
    let (left, said) = run_exactly(&Attack::new(&format!("attack=instructions steps={steps}")));
    assert_eq!(said.tries, EACH * steps);
    // 14 in the list, and one in 32-bit code.
    assert!(exits(&left, ExitReason::VirtInstruction) >= 15 * steps);
}

/// To so many destinations, and then so many of any values.
fn every_class_of_ipi(clock: Clock, destinations: u64, steps: u64) {
    let options = format!("attack=icr count={destinations} steps={steps}");
    let (left, said) = run_exactly(&Attack { clock, ..Attack::pair(&options) });
    let [classes, left_out, any, any_left_out] = of_these(&left);
    println!("{classes} classes, {left_out} left out; {any} values, {any_left_out} left out");
    // Physical and logical: modes, levels, triggers and shorthands, and each reserved bit.
    assert_eq!(classes + left_out, destinations * 2 * (8 * 4 * 4 + 16));
    assert_eq!((any + any_left_out, said.tries), (steps, classes + any));
    // INIT to itself, which few destinations name.
    assert!(left_out <= destinations * 2, "{left_out}");
}

#[test]
#[ignore = "boots an emulator"]
fn no_ipi_reaches_another_by_instruction_count() {
    every_class_of_ipi(Clock::Icount, amount(20, 20, 2), amount(2000, 30_000, 200));
}

/// In the short form to the first destinations only, one of its vCPUs among them: where the host has fewer cores than the
/// machine, each start of a vCPU waits for its thread.
#[test]
#[ignore = "boots an emulator"]
fn no_ipi_reaches_another_by_threads() {
    let (destinations, steps) = if is_long() { (20, 1000) } else { (2, 20) };
    every_class_of_ipi(Clock::Host, destinations, steps);
}

/// Exits of the attacker by reason, which are printed; at least so many of each of these.
fn assert_exits(left: &Left, kinds: &[(ExitReason, u64)]) {
    let of_all = ExitReason::ALL.iter().map(|reason| (*reason, exits(left, *reason))).filter(|(_, count)| *count > 0);
    println!("exits: {:?}", of_all.collect::<Vec<_>>());
    for (kind, least) in kinds {
        assert!(exits(left, *kind) >= *least, "{kind:?}: {}", exits(left, *kind));
    }
}

fn storm(clock: Clock, steps: u64) {
    let options = format!("attack=storm steps={steps}");
    let (left, said) = run_exactly(&Attack { clock, ..Attack::pair(&options) });
    // Bursts of 64 on each vCPU.
    assert_eq!(said.tries, 2 * 64 * steps);
    // There are some 50 kinds of bursts; NMIs of a burst may become one.
    assert_exits(
        &left,
        &[
            (ExitReason::Cpuid, 64),
            (ExitReason::MsrRead, 64),
            (ExitReason::MsrWrite, 64),
            (ExitReason::IoIn, 64),
            (ExitReason::IoOut, 64),
            (ExitReason::Hypercall, 64),
            (ExitReason::IcrWrite, 64),
            (ExitReason::VirtInstruction, 64),
            (ExitReason::DebugTrap, 64),
            (ExitReason::Kick, 1),
            // VMX tells it only where another NMI waits.
            (ExitReason::NmiReturn, if uses_vmx() { 0 } else { 1 }),
        ],
    );
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_exits_is_not_noticed_by_instruction_count() {
    storm(Clock::Icount, amount(500, 10_000, 60));
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_exits_is_not_noticed_by_threads() {
    storm(Clock::Host, amount(200, 4000, 0));
}

/// INITs and start-up IPIs to one vCPU by the other, which tries everything meanwhile.
fn reset_storm(clock: Clock, steps: u64) {
    let options = format!("attack=reset-storm steps={steps}");
    let (left, said) = run_exactly(&Attack { clock, ..Attack::pair(&options) });
    let [inits, startups, lives, tries] = of_these(&left);
    println!("{inits} INITs, {startups} start-up IPIs, {lives} lives, {tries} tries in them");
    assert_eq!(said.tries, steps);
    let sent = left.events(PCPUS[0]);
    let count = |is_it: fn(&Event) -> bool| sent.iter().filter(|(_, event)| is_it(event)).count() as u64;
    // At its begin and its end it starts the other as one should: by an INIT, and up to two start-up IPIs.
    assert_eq!(count(|event| matches!(event, Event::GuestInit { .. })), inits + 2);
    let started = count(|event| matches!(event, Event::GuestSipi { .. }));
    assert!((startups + 2..=startups + 4).contains(&started), "{started} {startups}");
    assert!(lives >= 2 && lives <= inits + 2 && tries > 0, "{lives} lives of {inits} INITs, {tries} tries");
    if clock == Clock::Icount {
        assert!(lives > steps / 4 && tries > lives, "{lives} lives, {tries} tries");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_resets_is_not_noticed_by_instruction_count() {
    reset_storm(Clock::Icount, amount(1500, 15_000, 200));
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_resets_is_not_noticed_by_threads() {
    reset_storm(Clock::Host, amount(500, 5000, 0));
}

/// How much a storm leaves of the real-time guest's speed: its rounds beside it, and beside an attacker that computes. By
/// instruction count each vCPU has its share of all instructions.
#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_exits_slows_nobody_by_instruction_count() {
    let [storm, calm] = ["attack=storm steps=1000000000", "attack=calm"].map(|options| {
        let mut steps = pass(amount(300, 3000, 30));
        steps.push(command("stop hostile"));
        rounds(&Attack::pair(options).run(&steps))
    });
    println!("rounds of the real-time guest in a million ticks: {storm:.3} beside a storm, {calm:.3} beside none");
    assert!(storm > 0.95 * calm, "{storm} {calm}");
}
