//! Executes random bytes in ring 0, with all registers random, again and again. Exceptions are caught; what keeps the vCPU
//! for ever is ended by its own timer, or, with interrupts off, by an NMI of the other vCPU. What wrecks the guest stops its
//! partition; the next life goes on with other bytes.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_x86_bare::apic;

use crate::Orders;
use crate::console::fail;
use crate::cpus::{cr3, start_other};
use crate::gates::{self, Guard, NOTHING};
use crate::random::Random;
use crate::tables;
use crate::tally::Tally;

const STEPS_DEFAULT: u64 = 1000;
const PAGE: usize = 4096;
/// Random bytes in front of the end of the page.
const TAIL: u64 = 64;
/// Steps with the same bytes, begun at different places.
const STEPS_PER_FILL: u64 = 32;
/// Steps between two lines that say how far it came.
const STEPS_PER_LINE: u64 = 25;
const REGISTERS: usize = 16;
const TIMER_VECTOR: u8 = 0x60;
/// How long code may run with interrupts on, and without any end, in ticks of the timer.
const TIMER_TICKS: u32 = 20_000;
const PATIENCE: u32 = 100_000;
const LARGE_PAGE: u64 = 2 << 20;
const CR0: u64 = 0x8001_0011;
const CR4: u64 = 1 << 5 | 0b11 << 9 | 1 << 18;

#[repr(C, align(4096))]
struct Pages(UnsafeCell<[[u8; PAGE]; 2]>);

// SAFETY: only vCPU 0 uses it.
unsafe impl Sync for Pages {}

/// Bytes to execute, and bytes to work on.
static PAGES: Pages = Pages(UnsafeCell::new([[0; PAGE]; 2]));
static STEP: AtomicU64 = AtomicU64::new(0);
static TARGET: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .section .text.random, "ax", @progbits
    // RDI: the guard, RSI: sixteen values for the registers, the last one for the code's address.
hostile_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    lea rax, [rip + 2f]
    mov [rdi + 8], rsp
    mov [rdi], rax
    mov rax, [rsi]
    mov rbx, [rsi + 8]
    mov rcx, [rsi + 16]
    mov rdx, [rsi + 24]
    mov rdi, [rsi + 40]
    mov rbp, [rsi + 48]
    mov r8, [rsi + 56]
    mov r9, [rsi + 64]
    mov r10, [rsi + 72]
    mov r11, [rsi + 80]
    mov r12, [rsi + 88]
    mov r13, [rsi + 96]
    mov r14, [rsi + 104]
    mov rsp, [rsi + 112]
    mov r15, [rsi + 120]
    mov rsi, [rsi + 32]
    sti
    jmp r15
2:  cli
    cld
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    .previous
    "#
);

unsafe extern "C" {
    fn hostile_run(guard: *const Guard, registers: *const u64);
}

/// What vCPU 1 does: an NMI to vCPU 0 when that does not get on. It sleeps in between, so that its thread has its turn as soon
/// as it wakes.
fn watch() -> ! {
    let mut seen = u64::MAX;
    // SAFETY: the vector has its handler.
    unsafe { apic::timer_periodic(TIMER_VECTOR, PATIENCE) };
    loop {
        // SAFETY: every vector has its handler, and the timer's comes.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
        let step = STEP.load(Ordering::Relaxed);
        if step == seen {
            // SAFETY: vCPU 0 has a handler for NMIs, unless its own code took it away.
            unsafe { apic::send_nmi(TARGET.load(Ordering::Relaxed) as u32) };
        }
        seen = step;
    }
}

/// Leaves nothing mapped but this partition's memory: other addresses are page faults, which this guest survives.
fn unmap_foreign(memory: u64) {
    let table = |address: u64| (address & !0xFFF) as *mut u64;
    // SAFETY: the boot page tables: one table for 512 GiB, four for a GiB each, of large pages, all mapped one to one.
    unsafe {
        let gigabytes = table(table(cr3()).read_volatile());
        for gigabyte in 0..4 {
            let pages = table(gigabytes.add(gigabyte).read_volatile());
            for page in 0..512 {
                if ((gigabyte as u64) << 30) + page as u64 * LARGE_PAGE >= memory {
                    pages.add(page).write_volatile(0);
                }
            }
        }
        asm!("mov cr3, {}", in(reg) cr3(), options(nostack));
    }
}

/// Takes back what random code may have changed.
fn recover(root: u64) {
    // SAFETY: what these registers had before; breakpoints off.
    unsafe {
        asm!("mov cr0, {}", "mov cr4, {}", "mov cr3, {}", "mov dr7, {}", "mov cr8, {}",
            in(reg) CR0, in(reg) CR4, in(reg) root, in(reg) 0x400u64, in(reg) 0u64, options(nostack));
        asm!("mov ss, {0:e}", "mov ds, {0:e}", "mov es, {0:e}", in(reg) 0x10u32, options(nostack, preserves_flags));
    }
    tables::load(0);
    apic::enable();
}

/// The first byte of a MOV to a segment register.
const MOV_TO_SEGMENT: u8 = 0x8E;

/// Whether these bytes can end QEMU 10.0.2. It aborts if a guest takes an exception without a task state segment, as LTR
/// (`0F 00`) leaves it there, and a MOV to a segment register that does not exist (`8E /6` and `/7`); and if one is delivered
/// over a data breakpoint (`0F 23`).
const fn ends_the_emulator(first: u8, second: u8) -> bool {
    match first {
        0x0F => matches!(second, 0x00 | 0x23),
        MOV_TO_SEGMENT => second & 0x30 == 0x30,
        _ => false,
    }
}

/// Whether a REX.R is in front of the next byte, by this one and whether there was one in front of it. It has no meaning for a
/// MOV to a segment register; QEMU 10.0.2 takes it for another bit of the register's number, and writes behind its segment
/// registers: over its A20 mask among others, so that the machine resets. It also keeps it behind legacy prefixes.
const fn has_rex_r(had: bool, byte: u8) -> bool {
    match byte {
        0x40..=0x4F => had || byte & 4 != 0,
        0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3 => had,
        _ => false,
    }
}

/// Random bytes, but for those.
fn fill(random: &mut Random, bytes: &mut [u8]) {
    for (byte, random) in bytes.chunks_mut(8).flat_map(|chunk| chunk.iter_mut().zip(random.next().to_le_bytes())) {
        *byte = random;
    }
    let (mut before, mut rex_r) = (0, false);
    for byte in bytes {
        if ends_the_emulator(before, *byte) || rex_r && *byte == MOV_TO_SEGMENT {
            *byte = 0x0B;
        }
        (before, rex_r) = (*byte, has_rex_r(rex_r, *byte));
    }
}

fn value(random: &mut Random, data: u64) -> u64 {
    match random.below(4) {
        0 => data + random.below(PAGE as u64),
        1 => random.any(),
        2 => random.below(0x100),
        _ => random.next(),
    }
}

/// `steps` times.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let [own, other] = orders.ids[..] else { fail(format_args!("the attack needs two vCPUs")) };
    let mut random = Random::new(orders.seed.wrapping_add(orders.life).wrapping_mul(0x5851_F42D_4C95_7F2D));
    TARGET.store(own.into(), Ordering::Relaxed);
    start_other(other, watch);
    unmap_foreign(orders.memory);
    let root = cr3();
    recover(root);
    let pages = PAGES.0.get();
    let (code, data) = (pages as u64, pages as u64 + PAGE as u64);
    let guard = gates::guard();
    let mut registers = [0; REGISTERS];
    for step in 0..orders.steps_or(STEPS_DEFAULT) {
        if step % STEPS_PER_LINE == 0 {
            orders.say(format_args!("{step} steps"));
        }
        if step % STEPS_PER_FILL == 0 {
            // SAFETY: only this vCPU writes and executes it.
            fill(&mut random, unsafe { &mut *pages }.as_flattened_mut());
        }
        for register in &mut registers {
            *register = value(&mut random, data);
        }
        registers[REGISTERS - 1] = code + random.below(PAGE as u64 - TAIL);
        STEP.store(step, Ordering::Relaxed);
        guard.set_breaks(true);
        // SAFETY: the vector has its handler.
        unsafe { apic::timer_one_shot(TIMER_VECTOR, TIMER_TICKS) };
        // SAFETY: this is the attack: whatever the code does, its exception comes back here, or the partition is stopped.
        unsafe { hostile_run(guard, registers.as_ptr()) };
        guard.set_breaks(false);
        recover(root);
        tally.tries += 1;
        tally.faults += u64::from(guard.finish() != NOTHING);
    }
}
