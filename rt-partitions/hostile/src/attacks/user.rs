//! What privilege level 3 can do: 64-bit code, and 32-bit code in long mode. A second vCPU, if there is one, sends NMIs into all
//! of it, which have to change nothing.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use partita_x86_bare::{apic, rdtsc};

use super::gives::Gives::{self, Eax, Exception, Nothing, Refused};
use super::mode_rows::POINTER;
use super::modes::{Counts, PortAccess, Sweep};
use crate::Orders;
use crate::cpus::{cr4, start_other};
use crate::excursion::{self, CODE_AT, Mode};
use crate::gates::{self, GP, PF, UD, attempt};
use crate::tally::Tally;
use crate::vendor::here;

/// Ports by chance, beside those of the machine.
const OTHER_PORTS: u64 = 16;
/// The kernel's own: the second 2 MiB.
const KERNEL_MEMORY: u64 = 0x30_0000;
/// Page fault at privilege level 3, of a page that is there.
const USER_FAULT: u64 = 0b101;
const IOPL_MAX: u64 = 3;
/// Time-stamp counter disabled, performance counters enabled, FS and GS by instructions, system tables hidden.
const TSD: u64 = 1 << 2;
const PCE: u64 = 1 << 8;
const UMIP: u64 = 1 << 11;
const FSGSBASE: u64 = 1 << 16;
/// PUSH of IOPL, IF and the bit that is always set, POPF, PUSHF, POP to RAX.
const FLAGS: [u8; 8] = [0x68, 0x02, 0x32, 0x00, 0x00, 0x9D, 0x9C, 0x58];
const RDTSC: [u8; 2] = [0x0F, 0x31];
const RDTSCP: [u8; 3] = [0x0F, 0x01, 0xF9];
const RDPMC: [u8; 2] = [0x0F, 0x33];
const NONE: [u64; 3] = [0; 3];

const EFER: u32 = 0xC000_0080;
const STAR: u32 = 0xC000_0081;
const LSTAR: u32 = 0xC000_0082;
const CSTAR: u32 = 0xC000_0083;
const SFMASK: u32 = 0xC000_0084;
/// SYSCALL's and SYSRET's segments: the kernel's, and the users' first.
const SEGMENTS: u64 = 0x08 << 32 | 0x43 << 48;
/// Where SYSCALL, SYSRET and SYSENTER lead to: INT 0x81, which users may not.
pub(super) const TARGET: u64 = CODE_AT + 0x800;
pub(super) const TARGET_CODE: [u8; 2] = [0xCD, 0x81];
pub(super) const TARGET_VECTOR: u64 = 0x81;
const TARGET_REFUSED: u64 = TARGET_VECTOR << 3 | 2;

/// Whom the second vCPU sends NMIs to, and the ticks between them.
static TARGET_ID: AtomicU32 = AtomicU32::new(0);
const GAP: u64 = 60_000;

fn send_nmis() -> ! {
    loop {
        // SAFETY: every vCPU has a handler for NMIs.
        unsafe { apic::send_nmi(TARGET_ID.load(Ordering::Relaxed)) };
        // No PAUSE, on which an emulator goes round its CPUs.
        let start = rdtsc();
        while rdtsc().wrapping_sub(start) < GAP {}
    }
}

/// All rows, all interrupts, a sample of the ports, and what control registers allow or deny; `steps` says how often.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let (mut random, mut counts) = (orders.random(), Counts::default());
    excursion::prepare();
    if let [own, other] = orders.ids[..] {
        TARGET_ID.store(own, Ordering::Relaxed);
        start_other(other, send_nmis);
    }
    for _ in 0..orders.steps_or(1) {
        for mode in [Mode::User64, Mode::User32] {
            let mut sweep = Sweep { mode, tally, counts: &mut counts };
            sweep.rows();
            sweep.interrupts(0, false, true);
            sweep.interrupts(IOPL_MAX, false, true);
            sweep.ports(&mut random, 0, PortAccess::Denied, OTHER_PORTS);
            sweep.ports(&mut random, 0, PortAccess::Mapped, OTHER_PORTS);
            sweep.ports(&mut random, IOPL_MAX, PortAccess::Free, OTHER_PORTS);
            flags(&mut sweep);
            memory(&mut sweep);
            control(&mut sweep);
            system_call(&mut sweep);
        }
        sysret(tally);
    }
    counts.nmis = gates::guard().nmis();
    counts.say(orders);
}

/// IOPL is the kernel's to give, the interrupt flag whose who has it.
fn flags(sweep: &mut Sweep<'_>) {
    sweep.check("POPF with IOPL 0", 0, &FLAGS, NONE, Eax(0x0002));
    sweep.check("POPF with IOPL 3", IOPL_MAX, &FLAGS, NONE, Eax(0x3202));
    sweep.check("CLI with IOPL 3", IOPL_MAX, &[0xFA], NONE, Nothing);
    sweep.check("STI with IOPL 3", IOPL_MAX, &[0xFB, 0xFA], NONE, Nothing);
    sweep.check("HLT with IOPL 3", IOPL_MAX, &[0xF4], NONE, Exception(GP));
}

fn memory(sweep: &mut Sweep<'_>) {
    for (name, bytes, code) in
        [("a read of the kernel's page", [0x8B, 0x02], USER_FAULT), ("a write", [0x89, 0x02], USER_FAULT | 2)]
    {
        sweep.check(name, 0, &bytes, [0, 0, KERNEL_MEMORY], Exception(PF));
        let found = gates::guard().error_code();
        sweep.tally.check(found == code, format_args!("{name}: error code {found:#x}"));
    }
}

/// Bits of CR4 that say what privilege level 3 may.
fn control(sweep: &mut Sweep<'_>) {
    let is_64_bit = sweep.mode == Mode::User64;
    let before = cr4();
    // FS and GS have an address in 64-bit mode only.
    let (off, on) = (Exception(UD), if is_64_bit { Nothing } else { Exception(UD) });
    let mut tell = |bits: u64, list: &[(&str, &[u8], [u64; 3], Gives)]| {
        write_cr4(before | bits);
        for (name, bytes, registers, gives) in list {
            sweep.check(name, 0, bytes, *registers, *gives);
        }
        write_cr4(before);
    };
    tell(TSD, &[("RDTSC with TSD", &RDTSC, NONE, Exception(GP)), ("RDTSCP with TSD", &RDTSCP, NONE, Exception(GP))]);
    tell(PCE, &[("RDPMC with PCE", &RDPMC, NONE, Refused)]);
    tell(
        UMIP,
        &[
            ("SGDT with UMIP", &[0x0F, 0x01, 0x02], [0, 0, POINTER], Exception(GP)),
            ("SIDT with UMIP", &[0x0F, 0x01, 0x0A], [0, 0, POINTER], Exception(GP)),
            ("SLDT with UMIP", &[0x0F, 0x00, 0xC0], NONE, Exception(GP)),
            ("STR with UMIP", &[0x0F, 0x00, 0xC8], NONE, Exception(GP)),
            ("SMSW with UMIP", &[0x0F, 0x01, 0xE0], NONE, Exception(GP)),
        ],
    );
    tell(0, &[("RDFSBASE without FSGSBASE", &[0xF3, 0x0F, 0xAE, 0xC0], NONE, off)]);
    tell(
        FSGSBASE,
        &[
            ("WRFSBASE, RDFSBASE", &[0xF3, 0x0F, 0xAE, 0xD0, 0xF3, 0x0F, 0xAE, 0xC0], [0x1234, 0, 0], on),
            ("WRGSBASE", &[0xF3, 0x0F, 0xAE, 0xD8], [0, 0, 0], on),
        ],
    );
    let swapgs = if is_64_bit { GP } else { UD };
    tell(0, &[("SWAPGS", &[0x0F, 0x01, 0xF8], NONE, Exception(swapgs))]);
    if is_64_bit {
        tell(
            0,
            &[
                ("MOV from CR8", &[0x44, 0x0F, 0x20, 0xC0], NONE, Exception(GP)),
                ("MOV to CR8", &[0x44, 0x0F, 0x22, 0xC0], NONE, Exception(GP)),
            ],
        );
    }
}

/// SYSCALL comes to privilege level 0; Intel's CPUs have it in 64-bit code only.
fn system_call(sweep: &mut Sweep<'_>) {
    let efer = prepare_system_call();
    let gives = if sweep.mode == Mode::User32 { here([TARGET_VECTOR, UD]) } else { TARGET_VECTOR };
    sweep.check("SYSCALL", 0, &[0x0F, 0x05], NONE, Exception(gives));
    gates::write_msr(EFER, efer);
}

/// And SYSRET to level 3.
fn sysret(tally: &mut Tally) {
    let efer = prepare_system_call();
    let caught = attempt!(["sysretq"], in("rcx") TARGET, in("r11") 2u64);
    let code = gates::guard().error_code();
    Exception(GP).note(tally, format_args!("SYSRET"), caught, 0);
    tally.check(code == TARGET_REFUSED, format_args!("SYSRET: error code {code:#x}"));
    gates::write_msr(EFER, efer);
}

/// Gives EFER as it was before.
fn prepare_system_call() -> u64 {
    excursion::write(TARGET, &TARGET_CODE);
    let efer = gates::read_msr(EFER).unwrap_or(0);
    for (msr, value) in [(STAR, SEGMENTS), (LSTAR, TARGET), (CSTAR, TARGET), (SFMASK, 0), (EFER, efer | 1)] {
        gates::write_msr(msr, value);
    }
    efer
}

fn write_cr4(cr4: u64) {
    // SAFETY: bits that change nothing for this code.
    unsafe { asm!("mov cr4, {}", in(reg) cr4, options(nomem, nostack, preserves_flags)) };
}
