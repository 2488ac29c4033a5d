//! A partition's own devices: reached with no exit, and what is beside them refused.

use crate::system::{Left, clocks, file, load, run};
use partita_host::emulator::Clock;
use partita_host::outcome::{RunOutcome, TestExit};
use partita_host::system_file::TestDevice;
use partita_host::trace::Owner;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::{ExitReason, PolicyKind, StopCause};
use partita_trace::snapshot::Body;
use std::process::Command;

const OWNER_PCPU: u16 = 2;
const SURVIVOR_CLAIMS: usize = 4;
/// Marks of the guest around the part in which it must not be left.
const BEGIN_MARK: u32 = 500;
const END_MARK: u32 = 501;
/// What the system file says of the owner's test devices.
const DEVICES: &str = "devices = [\"isa-debug-exit\", \"debugcon\", \"edu\"]\n";
/// Where the edu device is.
const EDU: u64 = TestDevice::EDU_MEMORY.hpa;
/// Claims about its registers, and about its end.
const EDU_CLAIMS: usize = 8;
const END_CLAIMS: usize = 2;

fn use_devices(use_: &str, clock: Clock, changes: &[(&str, &str)]) -> Left {
    let changes = [&[("use=ports", use_)], changes].concat();
    run(&load("devices.toml", &changes), clock, 60)
}

/// When the guest made its marks, begin and end.
fn marks(left: &Left) -> (u64, u64) {
    let is_owner = |owner: &Owner| matches!(owner, Owner::Partition { number: 0, .. });
    let regions = left.trace.regions.iter().filter(|region| is_owner(&region.owner));
    let frames = regions.flat_map(|region| region.dump.rings.iter()).flat_map(|ring| ring.frames());
    let marks: Vec<(u64, u32)> = frames
        .filter_map(|frame| match frame.body {
            Body::Event(Event::Mark { id, .. }) => Some((frame.tsc, id)),
            _ => None,
        })
        .collect();
    let [(begin, BEGIN_MARK), (end, END_MARK)] = marks[..] else { panic!("{marks:?}\n{}", left.consoles()) };
    (begin, end)
}

/// Asserts that the guest was not left between its marks, for whatever reason.
fn assert_no_exit(left: &Left) {
    let (begin, end) = marks(left);
    let events = left.events(OWNER_PCPU);
    let between: Vec<_> = events.iter().filter(|(tsc, _)| (begin..=end).contains(tsc)).collect();
    assert!(between.is_empty(), "{between:?}\n{}", left.consoles());
}

/// The ports that the guest was refused, in order.
fn refused_ports(left: &Left) -> Vec<u64> {
    let events = left.events(OWNER_PCPU).into_iter();
    let refused = |(_, event)| match event {
        Event::PolicyRefused { kind: PolicyKind::PortIn | PolicyKind::PortOut, target, .. } => Some(target),
        _ => None,
    };
    events.filter_map(refused).collect()
}

#[test]
#[ignore = "boots an emulator"]
fn owned_ports_are_reached_without_an_exit_and_their_neighbours_refused() {
    for clock in clocks() {
        let left = use_devices("use=ports", clock, &[]);
        assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
        left.assert_claims("owner", 16);
        left.assert_claims("survivor", SURVIVOR_CLAIMS);
        assert_no_exit(&left);
        let refused = refused_ports(&left);
        assert_eq!(refused, [0xE8, 0xEA, 0xE9, 0x500, 0x503, 0x500, 0x502, 0x501, 0x30F, 0x318], "{refused:#x?}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn without_them_the_same_ports_are_refused() {
    let changes = [("io_ports = [\"0x310-0x317\"]\n", ""), (DEVICES, "")];
    let left = use_devices("use=ports", Clock::Icount, &changes);
    let consoles = left.consoles();
    assert!(matches!(left.outcome, RunOutcome::PartitionFailed { .. }), "{consoles}");
    let owner = left.console("owner");
    assert!(owner.contains("FAIL  100 the debugcon reads its number (255, 233)"), "{consoles}");
    left.assert_claims("survivor", SURVIVOR_CLAIMS);
}

/// Uses the memory of the edu device where it is, or where the guest is to see it.
fn use_edu(use_: &str, gpa: u64, clock: Clock, devices: &str) -> Left {
    // The payload's options are decimal.
    use_devices(&format!("use={use_} value={gpa}"), clock, &[(DEVICES, devices)])
}

/// Asserts that the partition was stopped by an access to this guest-physical address, after so many claims, and that its
/// neighbour lives.
fn assert_stopped_at(left: &Left, address: u64, claims: usize) {
    let consoles = left.consoles();
    assert_eq!(left.outcome, RunOutcome::PartitionFailed { reason: "failure".into() }, "{consoles}");
    let stops = left.events(OWNER_PCPU).into_iter().filter_map(|(_, event)| match event {
        Event::PartitionStop { partition, cause, detail, .. } => Some((partition, cause, detail)),
        _ => None,
    });
    assert_eq!(stops.collect::<Vec<_>>(), [(0, StopCause::NestedPageFault, address)], "{consoles}");
    assert_eq!(left.console("owner").lines().filter(|line| line.starts_with("ok")).count(), claims, "{consoles}");
    left.assert_claims("survivor", SURVIVOR_CLAIMS);
}

fn assert_reached(left: &Left, claims: usize) {
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("owner", claims);
    left.assert_claims("survivor", SURVIVOR_CLAIMS);
    assert_no_exit(left);
    assert_eq!(left.count(OWNER_PCPU, HistogramId::Exit(ExitReason::NestedPageFault)), 0);
}

#[test]
#[ignore = "boots an emulator"]
fn device_memory_is_reached_without_an_exit() {
    for clock in clocks() {
        assert_reached(&use_edu("edu_end", EDU, clock, DEVICES), EDU_CLAIMS + END_CLAIMS);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn device_memory_is_seen_where_the_file_says_and_only_there() {
    let gpa = 0x8000_0000;
    let page = format!("{DEVICES}mmio = [{{ gpa = \"{gpa:#x}\", hpa = \"{EDU:#x}\", size = \"4 KiB\" }}]\n");
    assert_reached(&use_edu("edu", gpa, Clock::Icount, &page), EDU_CLAIMS);
    // Of the device's memory it was given the first page.
    let left = use_edu("edu_end", gpa, Clock::Icount, &page);
    assert_stopped_at(&left, gpa + TestDevice::EDU_MEMORY.bytes - 4, EDU_CLAIMS + 1);
    assert_stopped_at(&use_edu("edu", EDU, Clock::Icount, &page), EDU, 1);
}

#[test]
#[ignore = "boots an emulator"]
fn a_device_that_is_not_where_the_firmware_is_known_to_put_it_is_told() {
    let beside = EDU + 0x1000;
    let page = format!("{DEVICES}mmio = [{{ hpa = \"{beside:#x}\", size = \"4 KiB\" }}]\n");
    let left = use_edu("edu", beside, Clock::Icount, &page);
    let expected = "FAIL  401 it is the one that the firmware is known to put there (4294967295, 16777453)";
    assert!(left.console("owner").contains(expected), "{}", left.consoles());
}

#[test]
#[ignore = "boots an emulator"]
fn device_memory_that_is_not_its_own_stops_the_partition() {
    for clock in clocks() {
        let left = use_edu("edu", EDU, clock, "devices = [\"debugcon\"]\n");
        assert_stopped_at(&left, EDU, 1);
    }
}

#[test]
fn device_memory_that_writes_anywhere_is_refused_by_name() {
    let text = std::fs::read_to_string(file("devices.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("devices.toml");
    for (page, name) in [(0xFED0_0000_u64, "the HPET"), (0xB000_0000, "PCI configuration of QEMU's q35")] {
        let mmio = format!("{DEVICES}mmio = [{{ hpa = \"{page:#x}\", size = \"4 KiB\" }}]\n");
        std::fs::write(&path, text.replacen(DEVICES, &mmio, 1)).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_partita")).arg("check").arg(&path).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("partition[0].mmio[0]: device memory at {page:#x}: {name}")), "{error}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn what_is_written_to_the_debugcon_is_in_its_file() {
    for clock in clocks() {
        let left = use_devices("use=debugcon", clock, &[]);
        assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
        left.assert_claims("owner", 1);
        assert_eq!(left.console("owner.debugcon"), "debugcon: hello\n");
        assert!(!left.console("owner").contains("hello") && !left.console("hypervisor").contains("hello"));
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_guest_that_ends_the_emulator_is_told_by_name_and_value() {
    // 0x10 is what the hypervisor writes to its own port for success.
    for (value, seen) in [(42, 42), (0x10, 0x10), (0, 0), (0x1234, 0x34)] {
        let left = use_devices(&format!("use=exit value={value}"), Clock::Icount, &[]);
        let expected = RunOutcome::EndedByGuest { partition: "owner".into(), value: TestExit { value: seen, bits: 7 } };
        assert_eq!(left.outcome, expected, "{}", left.consoles());
        assert_eq!(left.outcome.exit_code(), 1);
    }
}
