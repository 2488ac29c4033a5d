//! Attacks that stop the attacker's partition: a try in each life, and the console restarts it.

use super::survivors::traced;
use super::{Attack, Stop, amount, await_line, command, last_word, lines, pass, seed, starts, stops, until_end};
use crate::system::{Left, clocks, is_long, machine, uses_vmx};
use partita_host::emulator::{Clock, MachineKind, ScriptStep};
use partita_trace::names::StopCause;
use std::ops::RangeInclusive;

const APIC_PAGE: u64 = 0xFEE0_0000;
/// The first page that is not the attacker's, by its number. The hypervisor's image lies below, at 1 MiB: to the attacker that
/// is its own memory, in which it runs.
const FIRST_PAGE: u64 = 0x200;
/// Milliseconds for the first life, which the console has to tell that it may begin.
const FIRST_LIFE: u64 = 20;
/// Lives that take other addresses first: devices, powers of two and their neighbours.
const OTHERS: u64 = 14 + 3 * 19;

/// What each life said that it does, and how it ended.
fn lives(left: &Left, count: usize) -> Vec<(String, Stop)> {
    let said: Vec<String> =
        lines(left).iter().filter_map(|line| line.split_once(": life ")).map(|(_, said)| said.to_owned()).collect();
    let stops = stops(left);
    assert_eq!((said.len(), stops.len()), (count, count), "{stops:?}\n{}", left.consoles());
    let in_order = said.iter().enumerate().map(|(index, said)| {
        let (number, what) = said.split_once(": ").unwrap();
        assert_eq!(number.parse::<usize>().unwrap(), index + 1, "{}", left.consoles());
        what.to_owned()
    });
    in_order.zip(stops).collect()
}

fn restart(times: usize) -> ScriptStep {
    command(&format!("restart hostile {times}"))
}

/// Where the last partition's memory ends in the machine's, which lies behind the hypervisor's.
fn memory_end(left: &Left) -> u64 {
    let console = left.console("hypervisor");
    let ends = console.lines().filter_map(|line| {
        let (head, tail) = line.strip_prefix("partita: partition ")?.split_once(" MiB at 0x")?;
        let start = u64::from_str_radix(tail.split(',').next()?, 16).ok()?;
        Some(start + (head.rsplit(' ').next()?.parse::<u64>().ok()? << 20))
    });
    let ends: Vec<u64> = ends.collect();
    assert_eq!(ends.len(), 3, "{console}");
    ends.into_iter().max().unwrap()
}

/// Accesses to devices, powers of two, `pages` pages from `first` on, `stride` apart, and addresses at random. Each stops the
/// partition, at this address. Notes the pages that were touched; gives the page at which the partitions' memory ends.
fn touch(attack: &str, first: u64, stride: u64, pages: u64, touched: &mut Vec<u64>) -> u64 {
    let random = amount(20, 200, 5);
    let restarts = (OTHERS + pages + random) as usize;
    let options = format!("attack={attack} from={first} count={pages} steps={stride}");
    let left =
        Attack { ring: "1 MiB", ..Attack::new(&options) }.run(&self::restarts(Clock::Icount, restarts, |_| true));
    let lives = lives(&left, restarts + 1);
    for (what, stop) in &lives {
        let address = u64::from_str_radix(what.split_once(" 0x").unwrap().1, 16).unwrap();
        let cause = if address & !0xFFF == APIC_PAGE { StopCause::ApicPage } else { StopCause::NestedPageFault };
        assert_eq!((stop.cause, stop.detail), (cause, address), "{what}: {stop:x?}");
        touched.push(address / 0x1000);
    }
    println!("{attack}: {} lives, pages from {first:#x} on", lives.len());
    memory_end(&left) / 0x1000
}

/// The memory of the hypervisor and of all partitions, the attacker's own frames in the machine too, which are foreign
/// addresses to it: each 16th page, or page by page in the long form, in parts whose events a ring keeps.
fn foreign_pages(attack: &str) {
    const PART: u64 = 256;
    let stride = amount(16, 1, 256);
    let (mut touched, mut first, mut end) = (Vec::new(), FIRST_PAGE, u64::MAX);
    while first < end {
        end = touch(attack, first, stride, PART, &mut touched);
        first += PART * stride;
    }
    let missed: Vec<u64> = (FIRST_PAGE..end).step_by(stride as usize).filter(|page| !touched.contains(page)).collect();
    assert_eq!(missed, [0; 0], "pages of the machine's were left out, up to {end:#x}");
}

#[test]
#[ignore = "boots an emulator"]
fn a_foreign_page_is_not_touched() {
    foreign_pages("pages");
}

#[test]
#[ignore = "boots an emulator"]
fn a_foreign_page_is_not_executed() {
    foreign_pages("execute");
}

#[test]
#[ignore = "boots an emulator"]
fn the_local_apic_stays_in_its_mode() {
    const LIVES: usize = 21;
    for clock in clocks() {
        let left =
            Attack { clock, ..Attack::new("attack=apic-mode") }.run(&restarts(clock, LIVES, |life| life % 4 != 0));
        let lives = lives(&left, LIVES + 1);
        for (what, stop) in lives.iter().filter(|(what, _)| !what.starts_with("survived")) {
            let expected = match what.strip_prefix("write 0x") {
                Some(value) => (StopCause::ApicModeLeft, u64::from_str_radix(value, 16).unwrap()),
                None => (StopCause::Housekeeping, 0),
            };
            assert_eq!((stop.cause, stop.detail), expected, "{what}");
        }
    }
}

/// One after the other. By instruction count in QEMU a life in a row is long enough; elsewhere each waits until the one before it
/// has said what it is about to do, and until it has ended or, where it does not end by itself, for some time.
fn restarts(clock: Clock, count: usize, ends: impl Fn(usize) -> bool) -> Vec<ScriptStep> {
    if (machine(), clock) == (MachineKind::Qemu, Clock::Icount) {
        return [pass(FIRST_LIFE), vec![restart(count)], pass(20)].concat();
    }
    let rest_of = |number| match clock {
        Clock::Host if ends(number) => vec![until_end()],
        Clock::Host => pass(200),
        Clock::Icount => pass(1),
    };
    let life = |number: usize| [vec![await_line(format!(": life {number}: "))], rest_of(number)].concat();
    let mut steps = life(1);
    for number in 2..=count + 1 {
        steps.push(command("restart hostile"));
        steps.extend(life(number));
    }
    steps
}

#[test]
#[ignore = "boots an emulator"]
fn no_end_of_a_guest_is_more_than_its_own() {
    // The ways in `shutdowns.rs`, and its tasks.
    const LIVES: usize = 24 + 6;
    // Those that stay, or may.
    const STAYING: RangeInclusive<usize> = 11..=24;
    for clock in clocks() {
        let attack = Attack { clock, ..Attack::pair("attack=shutdowns") };
        let mut steps = restarts(clock, LIVES - 1, |life| !STAYING.contains(&life));
        steps.push(command("stop hostile"));
        let left = attack.run(&steps);
        for (what, stop) in lives(&left, LIVES) {
            let expected: &[StopCause] = match what.split(':').next().unwrap() {
                "TripleFault" => &[StopCause::TripleFault],
                "NestedPageFault" => &[StopCause::NestedPageFault],
                "TaskSwitch" => &[StopCause::BadExit],
                "Stays" => &[StopCause::Housekeeping],
                "InvalidState" => &[StopCause::InvalidState, StopCause::FailureReported],
                _ => &[
                    StopCause::InvalidState,
                    StopCause::FailureReported,
                    StopCause::TripleFault,
                    StopCause::NestedPageFault,
                    StopCause::Housekeeping,
                ],
            };
            assert!(expected.contains(&stop.cause), "{what}: {stop:x?}\n{}", left.consoles());
        }
        assert_ne!(left.console("hostile").contains("switched to the task"), uses_vmx(), "{}", left.consoles());
    }
}

/// Milliseconds between a reboot in a row and the start behind it: the first, and the most.
const FIRST_WAIT: u64 = 10;
const LONGEST_WAIT: u64 = 1000;
const SHORT_HOLD: u64 = 5;

/// Ticks of the time-stamp counter in a millisecond, as the real-time guest says.
fn ticks_per_ms(left: &Left) -> u64 {
    let console = left.console("quiet");
    let hz = console.lines().find_map(|line| line.strip_prefix("payload: TSC ")?.split(' ').next());
    hz.unwrap_or_else(|| panic!("{console}")).parse::<u64>().unwrap() / 1000
}

/// A guest that reboots at once, in every life, on one vCPU or on both.
fn reboot_storm(clock: Clock, milliseconds: u64) {
    let attack = Attack { clock, on_reboot: "restart", ..Attack::pair("attack=reboots") };
    // While the console waits for the end of a hold, nothing is started again.
    let holds = (0..milliseconds / SHORT_HOLD).flat_map(|_| pass(SHORT_HOLD));
    let left = attack.run(&holds.chain([command("stop hostile")]).collect::<Vec<_>>());
    let (starts, stops, ticks_per_ms) = (starts(&left), stops(&left), ticks_per_ms(&left));
    println!("{} reboots", stops.len());
    // Its last life is stopped, or is over and the start behind it stopped.
    let (last, reboots) = stops.split_last().unwrap();
    assert_eq!(last.cause, StopCause::Housekeeping, "{stops:?}");
    assert!(reboots.iter().all(|stop| stop.cause == StopCause::Reboot), "{stops:?}");
    assert!(starts.len().abs_diff(stops.len()) <= 1, "{} starts, {} ends", starts.len(), stops.len());
    // Starts again do not come at once, so that the housekeeping core has time for others.
    let mut wait = FIRST_WAIT;
    for (stop, start) in stops.iter().zip(starts.iter().skip(1)) {
        assert!(*start >= stop.tsc + wait * ticks_per_ms * 9 / 10, "{} to {start}, not {wait} ms later", stop.tsc);
        wait = (2 * wait).min(LONGEST_WAIT);
    }
    // 10, 20, 40, 80 ms and so on, and the lives.
    assert!(stops.len() >= 5, "{}", left.consoles());
    // Each began anew.
    let said = lines(&left).iter().filter(|line| line.ends_with(": about to reboot")).count();
    assert!(said >= reboots.len(), "{said} {}", left.consoles());
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_reboots_is_not_noticed_by_instruction_count() {
    reboot_storm(Clock::Icount, amount(500, 10_000, 320));
}

#[test]
#[ignore = "boots an emulator"]
fn a_storm_of_reboots_is_not_noticed_by_threads() {
    reboot_storm(Clock::Host, amount(1500, 30_000, 0));
}

/// The console restarts it a hundred times in a row meanwhile: a restart meets a guest that runs, that ends, or that waits to
/// be started again.
#[test]
#[ignore = "boots an emulator"]
fn reboots_amid_restarts_are_not_noticed() {
    const RESTARTS: usize = 100;
    for clock in clocks() {
        let attack = Attack { clock, on_reboot: "restart", ..Attack::pair("attack=reboots") };
        let restart = format!("restart hostile {RESTARTS}");
        let left = attack.run(&[pass(FIRST_LIFE), vec![command(&restart), command("stop hostile")]].concat());
        let answer = left.answers(&restart).join("\n");
        assert!(answer.starts_with("partition hostile was restarted 100 times; each took "), "{answer}");
        let (starts, stops) = (starts(&left), stops(&left));
        println!("{} starts, {} ends; {answer}", starts.len(), stops.len());
        assert!(starts.len() > RESTARTS, "{}", starts.len());
        let is_expected = |stop: &Stop| matches!(stop.cause, StopCause::Reboot | StopCause::Housekeeping);
        assert!(stops.iter().all(is_expected), "{stops:?}");
        assert!(stops.iter().any(|stop| stop.cause == StopCause::Reboot), "{stops:?}");
    }
}

/// Steps that the lives of random code came through: what the last line of each says, at least.
fn steps(left: &Left) -> u64 {
    let mut all = 0;
    let mut of_life = 0;
    for line in lines(left) {
        if let Some((_, step)) = line.split_once(": life ").and_then(|(_, said)| said.split_once(": ")) {
            let step = step.strip_suffix(" steps").map_or(0, |step| step.parse().unwrap_or(0));
            if step == 0 {
                all += of_life;
            }
            of_life = step;
        } else if let Some((_, tries)) = line.split_once(" tries").and_then(|(head, _)| head.rsplit_once(' ')) {
            of_life = tries.parse().unwrap_or(of_life);
        }
    }
    all + of_life
}

/// Random instructions in ring 0, in so many lives with the seeds from this one on. A life that is wrecked is stopped, or stays
/// until it is. Gives the steps that it came through.
fn random_code(clock: Clock, seed: u64, lives: usize, milliseconds: u64) -> u64 {
    let attack = Attack { clock, seed, timeout: 3600, ..Attack::pair("attack=random-code steps=100000") };
    let mut script = pass(milliseconds);
    for _ in 1..lives {
        script.push(command("restart hostile"));
        script.extend(pass(milliseconds));
    }
    script.push(command("stop hostile"));
    let left = attack.run(&script);
    let (stops, steps) = (stops(&left), steps(&left));
    println!("random code: {steps} steps in {lives} lives; {}", last_word(&left));
    let mut causes: Vec<(StopCause, usize)> = Vec::new();
    for stop in &stops {
        match causes.iter_mut().find(|(cause, _)| *cause == stop.cause) {
            Some((_, count)) => *count += 1,
            None => causes.push((stop.cause, 1)),
        }
    }
    println!("random code: ends: {causes:?}");
    assert!(!causes.iter().any(|(cause, _)| matches!(cause, StopCause::BadExit | StopCause::Other)), "{causes:?}");
    assert_eq!(starts(&left).len(), lives, "{}", left.consoles());
    let (_, _, overwritten) = traced(&left);
    // A life whose code exits again and again may fill a ring with that.
    let lost = lives - stops.len();
    assert!(lost == 0 || overwritten > 0, "{lost} ends are not in the trace\n{}", left.consoles());
    steps
}

/// A million steps are enough.
const ENOUGH_STEPS: u64 = 1_000_000;

/// Up to so many runs, one after the other, as a ring keeps the events of one. There have to be so many steps at least.
fn random_steps(clock: Clock, runs: u64, lives: usize, milliseconds: u64, least: u64) {
    let mut steps = 0;
    for seed in (0..runs).map(|run| seed().wrapping_add(run * lives as u64)) {
        if steps < ENOUGH_STEPS {
            steps += random_code(clock, seed, lives, milliseconds);
        }
    }
    println!("random code: {steps} steps in all");
    assert!(steps >= least, "{steps} steps, not {least}, in {runs} runs");
}

/// A million steps in the long form. Lives are short, as chance wrecks one in some thousand steps.
#[test]
#[ignore = "boots an emulator"]
fn random_instructions_do_no_harm_by_instruction_count() {
    let (runs, lives, milliseconds, least) = match (machine(), is_long()) {
        (MachineKind::Qemu | MachineKind::Kvm, true) => (48, 20, 60, ENOUGH_STEPS),
        (MachineKind::Qemu | MachineKind::Kvm, false) => (1, 8, 60, 5000),
        (MachineKind::Bochs(_), true) => (4, 8, 60, 2000),
        (MachineKind::Bochs(_), false) => (1, 4, 10, 20),
    };
    random_steps(Clock::Icount, runs, lives, milliseconds, least);
}

/// A step that loops takes until other threads have had their turns, on a host with fewer cores than the machine: the long
/// form takes 20 minutes, and has as many steps as that host has time for.
#[test]
#[ignore = "boots an emulator"]
fn random_instructions_do_no_harm_by_threads() {
    let (runs, lives, milliseconds, least) = if is_long() { (20, 30, 2000, 100_000) } else { (1, 20, 700, 1000) };
    random_steps(Clock::Host, runs, lives, milliseconds, least);
}
