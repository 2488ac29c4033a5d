//! Starting the other CPUs: INIT, SIPI, and a page of real-mode code below 1 MiB that leads to long mode.

use core::arch::global_asm;

use crate::{apic, rdtsc, relax};

/// Where the start-up page lies. A start-up IPI can only name a page below 1 MiB.
pub const STARTUP_PAGE: u64 = 0x8000;

global_asm!(
    r#"
    .section .rodata.startup, "a", @progbits
    .code16
    .global startup_code
startup_code:
    jmp 2f
    .align 8
    .skip 8                 // CR3
    .skip 8                 // stack
    .skip 8                 // argument
    .skip 8                 // entry
    .word 23                // GDT: limit and base
    .long {page} + {gdt}
    .align 8
    .quad 0
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
2:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0x66              // lgdtd: all 32 bits of the base
    lgdt [{gdt_pointer}]
    mov eax, cr4
    or eax, 0x20            // CR4.PAE
    mov cr4, eax
    mov eax, dword ptr [{cr3}]
    mov cr3, eax
    mov ecx, 0xC0000080     // EFER
    rdmsr
    or eax, 0x900           // LME, NXE
    wrmsr
    mov eax, 0x80010011     // CR0.PG, WP, ET, PE
    mov cr0, eax
    .byte 0x66, 0xEA        // far jump, 32-bit offset
    .long {page} + startup_long_mode - startup_code
    .word 0x08

    .code64
startup_long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, qword ptr [{page} + {stack}]
    mov rdi, qword ptr [{page} + {argument}]
    lgdt [boot_gdt_pointer]
    xor ebp, ebp
    mov rax, qword ptr [{page} + {entry}]
    call rax
    ud2

    .global startup_end
startup_end:
    .previous
    "#,
    page = const STARTUP_PAGE,
    cr3 = const CR3,
    stack = const STACK,
    argument = const ARGUMENT,
    entry = const ENTRY,
    gdt_pointer = const GDT_POINTER,
    gdt = const GDT,
);

// Offsets of the words at the start of the page.
const CR3: u64 = 8;
const STACK: u64 = 16;
const ARGUMENT: u64 = 24;
const ENTRY: u64 = 32;
const GDT_POINTER: u64 = 40;
const GDT: u64 = 48;

unsafe extern "C" {
    static startup_code: u8;
    static startup_end: u8;
}

/// Milliseconds from INIT to the first start-up IPI (SDM vol. 3, "MP Initialization Protocol").
const INIT_DELAY_MS: u64 = 10;
/// Milliseconds that a CPU may take to come up.
const ONLINE_DEADLINE_MS: u64 = 1000;

fn wait_until(deadline: u64, done: impl Fn() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if rdtsc() >= deadline {
            return false;
        }
        relax();
    }
}

/// Copies the start-up code to its page.
///
/// # Safety
/// The page must be RAM that nobody uses, mapped one to one and writable.
pub unsafe fn install(cr3: u64) {
    let from = &raw const startup_code;
    let len = &raw const startup_end as usize - from as usize;
    // SAFETY: by the contract above; the code is shorter than a page.
    unsafe {
        core::ptr::copy_nonoverlapping(from, STARTUP_PAGE as *mut u8, len);
        set(CR3, cr3);
    }
}

/// Sets one of the words that the start-up code reads.
///
/// # Safety
/// The start-up code must be installed, its page mapped and writable.
unsafe fn set(offset: u64, value: u64) {
    // SAFETY: by the contract above.
    unsafe { ((STARTUP_PAGE + offset) as *mut u64).write_volatile(value) };
}

/// What a CPU starts with.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Its x2APIC ID.
    pub apic_id: u32,
    /// Top of its stack.
    pub stack_top: u64,
    /// What it calls, in long mode, with interrupts off.
    pub entry: extern "C" fn(u64) -> !,
    /// The argument of that.
    pub argument: u64,
    /// Ticks of the time-stamp counter in a millisecond.
    pub ticks_per_ms: u64,
}

/// Starts one CPU and waits until `online` says that it is there. Returns whether it is.
///
/// # Safety
/// The start-up code must be installed and its page mapped, writable now and executable to the target; the target
/// must not be running, and its stack be nobody else's.
pub unsafe fn start(start: &Start, online: impl Fn() -> bool) -> bool {
    // SAFETY: by the contract above.
    unsafe {
        set(STACK, start.stack_top);
        set(ARGUMENT, start.argument);
        set(ENTRY, start.entry as usize as u64);
        apic::send_init(start.apic_id);
    }
    let ms = start.ticks_per_ms;
    let initialised = rdtsc() + INIT_DELAY_MS * ms;
    // Nobody else has anything to do meanwhile: no PAUSE, on which an emulator goes round its CPUs.
    while rdtsc() < initialised {}
    // The second IPI is for CPUs that miss the first; one that runs ignores it.
    for wait_ms in [1, ONLINE_DEADLINE_MS] {
        // SAFETY: by the contract above.
        unsafe { apic::send_startup(start.apic_id, (STARTUP_PAGE >> 12) as u8) };
        if wait_until(rdtsc() + wait_ms * ms, &online) {
            return true;
        }
    }
    false
}
