//! What guests may rely on: they claim it one by one. What the hypervisor traced about it is compared here.

use crate::system::{Left, clocks, load, machine, run, uses_vmx};
use partita_abi::hypercall::{NOP, TRACE_WINDOW, VMWARE_MAGIC};
use partita_host::emulator::{Clock, MachineKind};
use partita_host::outcome::RunOutcome;
use partita_trace::Event;
use partita_trace::histogram::HistogramId;
use partita_trace::names::PolicyKind::{self, Hypercall, Instruction, MsrRead, MsrWrite, PortIn, PortOut};
use partita_trace::names::{ExitReason, IcrRefusal};

/// Claims of the guest that must not notice anything.
const SURVIVOR_CLAIMS: usize = 4;
/// pCPUs of the guest.
pub(crate) const PCPUS: [u16; 2] = [2, 3];

pub(crate) fn guest(test: &str, clock: Clock, smp_call_hz: u32, claims: usize) -> Left {
    let (test, rate) = (format!("test={test}"), format!("smp_call_hz = {smp_call_hz}"));
    let system = load("guest.toml", &[("test=cpu", &test), ("smp_call_hz = 0", &rate)]);
    let left = run(&system, clock, 120);
    assert_eq!(left.outcome, RunOutcome::Success, "{}", left.consoles());
    left.assert_claims("guest", claims);
    left.assert_claims("survivor", SURVIVOR_CLAIMS);
    left
}

/// What differs with the CPU of the machine: QEMU's, Bochs' with VMX, Bochs' with SVM, which shows less. See docs/platforms.md.
pub(crate) fn by_machine<T>(qemu: T, vmx: T, bochs_svm: T) -> T {
    match machine() {
        MachineKind::Qemu | MachineKind::Kvm => qemu,
        MachineKind::Bochs(cpu) if cpu.has_svm => bochs_svm,
        MachineKind::Bochs(_) => vmx,
    }
}

/// What the policies refused the guest, in order.
pub(crate) fn refusals(left: &Left) -> Vec<(PolicyKind, u64, u64)> {
    let events = left.events(PCPUS[0]).into_iter();
    let refused = |(_, event)| match event {
        Event::PolicyRefused { kind, target, value } => Some((kind, target, value)),
        _ => None,
    };
    events.filter_map(refused).collect()
}

/// Writes of the ICR that were refused the guest, in order.
fn refused_ipis(left: &Left) -> Vec<(IcrRefusal, u64)> {
    let events = left.events(PCPUS[0]).into_iter();
    let refused = |(_, event)| match event {
        Event::IcrRefused { cause, icr } => Some((cause, icr)),
        _ => None,
    };
    events.filter_map(refused).collect()
}

pub(crate) fn exits(left: &Left, reason: ExitReason) -> u64 {
    PCPUS.iter().map(|pcpu| left.count(*pcpu, HistogramId::Exit(reason))).sum()
}

/// The hypervisor's last word on the guest, which nothing was refused but this.
pub(crate) fn assert_refused(left: &Left, accesses: usize, ipis: usize) {
    let line = format!("partita: partition 0 \"guest\": finished, success; refused: {accesses} accesses, {ipis} IPIs");
    assert!(left.console("hypervisor").lines().any(|found| found == line), "{line}\n{}", left.consoles());
}

#[test]
#[ignore = "boots an emulator"]
fn a_vcpu_looks_as_it_should() {
    let left = guest("cpu", Clock::Icount, 1000, 67);
    let is_base_write =
        |(_, event): &(u64, Event)| matches!(event, Event::Exit { reason: ExitReason::MsrWrite, detail: 0x1B, .. });
    for pcpu in PCPUS {
        // The runtime would have switched x2APIC mode on.
        assert!(!left.events(pcpu).iter().any(is_base_write), "x2APIC mode is on from the start");
    }
    assert_refused(&left, 0, 0);
}

#[test]
#[ignore = "boots an emulator"]
fn a_second_vcpu_starts_from_every_state() {
    for clock in clocks() {
        let left = guest("smp", clock, 0, 27);
        assert_refused(&left, 0, 0);
    }
}

#[test]
#[ignore = "boots an emulator"]
fn interrupts_arrive_where_they_may() {
    use IcrRefusal::{ForeignDestination, IllegalVector, Other, ReservedBits, ReservedMode, Smi};
    const PEER: u64 = 3 << 32;
    const ASSERT: u64 = 1 << 14;
    const LOGICAL: u64 = 1 << 11;
    const VECTOR: u64 = 0x50;
    let clocks = [(Clock::Icount, 0), (Clock::Host, 10_000)];
    for (clock, smp_call_hz) in clocks {
        let left = guest("icr", clock, smp_call_hz, 50);
        let mut expected = vec![
            (ForeignDestination, VECTOR),
            (ForeignDestination, 1 << 32 | VECTOR),
            (ForeignDestination, 0x1000 << 32 | VECTOR),
            (ForeignDestination, 0b11 << 32 | LOGICAL | VECTOR),
            (ForeignDestination, 0x1_FFFF << 32 | LOGICAL | VECTOR),
            (ForeignDestination, 4 << 8),
            (ForeignDestination, 1 << 32 | 5 << 8),
            (ForeignDestination, 1 << 32 | 6 << 8 | 8),
            (IllegalVector, PEER),
            (IllegalVector, PEER | 15),
            (ReservedMode, PEER | 1 << 8 | VECTOR),
            (Smi, PEER | 2 << 8),
            (Smi, 3 << 18 | 2 << 8),
            (ReservedMode, PEER | 3 << 8 | VECTOR),
            (ReservedMode, PEER | 7 << 8 | VECTOR),
            (Other, 1 << 18 | 4 << 8),
            (Other, 2 << 18 | 4 << 8),
            (Other, 2 << 18 | 5 << 8),
            (Other, 1 << 18 | 6 << 8 | 8),
        ];
        expected.extend([12, 13, 16, 17, 20, 31].map(|bit| (ReservedBits, PEER | VECTOR | 1 << bit)));
        for (_, icr) in &mut expected {
            *icr |= ASSERT;
        }
        assert_eq!(refused_ipis(&left), expected);
        assert_refused(&left, 0, expected.len());
        let by_self_ipi_register = |(_, event): &(u64, Event)| {
            matches!(event, Event::Exit { reason: ExitReason::MsrWrite, detail: 0x83F, .. })
        };
        assert!(!PCPUS.iter().any(|pcpu| left.events(*pcpu).iter().any(by_self_ipi_register)), "0x83F costs no exit");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn nmis_are_the_guests_own() {
    for (clock, smp_call_hz) in [(Clock::Icount, 0), (Clock::Icount, 10_000), (Clock::Host, 10_000)] {
        let left = guest("nmi", clock, smp_call_hz, 19);
        assert_refused(&left, 0, 0);
        // The caller counts a kick, or the target if nobody waits for the call.
        let kicks: u64 = [0].iter().chain(&PCPUS).map(|pcpu| left.count(*pcpu, HistogramId::KickNmi)).sum();
        // Each pCPU got its vCPU by a call.
        assert_eq!(kicks > 2, smp_call_hz > 0, "{clock:?}: {kicks} kicks beside the guest's NMIs");
    }
}

#[test]
#[ignore = "boots an emulator"]
fn msrs_follow_the_policy() {
    let left = guest("msr", Clock::Icount, 0, by_machine(100, 102, 100));
    let absent = [0xC001_0114, 0xC001_0117, 0xC001_0118, 0x3A, 0x480, 0x491, 0x1234_5678, 0x82F, 0x840, 0xC001_0062];
    let mut expected: Vec<_> = absent.iter().flat_map(|msr| [(MsrRead, *msr, 0), (MsrWrite, *msr, 0)]).collect();
    expected.extend([
        (MsrWrite, 0x802, 5),
        (MsrWrite, 0x80D, 5),
        (MsrRead, 0x80B, 0),
        // EFER: SVME, a reserved bit, LME.
        (MsrWrite, 0xC000_0080, 0x1D00),
        (MsrWrite, 0xC000_0080, 0x100_0000_0D00),
        (MsrWrite, 0xC000_0080, 0xC00),
        // XSS: the bits of processor trace and of CET.
        (MsrWrite, 0xDA0, 1 << 8),
        (MsrWrite, 0xDA0, 1 << 11),
        // TSC, APIC_BASE, DEBUGCTL.
        (MsrWrite, 0x10, 0),
        (MsrWrite, 0x1B, 0xFEE0_0D01),
        (MsrWrite, 0x1D9, 1),
        // The local vector table: LINT0, LINT1, error, timer.
        (MsrWrite, 0x835, 0x255),
        (MsrWrite, 0x835, 0x555),
        (MsrWrite, 0x835, 0x755),
        (MsrWrite, 0x836, 0x455),
        (MsrWrite, 0x837, 0x255),
        (MsrWrite, 0x832, 0x255),
        (MsrWrite, 0x832, 0x555),
        (MsrWrite, 0x832, 0x6_0055),
        (MsrWrite, 0x832, 0x1_0000_0055),
        (MsrWrite, 0x835, 0x10_0000),
    ]);
    assert_eq!(refusals(&left), expected);
    assert_refused(&left, expected.len(), 0);
}

#[test]
#[ignore = "boots an emulator"]
fn ports_follow_the_policy() {
    let left = guest("io", Clock::Icount, 0, 37);
    // The POST port, the clock and PCI are known and harmless.
    let unowned = [0x20, 0x40, 0x60, 0xB2, 0x3F8, 0x608, 0x1234];
    let mut expected: Vec<_> = unowned.iter().flat_map(|port| [(PortIn, *port, 0); 3]).collect();
    expected.extend([(PortOut, 0xB2, 1), (PortOut, 0x1234, 2), (PortOut, 0x1234, 3)]);
    // String forms, and what is next to the console.
    expected.extend([(PortIn, 0x1234, 0), (PortOut, 0x1234, 0)]);
    expected.extend([0x2F7, 0x300, 0x2FF].map(|port| (PortIn, port, 0)));
    assert_eq!(refusals(&left), expected);
    assert_refused(&left, expected.len(), 0);
}

#[test]
#[ignore = "boots an emulator"]
fn hidden_instructions_are_not_there() {
    let left = guest("instructions", Clock::Icount, 0, if uses_vmx() { 39 } else { 35 });
    let refused = refusals(&left);
    // RDPMC, MONITOR and MWAIT, which Bochs' CPU with SVM has not, and VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA; or
    // VMX's own but VMFUNC, which the CPU itself refuses.
    let expected = by_machine(3 + 7, 3 + 11, 1 + 7);
    let instructions = refused.iter().filter(|(kind, ..)| *kind == Instruction).count();
    assert_eq!(instructions, expected);
    let hypercalls: Vec<_> = refused.iter().filter(|(kind, ..)| *kind == Hypercall).map(|(_, call, _)| *call).collect();
    let windows = [u64::from(TRACE_WINDOW); 4];
    // The last one is that of user code.
    let calls = [&[0x1234, u64::from(NOP) + 0xFF, VMWARE_MAGIC.into()], &windows[..], &[NOP.into()]].concat();
    assert_eq!(hypercalls, calls);
    assert_refused(&left, instructions + calls.len(), 0);
}

#[test]
#[ignore = "boots an emulator"]
fn timer_and_halt_cost_no_exit() {
    let left = guest("timer", Clock::Icount, 0, 4);
    assert_eq!(exits(&left, ExitReason::Interrupt) + exits(&left, ExitReason::Halt), 0);
    assert_refused(&left, 0, 0);
}

/// Which is why the exit path writes typed events (docs/trace-format.md).
#[test]
#[ignore = "boots an emulator"]
fn a_typed_event_costs_less_than_a_log_frame() {
    let left = guest("trace_cost", Clock::Icount, 0, 1);
    assert!(left.console("guest").contains("trace cost: "), "{}", left.consoles());
}
