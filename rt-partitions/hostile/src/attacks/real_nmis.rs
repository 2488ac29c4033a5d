//! A vCPU in real mode, as a start-up IPI left it: HLT with interrupts off, out of which NMIs wake it, and refused accesses that
//! NMIs come into.

use core::arch::global_asm;

use partita_x86_bare::{apic, relax};

use crate::Orders;
use crate::console::fail;
use crate::cpus::wait_until;
use crate::excursion::{read, write};
use crate::tally::Tally;

const PAGE: u8 = 0xB;
const CODE_AT: u64 = (PAGE as u64) << 12;
/// The words that both vCPUs use, by their offsets in the page.
const WORDS: u64 = 0x800;
const NMIS: u64 = WORDS;
const WAKES: u64 = WORDS + 4;
const FAULTS: u64 = WORDS + 8;
/// What the vCPU does: 0 it sleeps, 1 it is refused, else it is over.
const PHASE: u64 = WORDS + 12;
const DONE: u64 = WORDS + 16;
/// Whether it has its segments, without which it cannot count.
const STARTED: u64 = WORDS + 20;
const STACK_TOP: u64 = 0x1000;
const VECTOR_NMI: u64 = 2;
const VECTOR_GP: u64 = 13;
/// NMIs in each phase.
const COUNT: u32 = 50;
/// Looks for a wake, which an NMI before the HLT does not make.
const LOOKS: u64 = 2000;
const ABSENT: u32 = 0xC001_0114;
const UNOWNED: u16 = 0x1234;

global_asm!(
    r#"
    .section .text.nmis, "ax", @progbits
    .code16
    .global real_nmis
real_nmis:
    mov ax, cs
    mov ds, ax
    mov ss, ax
    mov sp, {stack}
    mov dword ptr [{started}], 1
2:  cmp dword ptr [{phase}], 1
    je 3f
    ja 5f
    hlt                         // interrupts are off
    inc dword ptr [{wakes}]
    jmp 2b
3:  mov ecx, {absent}
    rdmsr
    jmp 2b
5:  mov dword ptr [{done}], 1
6:  hlt
    jmp 6b
    .global real_nmis_nmi
real_nmis_nmi:
    inc dword ptr [{nmis}]
    push dx
    push ax
    mov dx, {unowned}
    in al, dx
    pop ax
    pop dx
    iret
    .global real_nmis_gp
real_nmis_gp:
    inc dword ptr [{faults}]
    push bp
    mov bp, sp
    add word ptr [bp + 2], 2    // behind RDMSR
    pop bp
    iret
    .global real_nmis_end
real_nmis_end:
    .code64
    .previous
    "#,
    stack = const STACK_TOP,
    phase = const PHASE,
    wakes = const WAKES,
    done = const DONE,
    started = const STARTED,
    nmis = const NMIS,
    faults = const FAULTS,
    absent = const ABSENT,
    unowned = const UNOWNED,
);

unsafe extern "C" {
    static real_nmis: u8;
    static real_nmis_nmi: u8;
    static real_nmis_gp: u8;
    static real_nmis_end: u8;
}

fn word(offset: u64) -> u32 {
    u32::from_le_bytes(read(CODE_AT + offset))
}

fn set(offset: u64, value: u32) {
    write(CODE_AT + offset, &value.to_le_bytes());
}

/// Starts vCPU 1 there, and sends it NMIs in both phases. Each is counted once, and each of its refused accesses. Gives how many
/// NMIs came.
pub(super) fn attack(orders: &Orders, tally: &mut Tally) -> u64 {
    let [_, other] = orders.ids[..] else { fail(format_args!("the attack needs two vCPUs")) };
    let first = &raw const real_nmis as u64;
    for (place, at) in (first..&raw const real_nmis_end as u64).zip(CODE_AT..) {
        // SAFETY: the code above, which nobody writes to.
        write(at, &[unsafe { (place as *const u8).read_volatile() }]);
    }
    // Real mode's interrupt table begins at 0.
    for (vector, handler) in [(VECTOR_NMI, &raw const real_nmis_nmi), (VECTOR_GP, &raw const real_nmis_gp)] {
        let entry = (handler as u64 - first) as u32 | (CODE_AT as u32 >> 4) << 16;
        write(vector * 4, &entry.to_le_bytes());
    }
    for offset in [NMIS, WAKES, FAULTS, PHASE, DONE, STARTED] {
        set(offset, 0);
    }
    // SAFETY: the vCPU has what it executes, and its NMIs' handler.
    unsafe {
        apic::send_init(other);
        apic::send_startup(other, PAGE);
    }
    wait_until("a vCPU does not start in real mode", || word(STARTED) > 0);
    for phase in 0..2 {
        set(PHASE, phase);
        for _ in 0..COUNT {
            let (nmis, faults, wakes) = (word(NMIS), word(FAULTS), word(WAKES));
            // SAFETY: as above.
            unsafe { apic::send_nmi(other) };
            wait_until("an NMI to a vCPU in real mode does not come", || {
                word(NMIS) > nmis && (phase == 0 || word(FAULTS) > faults)
            });
            // It wakes if it slept: else NMI would follow NMI, without an instruction between.
            if phase == 0 {
                (0..LOOKS).take_while(|_| word(WAKES) == wakes).for_each(|_| relax());
            }
        }
        if phase == 0 {
            // It may be on its way into another HLT, out of which the last NMI takes it.
            set(PHASE, 1);
            // SAFETY: as above.
            unsafe { apic::send_nmi(other) };
            wait_until("a vCPU in real mode sleeps for ever", || word(FAULTS) > 0);
        }
    }
    set(PHASE, 2);
    wait_until("a vCPU in real mode does not come to its end", || word(DONE) > 0);
    let (nmis, wakes, faults) = (word(NMIS), word(WAKES), word(FAULTS));
    tally.tries += u64::from(nmis) + u64::from(faults);
    tally.faults += u64::from(faults);
    tally.accesses += u64::from(nmis) + u64::from(faults);
    tally.check(nmis == 2 * COUNT + 1, format_args!("{nmis} NMIs came"));
    tally.check(wakes >= COUNT / 2, format_args!("{wakes} wakes of {nmis} NMIs"));
    nmis.into()
}
