//! Interrupts and NMIs that are counted, by CPU. Their handlers save what they use.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_rt::interrupts;

use crate::tables;

/// The first vector that is counted.
pub(crate) const FIRST_VECTOR: u8 = 0x50;
/// How many there are.
pub(crate) const VECTORS: usize = 8;
/// CPUs are told apart by the low bits of their APIC IDs.
const IDS: usize = 16;
const NMI_VECTOR: u8 = 2;

/// By vector and APIC ID.
static COUNTS: [[AtomicU64; IDS]; VECTORS] = [const { [const { AtomicU64::new(0) }; IDS] }; VECTORS];

/// A CPU's NMIs.
#[repr(C, align(64))]
struct Nmis {
    count: AtomicU64,
    /// 1 while the handler runs.
    inside: AtomicU64,
    /// The handler does not return while this is not 0.
    hold: AtomicU64,
    /// How often the handler was entered while it ran.
    nested: AtomicU64,
    /// The handler's stack pointer.
    stack: AtomicU64,
}

static NMIS: [Nmis; IDS] = [const {
    Nmis {
        count: AtomicU64::new(0),
        inside: AtomicU64::new(0),
        hold: AtomicU64::new(0),
        nested: AtomicU64::new(0),
        stack: AtomicU64::new(0),
    }
}; IDS];

global_asm!(
    r#"
    .altmacro
    .macro counter number
    .align 64
    push rax
    push rcx
    push rdx
    mov ecx, 0x802          // x2APIC ID
    rdmsr
    and eax, 15
    lea rcx, [rip + {counts} + \number * 128]
    lock inc qword ptr [rcx + rax * 8]
    xor eax, eax
    xor edx, edx
    mov ecx, 0x80B          // EOI
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq
    .endm

    .section .text.counters, "ax", @progbits
    .align 64
counter_stubs:
    .set number, 0
    .rept {vectors}
    counter %number
    .set number, number + 1
    .endr

    .align 64
count_nmi:
    push rax
    push rcx
    push rdx
    mov ecx, 0x802
    rdmsr
    and eax, 15
    shl eax, 6
    lea rcx, [rip + {nmis}]
    add rcx, rax
    mov edx, 1
    xchg [rcx + 8], rdx
    add [rcx + 24], rdx
    mov [rcx + 32], rsp
    lock inc qword ptr [rcx]
2:  cmp qword ptr [rcx + 16], 0
    je 3f
    pause
    jmp 2b
3:  mov qword ptr [rcx + 8], 0
    pop rdx
    pop rcx
    pop rax
    iretq
    .previous
    "#,
    counts = sym COUNTS,
    vectors = const VECTORS,
    nmis = sym NMIS,
);

unsafe extern "C" {
    static counter_stubs: u8;
    static count_nmi: u8;
}

/// Bytes between two stubs.
const STUB_LEN: usize = 64;

/// Installs the handlers.
pub(crate) fn install() {
    for (index, vector) in (FIRST_VECTOR..).take(VECTORS).enumerate() {
        let stub = (&raw const counter_stubs).wrapping_add(index * STUB_LEN);
        // SAFETY: it saves what it uses, ends its interrupt and returns by IRETQ; nobody sends this vector yet.
        unsafe { interrupts::set_handler(vector, stub) };
    }
    // SAFETY: it saves what it uses and returns by IRETQ; nobody sends NMIs yet, and each CPU loads its tables first.
    unsafe {
        interrupts::set_handler(NMI_VECTOR, &raw const count_nmi);
        tables::use_nmi_stack(NMI_VECTOR);
    }
}

fn low(apic_id: u32) -> usize {
    apic_id as usize % IDS
}

/// Interrupts of one vector on the CPU with this APIC ID.
pub(crate) fn count(vector: u8, apic_id: u32) -> u64 {
    let row = COUNTS.get(usize::from(vector.wrapping_sub(FIRST_VECTOR)));
    row.and_then(|row| row.get(low(apic_id))).map_or(0, |count| count.load(Ordering::Acquire))
}

/// Interrupts of all vectors on all CPUs.
pub(crate) fn total() -> u64 {
    COUNTS.iter().flatten().map(|count| count.load(Ordering::Acquire)).sum()
}

fn nmis_of(apic_id: u32) -> &'static Nmis {
    let [first, ..] = &NMIS;
    NMIS.get(low(apic_id)).unwrap_or(first)
}

/// NMIs on the CPU with this APIC ID.
pub(crate) fn nmis(apic_id: u32) -> u64 {
    nmis_of(apic_id).count.load(Ordering::Acquire)
}

/// NMIs on all CPUs.
pub(crate) fn all_nmis() -> u64 {
    NMIS.iter().map(|nmis| nmis.count.load(Ordering::Acquire)).sum()
}

/// Whether that CPU is in its NMI handler.
pub(crate) fn in_nmi(apic_id: u32) -> bool {
    nmis_of(apic_id).inside.load(Ordering::Acquire) != 0
}

/// Makes that CPU's NMI handler stay, or lets it return.
pub(crate) fn hold_nmi(apic_id: u32, hold: bool) {
    nmis_of(apic_id).hold.store(hold.into(), Ordering::Release);
}

/// Forgets that a CPU was in its NMI handler, after it was started anew.
pub(crate) fn forget_nmi(apic_id: u32) {
    nmis_of(apic_id).inside.store(0, Ordering::Release);
}

/// How often a CPU was interrupted by an NMI in its NMI handler.
pub(crate) fn nested_nmis(apic_id: u32) -> u64 {
    nmis_of(apic_id).nested.load(Ordering::Acquire)
}

/// The stack pointer in that CPU's last NMI handler.
pub(crate) fn nmi_stack(apic_id: u32) -> u64 {
    nmis_of(apic_id).stack.load(Ordering::Acquire)
}
