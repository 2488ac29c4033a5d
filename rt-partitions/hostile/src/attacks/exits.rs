//! Exits of every kind, and writes that cost none, which storms are made of. What each gives is known, so that the hypervisor's
//! counts of refusals have to be exact.

use core::arch::x86_64::__cpuid;

use partita_abi::hypercall::NOP;
use partita_x86_bare::{apic, write_msr};
use partita_x86_policy::apic_view::{BROADCAST, logical_id};
use partita_x86_policy::capabilities::Backend;
use partita_x86_policy::icr::ICR_MSR;

use super::hypercalls::hypercall;
use crate::gates::{self, DB, GP, NOTHING, UD, attempt, guard, read_msr};
use crate::tally::Tally;
use crate::vendor::{backend, here};

/// A vector of which the real-time guest counts each interrupt.
const FIXED: u64 = 1 << 14 | 0x51;
const NMI: u64 = 1 << 14 | 4 << 8;
const SMI: u64 = 1 << 14 | 2 << 8;
const LOWEST: u64 = FIXED | 1 << 8;
const LOGICAL: u64 = 1 << 11;
const TO_ALL: u64 = 2 << 18;
const TO_OTHERS: u64 = 3 << 18;
/// The housekeeping core.
const FOREIGN: u64 = 0;
const RESERVED_BIT: u64 = 1 << 20;

const APIC_BASE: u32 = 0x1B;
const MCG_STATUS: u32 = 0x17A;
const TSC_DEADLINE: u32 = 0x6E0;
const LVT_TIMER: u32 = 0x832;
const LVT_LINT0: u32 = 0x835;
const TIMER_INITIAL: u32 = 0x838;
const SELF_IPI: u32 = 0x83F;
const EFER: u32 = 0xC000_0080;
const SCE: u64 = 1 << 0;
const LME: u64 = 1 << 8;
const NXE: u64 = 1 << 11;
const SVME: u64 = 1 << 12;
const ABSENT: u32 = 0xC001_0114;
const MASKED: u64 = 1 << 16;
const RESERVED_TIMER_MODE: u64 = 3 << 17;

const UNOWNED: u16 = 0x1234;
const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
/// In place of a vector: no exception, but another value than there has to be.
const WRONG_VALUE: u64 = u64::MAX - 1;
const OSXSAVE: u64 = 1 << 18;

/// The vCPUs of the attacker, as one of them sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// x2APIC IDs.
    own: u32,
    other: u32,
}

impl Pair {
    /// Of the vCPU that asks.
    pub(super) fn new(ids: [u32; 2]) -> Self {
        let [first, second] = ids;
        let own = apic::id();
        Self { own, other: if own == first { second } else { first } }
    }

    const fn to_own(self, command: u64) -> u64 {
        (self.own as u64) << 32 | command
    }

    const fn to_other(self, command: u64) -> u64 {
        (self.other as u64) << 32 | command
    }
}

/// One kind.
pub(super) struct Kind {
    name: &'static str,
    /// Does it, and gives the exception that it got.
    act: fn(Pair) -> u64,
    /// The exception that it has to get.
    gives: u64,
    /// What the hypervisor refuses of it: accesses, with SVM and with VMX, and IPIs.
    accesses: [u64; 2],
    ipis: u64,
}

const fn taken(name: &'static str, act: fn(Pair) -> u64) -> Kind {
    Kind { name, act, gives: NOTHING, accesses: [0; 2], ipis: 0 }
}

const fn refused(name: &'static str, gives: u64, act: fn(Pair) -> u64) -> Kind {
    Kind { name, act, gives, accesses: [1; 2], ipis: 0 }
}

const fn refused_ipi(name: &'static str, gives: u64, act: fn(Pair) -> u64) -> Kind {
    Kind { name, act, gives, accesses: [0; 2], ipis: 1 }
}

const fn is_right(is_right: bool) -> u64 {
    if is_right { NOTHING } else { WRONG_VALUE }
}

fn icr(value: u64) -> u64 {
    gates::write_msr(ICR_MSR, value)
}

/// A bit of EFER to the other value, and back.
fn toggle_efer(bit: u64) -> u64 {
    let Ok(efer) = read_msr(EFER) else { return GP };
    for value in [efer ^ bit, efer] {
        let caught = gates::write_msr(EFER, value);
        if caught != NOTHING || read_msr(EFER) != Ok(value) {
            return if caught == NOTHING { WRONG_VALUE } else { caught };
        }
    }
    NOTHING
}

fn efer_with(change: impl Fn(u64) -> u64) -> u64 {
    read_msr(EFER).map_or(WRONG_VALUE, |efer| gates::write_msr(EFER, change(efer)))
}

fn apic_base_with(bits: u64) -> u64 {
    read_msr(APIC_BASE).map_or(WRONG_VALUE, |base| gates::write_msr(APIC_BASE, base | bits))
}

fn read_port(port: u16, expected: impl Fn(u8) -> bool) -> u64 {
    let (value, caught): (u8, u64);
    caught = attempt!(["in al, dx"], in("dx") port, out("al") value);
    if caught == NOTHING { is_right(expected(value)) } else { caught }
}

fn write_cr8(_: Pair) -> u64 {
    let read: u64;
    let caught = attempt!(["mov cr8, rax", "mov rax, cr8", "mov cr8, rcx"], inout("rax") 15u64 => read, in("rcx") 0u64);
    if caught == NOTHING { is_right(read == 15) } else { caught }
}

fn step(_: Pair) -> u64 {
    attempt!(["pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop"])
}

fn fixed_value(_: Pair) -> u64 {
    read_msr(MCG_STATUS).map_or_else(|caught| caught, |value| is_right(value == 0))
}

fn absent_value(_: Pair) -> u64 {
    read_msr(ABSENT).map_or_else(|caught| caught, |_| NOTHING)
}

/// A count that never comes to its end, then none.
fn timer_count(_: Pair) -> u64 {
    match gates::write_msr(TIMER_INITIAL, u32::MAX.into()) {
        NOTHING => gates::write_msr(TIMER_INITIAL, 0),
        caught => caught,
    }
}

/// A CPU may lack it.
fn deadline(_: Pair) -> u64 {
    match gates::write_msr(TSC_DEADLINE, u64::MAX) {
        GP => NOTHING,
        caught => caught,
    }
}

#[rustfmt::skip]
pub(super) const KINDS: &[Kind] = &[
    taken("CPUID", |_| is_right(__cpuid(0).eax >= 1)),
    taken("RDMSR of a fixed value", fixed_value),
    refused("RDMSR of nothing", GP, absent_value),
    refused("WRMSR that is ignored", NOTHING, |_| gates::write_msr(MCG_STATUS, 1)),
    refused("WRMSR of nothing", GP, |_| gates::write_msr(ABSENT, 1)),
    taken("EFER.SCE", |_| toggle_efer(SCE)),
    taken("EFER.NXE", |_| toggle_efer(NXE)),
    refused("EFER.SVME", GP, |_| efer_with(|efer| efer | SVME)),
    refused("EFER without LME", GP, |_| efer_with(|efer| efer & !LME)),
    taken("APIC_BASE as it is", |_| apic_base_with(0)),
    refused("APIC_BASE with a reserved bit", GP, |_| apic_base_with(1)),
    taken("an LVT entry", |_| gates::write_msr(LVT_LINT0, MASKED | 0x51)),
    refused("an LVT entry for SMIs", NOTHING, |_| gates::write_msr(LVT_LINT0, 2 << 8)),
    refused("an LVT entry for NMIs", NOTHING, |_| gates::write_msr(LVT_LINT0, 4 << 8)),
    refused("an LVT entry with a reserved bit", GP, |_| gates::write_msr(LVT_LINT0, MASKED | 1 << 32)),
    taken("the timer's LVT entry", |_| gates::write_msr(LVT_TIMER, MASKED | 0x60)),
    refused("the timer's reserved mode", GP, |_| gates::write_msr(LVT_TIMER, MASKED | RESERVED_TIMER_MODE)),
    taken("the timer's count", timer_count),
    taken("the timer's deadline", deadline),
    taken("CR8", write_cr8),
    refused("IN", NOTHING, |_| read_port(UNOWNED, |value| value == u8::MAX)),
    refused("OUT", NOTHING, |_| attempt!(["out dx, al"], in("dx") UNOWNED, in("al") 1u8)),
    refused("REP OUTSB", GP, |_| {
        attempt!(["rep outsb"], in("dx") UNOWNED, inout("rcx") 9u64 => _, inout("rsi") 0x1000u64 => _)
    }),
    taken("the clock's index", |_| attempt!(["out dx, al"], in("dx") CMOS_INDEX, in("al") 0u8)),
    taken("the clock", |_| read_port(CMOS_DATA, |_| true)),
    taken("a hypercall", |_| is_right(hypercall(NOP.into(), 0, 0) == Ok(0))),
    refused("no hypercall", NOTHING, |_| is_right(hypercall(0x1234, 0, 0) == Ok(u64::MAX))),
    taken("an IPI to itself", |pair| icr(pair.to_own(FIXED))),
    taken("an IPI to itself by its register", |_| gates::write_msr(SELF_IPI, 0x51)),
    taken("an IPI to the other", |pair| icr(pair.to_other(FIXED))),
    taken("an IPI to both", |pair| {
        icr(u64::from(logical_id(pair.own) | logical_id(pair.other)) << 32 | LOGICAL | FIXED)
    }),
    taken("an IPI to all", |_| icr(TO_ALL | FIXED)),
    taken("an IPI to the others", |_| icr(TO_OTHERS | FIXED)),
    taken("a broadcast", |_| icr(u64::from(BROADCAST) << 32 | FIXED)),
    refused_ipi("a foreign IPI", NOTHING, |_| icr(FOREIGN << 32 | FIXED)),
    refused_ipi("an SMI", NOTHING, |pair| icr(pair.to_other(SMI))),
    refused_ipi("lowest priority", NOTHING, |pair| icr(pair.to_other(LOWEST))),
    refused_ipi("an IPI with a reserved bit", GP, |pair| icr(pair.to_other(FIXED | RESERVED_BIT))),
    taken("an NMI to the other", |pair| {
        // SAFETY: both vCPUs have a handler for NMIs.
        unsafe { write_msr(ICR_MSR, pair.to_other(NMI)) };
        NOTHING
    }),
    refused("VMRUN or VMLAUNCH", UD, |_| match backend() {
        Backend::Svm => attempt!(["vmrun rax"], in("rax") 0u64),
        Backend::Vmx => attempt!(["vmlaunch"]),
    }),
    refused("STGI or VMXOFF", UD, |_| match backend() {
        Backend::Svm => attempt!(["stgi"]),
        Backend::Vmx => attempt!(["vmxoff"]),
    }),
    refused("MONITOR", UD, |_| attempt!(["monitor"], in("rax") 0x1000u64, in("rcx") 0u64, in("rdx") 0u64)),
    refused("MWAIT", UD, |_| attempt!(["mwait"], in("rax") 0u64, in("rcx") 0u64)),
    refused("RDPMC", GP, |_| attempt!(["rdpmc"], in("ecx") 0u32, out("eax") _, out("edx") _)),
    taken("WBINVD", |_| attempt!(["wbinvd"])),
    taken("INVD", |_| attempt!(["invd"])),
    // The CPU's own exceptions; the hypervisor intercepts #DB, and #AC, for which TCG checks nothing.
    Kind {
        name: "XSETBV of no register",
        // VMX always exits.
        accesses: [0, 1],
        act: |_| attempt!(["xsetbv"], in("ecx") 1u32, in("eax") 1u32, in("edx") 0u32),
        ..taken_but(GP)
    },
    Kind { name: "INT1", act: |_| attempt!([".byte 0xF1"]), ..taken_but(DB) },
    Kind { name: "a step", act: step, ..taken_but(DB) },
];

const fn taken_but(gives: u64) -> Kind {
    Kind { gives, ..taken("", |_| NOTHING) }
}

impl Kind {
    /// Whether the hypervisor counts nothing of it.
    pub(super) fn is_uncounted(&self) -> bool {
        here(self.accesses) + self.ipis == 0
    }

    /// Does it once; gives whether it got what it had to.
    pub(super) fn is_right(&self, pair: Pair) -> bool {
        (self.act)(pair) == self.gives
    }

    /// Does it once, and notes what comes of it.
    pub(super) fn try_on(&self, pair: Pair, tally: &mut Tally) {
        let before = guard().nmis();
        let caught = (self.act)(pair);
        tally.tries += 1;
        tally.faults += u64::from(caught < WRONG_VALUE);
        tally.accesses += here(self.accesses);
        tally.ipis += self.ipis;
        let is_right = caught == self.gives;
        tally.check(
            is_right,
            format_args!("{}: exception {caught}, {} NMIs meanwhile", self.name, guard().nmis() - before),
        );
    }
}

/// Sets up what the kinds need, on each vCPU.
pub(super) fn prepare() {
    let caught = attempt!(["mov rax, cr4", "or rax, rcx", "mov cr4, rax"], out("rax") _, in("rcx") OSXSAVE);
    if caught != NOTHING {
        crate::console::fail(format_args!("CR4.OSXSAVE is not taken: exception {caught}"));
    }
}
