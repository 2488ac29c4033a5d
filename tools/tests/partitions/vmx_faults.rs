//! What a CPU with VMX does not accept, in a VMCS and in nested tables. No guest is known to get there, so that Bochs' debugger
//! makes it: one fault each in several partitions of a system. Each is reported by name and ends its partition only; a real-time guest
//! beside them does not notice.

mod spoil;

use crate::debugged::Debugged;
use crate::system::{Left, file};
use partita_host::emulator::ScriptStep;
use partita_host::outcome::RunOutcome;
use partita_host::system_file::SystemFile;
use partita_trace::Event;
use partita_trace::names::StopCause;
use partita_x86_policy::vmx::ept::{EXECUTE, READ, WRITE};
use partita_x86_policy::vmx::field;
use spoil::{Exited, Fault, spoil};

const QUIET_CLAIMS: usize = 9;
/// The pCPU of the first victim; the quiet guest has the two before.
const FIRST: u16 = 3;

/// What a partition runs.
struct Payload {
    name: &'static str,
    memory: &'static str,
    cmdline: &'static str,
    expect: &'static str,
}

const PULSE: Payload = Payload { name: "pulse", memory: "2 MiB", cmdline: "", expect: "run" };
/// A real-time guest that must not notice anything, until it is told on the console that it is enough.
const QUIET: Payload = Payload { name: "guest-tests", memory: "16 MiB", cmdline: "test=quiet", expect: "finish" };

fn partition(name: &str, pcpus: &str, console: &str, payload: &Payload) -> String {
    let Payload { name: image, memory, cmdline, expect } = payload;
    format!(
        "[[partition]]\nname = '{name}'\npcpus = [{pcpus}]\nlapic = 'passthrough'\nconsole = '{console}'\n\
         memory = '{memory}'\nimage = {{ kind = 'payload', name = '{image}' }}\ncmdline = '{cmdline}'\n\
         expect = '{expect}'\n"
    )
}

/// The quiet guest, and victims on the pCPUs from [`FIRST`] on, each with a console if there is one for it.
fn system(victims: usize) -> SystemFile {
    let mut text = "[system]\nname = 'vmx-faults'\n[housekeeping]\npcpu = 0\nsmp_call_hz = 0\n".to_owned();
    text += &partition("quiet", "1, 2", "com2", &QUIET);
    for (pcpu, console) in (FIRST..).zip(["com3", "com4", "none", "none", "none"]).take(victims) {
        text += &partition(&format!("p{pcpu}"), &pcpu.to_string(), console, &PULSE);
    }
    SystemFile::parse(&text, &file("vmx-faults.toml")).unwrap()
}

fn command(text: &str) -> ScriptStep {
    ScriptStep::Command(text.into())
}

fn await_line(console: &str, text: &str) -> ScriptStep {
    ScriptStep::Await { console: console.into(), text: text.into() }
}

/// The run ends with the quiet guest.
fn ending() -> [ScriptStep; 2] {
    [await_line("quiet", "quiet: begun"), command("wrmsr 1 0xc0000103 7")]
}

/// When and why the partition of a pCPU ended, by the trace.
fn end(left: &Left, pcpu: u16) -> (u64, StopCause) {
    let mut ends = left.events(pcpu).into_iter().filter_map(|(tsc, event)| match event {
        Event::PartitionStop { cause, .. } => Some((tsc, cause)),
        _ => None,
    });
    ends.next().unwrap_or_else(|| panic!("pCPU {pcpu}\n{}", left.console("hypervisor")))
}

/// What becomes of a victim.
struct Case {
    fault: Fault,
    cause: StopCause,
    /// What is said of it at once; a cause that says all is told at the end.
    words: &'static [&'static str],
}

/// One victim for each case; the quiet guest ends when all that are told at once have been told.
fn assert_each_ends_alone(cases: &[Case]) {
    let victims = || (FIRST..).zip(cases);
    let told = victims().filter(|(_, case)| !case.words.is_empty());
    let awaited = told.map(|(pcpu, _)| await_line("hypervisor", &format!("\"p{pcpu}\" stopped: ")));
    let script = awaited.chain(ending()).collect();
    let faults: Vec<_> = victims().map(|(pcpu, case)| (pcpu, case.fault)).collect();
    let system = system(cases.len());
    let debugged = Debugged { script, ..Debugged::new(&system) };
    let left = debugged.run(|debugger, hypervisor| spoil(debugger, hypervisor, faults)).left();
    let console = left.console("hypervisor");
    left.assert_claims("quiet", QUIET_CLAIMS);
    assert!(console.contains("partition 0 \"quiet\": finished, success; refused: 0 accesses, 0 IPIs"), "{console}");
    assert!(matches!(left.outcome, RunOutcome::PartitionFailed { .. }), "{:?}\n{console}", left.outcome);
    let (finished, _) = end(&left, 1);
    for (number, (pcpu, case)) in (1..).zip(victims()) {
        let (ended, cause) = end(&left, pcpu);
        assert_eq!(cause, case.cause, "{console}");
        assert!(ended < finished, "the quiet guest goes on: {ended} {finished}");
        let said = |colon: &str| format!("partition {number} \"p{pcpu}\"{colon} stopped: {}", cause.name());
        let line = console.lines().find(|line| line.contains(&said("")));
        println!("{line:?}");
        for words in case.words {
            assert!(line.is_some_and(|line| line.contains(words)), "{words}\n{console}");
        }
        assert!(console.lines().any(|line| line.contains(&said(":"))), "{console}");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn a_field_that_an_entry_refuses_is_named() {
    let set = |fault, words| Case { fault, cause: StopCause::InvalidState, words };
    assert_each_ends_alone(&[
        set(|exited| exited.set(field::GUEST_RFLAGS, 0x44), &["guest RFLAGS is 0x44: bit 1 has to be set"]),
        set(|exited| exited.set(field::GUEST_CR4, 0x20), &["guest CR4 is 0x20", "fixed to 1", "0x2000 are not"]),
        set(|exited| exited.set(field::GUEST_CR0, 0x8000_0020), &["guest CR0 is 0x80000020: PG (bit 31) demands PE"]),
        set(|exited| exited.set(field::GUEST_ACTIVITY_STATE, 7), &["guest activity state is 0x7: it has to be 0 to 3"]),
        set(
            |exited| exited.set(field::PIN_BASED_CONTROLS, 0),
            &[
                "VM-instruction error 7: VM entry with invalid control",
                "pin-based VM-execution controls is 0x0",
                "0x16 are not",
            ],
        ),
    ]);
}

/// Changes the entry by which the guest's next instruction is fetched.
fn change_own_entry(exited: &mut Exited<'_>, change: impl Fn(u64) -> u64) {
    let rip = exited.get(field::GUEST_RIP);
    let (address, entry) = exited.nested_entry(rip);
    assert_eq!(entry & (READ | WRITE | EXECUTE), READ | WRITE | EXECUTE);
    exited.debugger().write(address, &change(entry).to_le_bytes());
}

#[test]
#[ignore = "boots an emulator"]
fn a_bad_nested_table_is_named() {
    const TYPE: u64 = 7 << 3;
    let bad = |fault, words| Case { fault, cause: StopCause::BadExit, words };
    assert_each_ends_alone(&[
        bad(
            |exited| change_own_entry(exited, |entry| entry & !READ),
            &["bits 1:0 are 10: writes are allowed, reads are not"],
        ),
        bad(|exited| change_own_entry(exited, |entry| entry | TYPE), &["bits 5:3 are 7: no such memory type"]),
        Case { fault: |exited| change_own_entry(exited, |_| 0), cause: StopCause::NestedPageFault, words: &[] },
        Case {
            fault: |exited| exited.set(field::segment::TR.access_rights, 0x1_0000),
            cause: StopCause::InvalidState,
            words: &["TR has to be usable"],
        },
        Case {
            fault: |exited| exited.set(field::HOST_RIP, 1 << 63),
            cause: StopCause::InvalidState,
            words: &[
                "VM-instruction error 8: VM entry with invalid host-state fields",
                "host RIP is 0x8000000000000000: the address has to be canonical",
                "host RIP is 0x8000000000000000: the address has to be canonical",
            ],
        },
    ]);
}

/// The console starts both anew, and they find what a fresh start promises.
#[test]
#[ignore = "boots an emulator"]
fn a_partition_that_was_refused_can_be_started_anew() {
    let victim = |name: &str| {
        [
            await_line("hypervisor", &format!("\"{name}\" stopped: invalid guest state")),
            command(&format!("restart {name}")),
            await_line(name, "pulse: fresh"),
        ]
    };
    let script = victim("p3").into_iter().chain(victim("p4")).chain(ending()).collect();
    let system = system(2);
    let faults: Vec<(u16, Fault)> = vec![
        (3, |exited| exited.set(field::GUEST_RFLAGS, 0x44)),
        (4, |exited| exited.set(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x8000_0103)),
    ];
    let debugged = Debugged { script, ..Debugged::new(&system) };
    let left = debugged.run(|debugger, hypervisor| spoil(debugger, hypervisor, faults)).left();
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("quiet", QUIET_CLAIMS);
    let named = "VM-entry interruption-information field is 0x80000103: the type (bits 10:8) must not be 1";
    assert!(left.console("hypervisor").contains(named), "{}", left.consoles());
    for name in ["p3", "p4"] {
        assert_eq!(left.console(name).trim_end(), "pulse: fresh", "{}", left.consoles());
    }
}
