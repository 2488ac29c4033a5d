//! What code can do that is not in 64-bit mode: 32-bit code of privilege level 0, in long mode and without, real mode,
//! virtual-8086 mode, and a vCPU that NMIs wake in real mode.

use partita_abi::cpuid::LEAF_LIFE;

use super::gives::Gives::{Any, Eax, Exception, Nothing, Refused};
use super::mode_rows::POINTER;
use super::modes::{Counts, PortAccess, Sweep};
use super::real_nmis;
use super::user::{TARGET, TARGET_CODE, TARGET_VECTOR};
use crate::Orders;
use crate::excursion::{self, CODE_AT, DATA_AT, Mode, STACK_TOP};
use crate::gates::{self, GP};
use crate::tables::CODE_32;
use crate::tally::Tally;

/// Ports by chance, beside those of the machine.
const OTHER_PORTS: u64 = 16;
const IOPL_MAX: u64 = 3;
const NONE: [u64; 3] = [0; 3];
const EFER: u64 = 0xC000_0080;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const LIFE: u8 = LEAF_LIFE as u8;
/// `mov eax, LEAF_LIFE; cpuid` of 16-bit code: the life's number is 1.
const CPUID: [u8; 8] = [0x66, 0xB8, LIFE, 0x01, 0x00, 0x40, 0x0F, 0xA2];
const _: () = assert!(LEAF_LIFE >> 8 == 0x40_0001);
/// `wrmsr; rdmsr`.
const WRITE_AND_READ: [u8; 4] = [0x0F, 0x30, 0x0F, 0x32];
/// `mov esi, eax; mov eax, cr0; and al, 0xFE; mov cr0, eax; mov eax, esi`: protected mode is switched off.
const UNPROTECT: [u8; 14] = [0x66, 0x89, 0xC6, 0x0F, 0x20, 0xC0, 0x24, 0xFE, 0x0F, 0x22, 0xC0, 0x66, 0x89, 0xF0];
/// `mov eax, cr0; or al, 1; mov cr0, eax`.
const PROTECT: [u8; 8] = [0x0F, 0x20, 0xC0, 0x0C, 0x01, 0x0F, 0x22, 0xC0];
/// `mov eax, 0x11; lmsw ax`.
const PROTECT_BY_LMSW: [u8; 9] = [0x66, 0xB8, 0x11, 0x00, 0x00, 0x00, 0x0F, 0x01, 0xF0];
/// The segment whose last two bytes are CPUID, and which begins with an INT3.
const WRAP_SEGMENT: u16 = (DATA_AT as u16 >> 4) + 0x10;
const WRAP_OFFSET: u16 = 0xFFFE;

/// All rows, all interrupts, a sample of the ports, changes of mode, and NMIs in real mode; `steps` says how often.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let (mut random, mut counts) = (orders.random(), Counts::default());
    excursion::prepare();
    for _ in 0..orders.steps_or(1) {
        for mode in [Mode::Kernel32, Mode::Protected, Mode::Real, Mode::Virtual8086] {
            let mut sweep = Sweep { mode, tally, counts: &mut counts };
            sweep.rows();
            match mode {
                Mode::Virtual8086 => {
                    // An INT is the kernel's matter with IOPL 0, its gate's with IOPL 3.
                    sweep.interrupts(0, false, false);
                    sweep.interrupts(IOPL_MAX, false, true);
                    sweep.ports(&mut random, IOPL_MAX, PortAccess::Denied, OTHER_PORTS);
                    sweep.ports(&mut random, 0, PortAccess::Mapped, OTHER_PORTS);
                    virtual_8086(&mut sweep);
                }
                _ => {
                    sweep.interrupts(0, true, false);
                    sweep.ports(&mut random, 0, PortAccess::Free, OTHER_PORTS);
                }
            }
            match mode {
                Mode::Real => real(&mut sweep),
                Mode::Protected => system_call(&mut sweep),
                _ => {}
            }
            if matches!(mode, Mode::Real | Mode::Protected) {
                // Without paging all of EFER can change.
                sweep.check("EFER of 0", 0, &WRITE_AND_READ, [0, EFER, 0], Eax(0));
                sweep.check("EFER without LME", 0, &WRITE_AND_READ, [0x801, EFER, 0], Eax(0x801));
            } else if mode == Mode::Kernel32 {
                sweep.check("EFER of 0 in long mode", 0, &[0x0F, 0x30], [0, EFER, 0], Refused);
            }
        }
    }
    counts.nmis = real_nmis::attack(orders, tally);
    counts.say(orders);
}

/// SYSENTER, which long mode lacks.
fn system_call(sweep: &mut Sweep<'_>) {
    excursion::write(TARGET, &TARGET_CODE);
    let values = [(SYSENTER_CS, CODE_32.into()), (SYSENTER_ESP, STACK_TOP.into()), (SYSENTER_EIP, TARGET)];
    for (msr, value) in values {
        gates::write_msr(msr, value);
    }
    sweep.check("SYSENTER with its registers", 0, &[0x0F, 0x34], NONE, Exception(TARGET_VECTOR));
    for (msr, _) in values {
        gates::write_msr(msr, 0);
    }
}

fn virtual_8086(sweep: &mut Sweep<'_>) {
    sweep.check("CLI with IOPL 3", IOPL_MAX, &[0xFA], NONE, Nothing);
    sweep.check("STI with IOPL 3", IOPL_MAX, &[0xFB, 0xFA], NONE, Nothing);
    sweep.check("PUSHF and POPF with IOPL 3", IOPL_MAX, &[0x9C, 0x9D], NONE, Nothing);
    sweep.check("HLT with IOPL 3", IOPL_MAX, &[0xF4], NONE, Exception(GP));
    sweep.check("MOV to CR0 with IOPL 3", IOPL_MAX, &[0x0F, 0x22, 0xC0], NONE, Exception(GP));
}

/// Code made of parts.
fn joined(parts: &[&[u8]]) -> ([u8; 64], usize) {
    let mut bytes = [0; 64];
    let mut len = 0;
    for (byte, place) in parts.iter().copied().flatten().zip(&mut bytes) {
        *place = *byte;
        len += 1;
    }
    (bytes, len)
}

/// Changes of real mode, with exits meanwhile.
fn real(sweep: &mut Sweep<'_>) {
    let [low, high] = ((CODE_AT >> 4) as u16).to_le_bytes();
    let far_jump = [0xEA, 0x05, 0x00, low, high];
    let far_call = [0x9A, 0x06, 0x00, low, high, 0xCC];
    for (name, parts, gives) in [
        ("CPUID in protected mode with real mode's segments", [&PROTECT[..], &CPUID, &UNPROTECT], Eax(1)),
        ("the same by LMSW", [&PROTECT_BY_LMSW[..], &CPUID, &UNPROTECT], Eax(1)),
        ("CPUID behind a far jump", [&far_jump[..], &CPUID, &[]], Eax(1)),
        // And `add sp, 4`.
        ("CPUID behind a far call", [&far_call[..], &CPUID, &[0x83, 0xC4, 0x04]], Eax(1)),
    ] {
        let (bytes, len) = joined(&parts);
        sweep.check(name, 0, bytes.get(..len).unwrap_or(&[]), NONE, gives);
    }
    // The tables that are in use.
    for (name, store, load) in [("LGDT", 0x02, 0x12), ("LIDT", 0x0A, 0x1A)] {
        let bytes = [0x66, 0x0F, 0x01, store, 0x67, 0x66, 0x0F, 0x01, load];
        sweep.check(name, 0, &bytes, [0, 0, POINTER], Nothing);
    }
    // Behind it is the segment's end, which QEMU does not heed.
    let start = u64::from(WRAP_SEGMENT) << 4;
    let [low, high] = WRAP_SEGMENT.to_le_bytes();
    let [first, second] = WRAP_OFFSET.to_le_bytes();
    excursion::write(start, &[0xCC]);
    excursion::write(start + u64::from(WRAP_OFFSET), &[0x0F, 0xA2, 0xCC]);
    sweep.check("CPUID at a segment's end", 0, &[0xEA, first, second, low, high], [LEAF_LIFE.into(), 0, 0], Any);
}
