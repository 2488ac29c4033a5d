//! What a vCPU looks like to its guest.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use core::sync::atomic::{AtomicU64, Ordering};

use partita_abi::cpuid::{
    INTERFACE_VERSION, LEAF_MAX, LEAF_PARTITION, LEAF_SIGNATURE, LEAF_TIMING, signature_registers,
};
use partita_rt::{Error, Machine, Place};
use partita_x86_bare::read_msr;

use crate::claims::Claims;
use crate::peer::Pair;
use crate::sse;

const APIC_BASE: u32 = 0x1B;
const APIC_BASE_PAGE: u64 = 0xFEE0_0000;
const APIC_BASE_BOOT: u64 = 1 << 8;
const APIC_BASE_X2APIC_ENABLED: u64 = 0b11 << 10;
const APIC_ID: u32 = 0x802;
const APIC_LOGICAL_ID: u32 = 0x80D;
const TOPOLOGY: u32 = 0xB;
const DR7_RESET: u64 = 0x400;
const PAT: u32 = 0x277;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Registers that are 0 after reset, and that the boot code does not touch.
const ZERO_AT_RESET: [(u32, &str); 9] = [
    (0x174, "SYSENTER_CS is 0"),
    (0x175, "SYSENTER_ESP is 0"),
    (0x176, "SYSENTER_EIP is 0"),
    (0xC000_0081, "STAR is 0"),
    (0xC000_0082, "LSTAR is 0"),
    (0xC000_0083, "CSTAR is 0"),
    (0xC000_0084, "SFMASK is 0"),
    (0xC000_0100, "FS base is 0"),
    (0xC000_0102, "kernel GS base is 0"),
];
/// Leaves that mean nothing, or nothing to a guest.
const EMPTY_LEAVES: [u32; 14] = [
    0x3,
    0x5,
    0xA,
    0xF,
    0x20,
    0x7FFF_FFFF,
    0x4000_0001,
    0x4000_00FF,
    0x4000_0104,
    0x4000_0200,
    0x8000_000A,
    0x8000_0022,
    0x8FFF_FFFF,
    0xC000_0000,
];

/// Features that no guest may see: leaf, register (0 is EAX), bit.
const HIDDEN: [(u32, usize, u32, &str); 13] = [
    (1, 2, 3, "MONITOR is hidden"),
    (1, 2, 5, "VMX is hidden"),
    (1, 2, 6, "SMX is hidden"),
    (1, 3, 7, "machine checks are hidden"),
    (1, 3, 12, "MTRRs are hidden"),
    (1, 3, 14, "machine-check banks are hidden"),
    (0x8000_0001, 2, 2, "SVM is hidden"),
    (0x8000_0001, 2, 3, "the extended APIC space is hidden"),
    (0x8000_0001, 2, 10, "IBS is hidden"),
    (0x8000_0001, 2, 12, "SKINIT is hidden"),
    (0x8000_0001, 2, 29, "MONITORX is hidden"),
    (0x8000_0001, 3, 12, "MTRRs are hidden in the extended leaf"),
    (0x8000_0008, 1, 4, "RDPRU is hidden"),
];

/// What each CPU sees of itself.
#[derive(Clone, Copy)]
enum Own {
    Base,
    Id,
    LogicalId,
    Leaf1Id,
    TopologyId,
    Number,
    Dr7,
    Pat,
}

/// How many of them there are.
const OWN: usize = 8;

static PEER: [AtomicU64; OWN] = [const { AtomicU64::new(0) }; OWN];

fn look() -> [u64; OWN] {
    let dr7: u64;
    // SAFETY: every x86-64 CPU has these registers; the local APIC is in x2APIC mode.
    unsafe {
        asm!("mov {}, dr7", out(reg) dr7, options(nomem, nostack, preserves_flags));
        [
            read_msr(APIC_BASE),
            read_msr(APIC_ID),
            read_msr(APIC_LOGICAL_ID),
            u64::from(__cpuid(1).ebx >> 24),
            __cpuid_count(TOPOLOGY, 0).edx.into(),
            __cpuid(LEAF_PARTITION).ebx.into(),
            dr7,
            read_msr(PAT),
        ]
    }
}

fn look_at_peer() {
    for (place, value) in PEER.iter().zip(look()) {
        place.store(value, Ordering::Relaxed);
    }
}

fn leaf(number: u32) -> [u32; 4] {
    let CpuidResult { eax, ebx, ecx, edx } = __cpuid(number);
    [eax, ebx, ecx, edx]
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(100);
    for (msr, text) in ZERO_AT_RESET {
        // SAFETY: every x86-64 CPU has it.
        claims.equal(text, unsafe { read_msr(msr) }, 0);
    }
    let pair = Pair::start(machine)?;
    pair.call(look_at_peer)?;
    let peer = core::array::from_fn(|index| PEER.get(index).map_or(0, |value| value.load(Ordering::Relaxed)));
    one(&mut claims, 0, pair.own, &look());
    one(&mut claims, 1, pair.peer, &peer);
    leaves(&mut claims, machine);

    claims.holds("CPU 0 keeps its SSE registers over exits", sse::keeps());
    pair.call(sse::check)?;
    claims.holds("CPU 1 keeps its SSE registers over exits", sse::checked());
    Ok(())
}

fn one(claims: &mut Claims, cpu: u64, id: u32, own: &[u64; OWN]) {
    let id = u64::from(id);
    let get = |what: Own| own.get(what as usize).copied().unwrap_or(0);
    let boot = if cpu == 0 { APIC_BASE_BOOT } else { 0 };
    claims.equal("APIC_BASE says x2APIC", get(Own::Base), APIC_BASE_PAGE | APIC_BASE_X2APIC_ENABLED | boot);
    claims.equal("MADT and the APIC agree on the ID", get(Own::Id), id);
    claims.equal("CPUID leaf 1 agrees", get(Own::Leaf1Id), id);
    claims.equal("CPUID leaf 0xB agrees", get(Own::TopologyId), id);
    claims.equal("the logical ID follows", get(Own::LogicalId), (id >> 4) << 16 | 1 << (id & 15));
    claims.equal("Partita's leaf has the CPU's number", get(Own::Number), cpu);
    claims.equal("DR7 is as after reset", get(Own::Dr7), DR7_RESET);
    claims.equal("PAT is as after reset", get(Own::Pat), PAT_RESET);
}

fn leaves(claims: &mut Claims, machine: &Machine) {
    let cpus = machine.apic_ids.len() as u64;
    let [max, ebx, ecx, edx] = leaf(LEAF_SIGNATURE);
    claims.holds("Partita's signature is there", [ebx, ecx, edx] == signature_registers());
    claims.equal("its highest leaf is known", max.into(), LEAF_MAX.into());
    let [version, tsc_khz, lapic_khz, _] = leaf(LEAF_TIMING);
    claims.equal("the interface has this version", version.into(), INTERFACE_VERSION.into());
    claims.equal("the TSC's frequency is told", tsc_khz.into(), machine.clocks.tsc_hz / 1000);
    claims.equal("the timer's frequency is told", lapic_khz.into(), machine.clocks.lapic_hz / 1000);
    let [number, _, vcpus, console] = leaf(LEAF_PARTITION);
    if let Place::Partition(own) = machine.place {
        claims.equal("the partition has its number", number.into(), own.number.into());
        claims.equal("the partition has its console", console.into(), own.console.unwrap_or(0).into());
    }
    claims.equal("MADT has all vCPUs", vcpus.into(), cpus);
    claims.equal("leaf 1 counts them", u64::from(leaf(1)[1] >> 16 & 0xFF), cpus);
    claims.equal("leaf 0xB counts them", __cpuid_count(TOPOLOGY, 1).ebx.into(), cpus);
    claims.holds("a hypervisor is told of", leaf(1)[2] >> 31 == 1);
    claims.holds("x2APIC is told of", leaf(1)[2] >> 21 & 1 == 1);
    claims.holds("nobody else's signature is there", leaf(0x4000_0000)[1..] == [0; 3]);
    for (number, register, bit, text) in HIDDEN {
        let value = leaf(number).get(register).copied().unwrap_or(u32::MAX);
        claims.equal(text, u64::from(value >> bit & 1), 0);
    }
    for number in EMPTY_LEAVES {
        let any = leaf(number).into_iter().fold(0, |any, register| any | register);
        claims.about("an unknown leaf is 0", any == 0, number.into(), any.into());
    }
}
