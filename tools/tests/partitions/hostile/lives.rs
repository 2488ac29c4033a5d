//! Attacks that stop the attacker's partition: a try in each life, and the console restarts it.

use super::{Attack, Stop, last_word, lines, pass, stops, words};
use crate::system::{Left, is_long};
use partita_host::emulator::Clock;
use partita_trace::names::StopCause;

const APIC_PAGE: u64 = 0xFEE0_0000;
/// The first page that is not the attacker's, by its number. The hypervisor's image lies below, at 1 MiB: to the attacker that
/// is its own memory, in which it runs.
const FIRST_PAGE: u64 = 0x200;
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

fn restart(times: usize) -> String {
    format!("restart hostile {times}")
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
fn touch(attack: &str, seed: u64, first: u64, stride: u64, pages: u64, touched: &mut Vec<u64>) -> u64 {
    let random = if is_long() { 200 } else { 20 };
    let restarts = (OTHERS + pages + random) as usize;
    let options = format!("attack={attack} seed={seed} from={first} count={pages} steps={stride}");
    let left = Attack { ring: "1 MiB", ..Attack::new(&options) }.run(&[&restart(restarts)]);
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
fn foreign_pages(attack: &str, seed: u64) {
    const PART: u64 = 256;
    let stride = if is_long() { 1 } else { 16 };
    let (mut touched, mut first, mut end) = (Vec::new(), FIRST_PAGE, u64::MAX);
    while first < end {
        end = touch(attack, seed, first, stride, PART, &mut touched);
        first += PART * stride;
    }
    let missed: Vec<u64> = (FIRST_PAGE..end).step_by(stride as usize).filter(|page| !touched.contains(page)).collect();
    assert_eq!(missed, [0; 0], "pages of the machine's were left out, up to {end:#x}");
}

#[test]
#[ignore = "boots an emulator"]
fn a_foreign_page_is_not_touched() {
    foreign_pages("pages", 1);
}

#[test]
#[ignore = "boots an emulator"]
fn a_foreign_page_is_not_executed() {
    foreign_pages("execute", 2);
}

#[test]
#[ignore = "boots an emulator"]
fn the_local_apic_stays_in_its_mode() {
    const LIVES: usize = 21;
    for clock in [Clock::Icount, Clock::Host] {
        let left = Attack { clock, ..Attack::new("attack=apic-mode") }.run(&words(&restarts(clock, LIVES)));
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

/// One after the other, with time for a life's thread.
fn restarts(clock: Clock, count: usize) -> Vec<String> {
    if clock == Clock::Icount {
        return [vec![restart(count)], pass(20)].concat();
    }
    let mut commands = Vec::new();
    for _ in 0..count {
        commands.push("restart hostile".to_owned());
        commands.extend(pass(60));
    }
    commands
}

#[test]
#[ignore = "boots an emulator"]
fn no_end_of_a_guest_is_more_than_its_own() {
    // The ways in `shutdowns.rs`, and its tasks.
    const LIVES: usize = 24 + 6;
    for clock in [Clock::Icount, Clock::Host] {
        let attack = Attack { clock, ..Attack::pair("attack=shutdowns") };
        let mut commands = restarts(clock, LIVES - 1);
        commands.push("stop hostile".to_owned());
        let left = attack.run(&words(&commands));
        for (what, stop) in lives(&left, LIVES) {
            let expected: &[StopCause] = match what.split(':').next().unwrap() {
                "TripleFault" => &[StopCause::TripleFault],
                "NestedPageFault" => &[StopCause::NestedPageFault],
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
        assert!(left.console("hostile").contains("switched to the task"), "{}", left.consoles());
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

/// Random instructions in ring 0. A life that is wrecked is stopped, or stays until it is.
fn random_code(clock: Clock, lives: usize, milliseconds: u64, wanted: u64) {
    let attack = Attack { clock, timeout: 3600, ..Attack::pair("attack=random-code seed=1 steps=100000") };
    let mut commands = pass(milliseconds);
    for _ in 1..lives {
        commands.push("restart hostile".to_owned());
        commands.extend(pass(milliseconds));
    }
    commands.push("stop hostile".to_owned());
    let left = attack.run(&words(&commands));
    let stops = stops(&left);
    println!("random code: {} steps in {lives} lives; {}", steps(&left), last_word(&left));
    let mut causes: Vec<(StopCause, usize)> = Vec::new();
    for stop in &stops {
        match causes.iter_mut().find(|(cause, _)| *cause == stop.cause) {
            Some((_, count)) => *count += 1,
            None => causes.push((stop.cause, 1)),
        }
    }
    println!("random code: ends: {causes:?}");
    assert!(!causes.iter().any(|(cause, _)| matches!(cause, StopCause::BadExit | StopCause::Other)), "{causes:?}");
    assert_eq!(stops.len(), lives, "{}", left.consoles());
    assert!(steps(&left) >= wanted, "{} steps\n{}", steps(&left), left.consoles());
}

/// A million steps in the long form.
#[test]
#[ignore = "boots an emulator"]
fn random_instructions_do_no_harm_by_instruction_count() {
    let (lives, milliseconds, wanted) = if is_long() { (300, 250, 1_000_000) } else { (8, 60, 2000) };
    random_code(Clock::Icount, lives, milliseconds, wanted);
}

/// Where the host has fewer cores than the machine, a step that loops takes as long as the other threads have their turns.
#[test]
#[ignore = "boots an emulator"]
fn random_instructions_do_no_harm_by_threads() {
    random_code(Clock::Host, 15, if is_long() { 2000 } else { 200 }, 50);
}
