//! Leaves long mode for 32-bit protected mode without paging, where there are task switches, and switches: to a good task,
//! which says so on the console, or to a bad one.

use core::arch::global_asm;

use super::shutdowns::End::{self, NestedPageFault, TaskSwitch, TripleFault};
use crate::console;
use crate::gates;
use crate::tables::{self, CODE_32, OTHER_TASK, Pointer, TASK};

/// A 32-bit task state segment (Intel SDM vol. 3, "Task Management in Protected Mode"), in words of four bytes.
const WORDS: usize = 26;
const EIP: usize = 8;
const EFLAGS: usize = 9;
const ESP: usize = 14;
const SEGMENTS: core::ops::Range<usize> = 18..24;
const CODE_SEGMENT: usize = 19;
const LIMIT: u64 = WORDS as u64 * 4 - 1;

/// Where the tasks' state lies: low memory that nothing uses.
const OLD_AT: u64 = 0x2000;
const NEW_AT: u64 = 0x3000;
const STACK_TOP: u32 = 0x5000;

/// A task to switch to.
pub(super) struct Task {
    pub(super) name: &'static str,
    /// Bits of its descriptor to flip, and its address.
    flipped: u64,
    at: u64,
    /// How the switch ends, with SVM and with VMX, which checks the descriptor alone before it exits (SDM vol. 3 section 26.4.2).
    pub(super) ends: [End; 2],
}

const fn task(name: &'static str, flipped: u64, at: u64, ends: [End; 2]) -> Task {
    Task { name, flipped, at, ends }
}

/// What is wrong with the task that is switched to.
pub(super) const TASKS: [Task; 6] = [
    task("a good task", 0, NEW_AT, [TripleFault, TaskSwitch]),
    task("a task that is not present", 1 << 47, NEW_AT, [TripleFault, TripleFault]),
    task("a busy task", 2 << 40, NEW_AT, [TripleFault, TripleFault]),
    task("a task that is too short", LIMIT, NEW_AT, [TripleFault, TripleFault]),
    task("a task of zeros", 0, 0x6000, [TripleFault, TaskSwitch]),
    task("a task in foreign memory", 0, 0x4000_0000, [NestedPageFault, TaskSwitch]),
];

global_asm!(
    r#"
    .section .text.task, "ax", @progbits
    .global hostile_leave_long_mode
    // RDI: the far pointer to the task, below 4 GiB; SI: the old task.
hostile_leave_long_mode:
    cli
    lea rax, [rip + 2f]
    push {code_32}
    push rax
    retfq
    .code32
2:  mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    mov ecx, 0xC0000080
    rdmsr
    and eax, 0xFFFFFEFF
    wrmsr
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    ltr si
    jmp fword ptr [edi]
    ud2

    // The new task: its console's port is in EDX.
    .global hostile_task
hostile_task:
    mov esi, offset hostile_task_text
3:  lodsb
    test al, al
    jz 4f
    out dx, al
    jmp 3b
4:  ud2
hostile_task_text:
    .asciz "hostile: switched to the task\r\n"
    .code64
    .previous
    "#,
    code_32 = const CODE_32,
);

unsafe extern "C" {
    fn hostile_leave_long_mode(pointer: u64, old_task: u64) -> !;
    static hostile_task: u8;
}

fn write(at: u64, word: usize, value: u32) {
    // SAFETY: low memory that nothing uses, mapped one to one.
    unsafe { (at as *mut u32).add(word).write_volatile(value) };
}

/// Switches to one of [`TASKS`]. No gate is there in 32-bit mode: each ends by a triple fault at the latest, the good one when
/// it has said that it ran.
pub(super) fn switch(number: usize) -> ! {
    let [good, ..] = &TASKS;
    let Task { flipped, at, .. } = *TASKS.get(number).unwrap_or(good);
    // EDX of a task's state: word 12.
    for (word, value) in [
        (EIP, &raw const hostile_task as u32),
        (EFLAGS, 2),
        (12, console::base().unwrap_or(0).into()),
        (ESP, STACK_TOP),
        (25, 104 << 16),
    ] {
        write(NEW_AT, word, value);
    }
    for word in SEGMENTS {
        write(NEW_AT, word, if word == CODE_SEGMENT { CODE_32.into() } else { 0x10 });
    }
    tables::set_descriptor(0, TASK, tables::task_descriptor(OLD_AT, LIMIT));
    tables::set_descriptor(0, OTHER_TASK, tables::task_descriptor(at, LIMIT) ^ flipped);
    // A far pointer of 48 bits.
    write(0x1000, 0, 0);
    write(0x1000, 1, OTHER_TASK.into());
    gates::load_pointer(&Pointer::default());
    // SAFETY: ends the partition.
    unsafe { hostile_leave_long_mode(0x1000, TASK.into()) }
}
