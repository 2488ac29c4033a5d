//! Each CPU's own descriptor table and task state: exceptions and NMIs have stacks of their own, whatever the attack does to
//! the one in use.

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::gates;

/// vCPUs of an attack.
pub(crate) const CPUS: usize = 2;
/// 64-bit kernel code, as the boot code has it.
pub(crate) const KERNEL_CODE: u16 = 0x08;
/// 32-bit kernel code.
pub(crate) const CODE_32: u16 = 0x18;
/// A task state segment that is not this CPU's, for task switches.
pub(crate) const OTHER_TASK: u16 = 0x20;
/// The second half of a descriptor of 16 bytes, if taken for one of its own.
pub(crate) const TASK: u16 = 0x30;
/// Code and data of privilege level 3: 32-bit code, data, 64-bit code, in the order that SYSRET wants.
pub(crate) const USER_CODE_32: u16 = 0x43;
/// See [`USER_CODE_32`].
pub(crate) const USER_DATA: u16 = 0x4B;
/// See [`USER_CODE_32`].
pub(crate) const USER_CODE: u16 = 0x53;
/// 16-bit code, on the way to real mode.
pub(crate) const CODE_16: u16 = 0x58;
/// 16-bit data, likewise.
pub(crate) const DATA_16: u16 = 0x60;
/// Ports that the I/O permission map of the task state covers, if it is shown.
pub(crate) const MAPPED_PORTS: u16 = 0x400;
/// Top of the stack on which legacy mode takes exceptions of less privileged code: low memory that nothing uses.
pub(crate) const LEGACY_STACK_TOP: u32 = 0xA000;
const STACK_LEN: usize = 4096;
/// Offsets in a 64-bit task state segment (APM vol. 2 section 12.2.5), in words of four bytes.
const IST1: usize = 9;
const IO_MAP_BASE: usize = 25;
const IO_MAP: usize = 26;
/// A byte of ones has to follow the map (APM vol. 2 section 12.2.4).
const TASK_WORDS: usize = IO_MAP + MAPPED_PORTS as usize / 32 + 1;
const TASK_LIMIT: u64 = TASK_WORDS as u64 * 4 - 1;
/// Stack pointer and segment for privilege level 0 in legacy mode, which 64-bit mode does not use here: all gates have a stack
/// of the table above.
const LEGACY_STACK: [usize; 2] = [1, 2];
/// Present, available task state segment.
const AVAILABLE_TASK: u64 = 0x89 << 40;
const GDT_LEN: usize = 13;
/// Limit of each descriptor table.
pub(crate) const GDT_LIMIT: u16 = (GDT_LEN * 8 - 1) as u16;

#[repr(C, align(64))]
struct Tables {
    gdt: [u64; GDT_LEN],
    task: [u32; TASK_WORDS],
    exception_stack: [u8; STACK_LEN],
    nmi_stack: [u8; STACK_LEN],
}

struct Own(UnsafeCell<Tables>);

// SAFETY: each is its CPU's own.
unsafe impl Sync for Own {}

static OWN: [Own; CPUS] = [const {
    Own(UnsafeCell::new(Tables {
        gdt: [0; GDT_LEN],
        task: [0; TASK_WORDS],
        exception_stack: [0; STACK_LEN],
        nmi_stack: [0; STACK_LEN],
    }))
}; CPUS];

/// What LGDT and LIDT load.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, packed)]
pub(crate) struct Pointer {
    /// Length less one.
    pub(crate) limit: u16,
    /// Address.
    pub(crate) base: u64,
}

/// A task state segment's descriptor, low half: base below 4 GiB.
pub(crate) const fn task_descriptor(base: u64, limit: u64) -> u64 {
    limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | AVAILABLE_TASK | (base >> 24 & 0xFF) << 56
}

/// Builds this CPU's tables anew and loads them, with the gates: CPU `index`, after each start and whatever an attack did.
pub(crate) fn load(index: usize) {
    let Some(own) = OWN.get(index) else { return };
    // SAFETY: the tables are this CPU's own, and nothing else refers to them.
    let tables = unsafe { &mut *own.0.get() };
    let task = (&raw const tables.task) as u64;
    tables.gdt = [
        0,
        0x00AF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        0x00CF_9B00_0000_FFFF,
        0,
        0,
        task_descriptor(task, TASK_LIMIT),
        task >> 32,
        0x00CF_FB00_0000_FFFF,
        0x00CF_F300_0000_FFFF,
        0x00AF_FB00_0000_FFFF,
        0x0000_9B00_0000_FFFF,
        0x0000_9300_0000_FFFF,
    ];
    let end = STACK_LEN as u64;
    let stacks = [(&raw const tables.exception_stack) as u64 + end, (&raw const tables.nmi_stack) as u64 + end];
    for (place, half) in
        tables.task.iter_mut().skip(IST1).zip(stacks.iter().flat_map(|top| [*top as u32, (top >> 32) as u32]))
    {
        *place = half;
    }
    tables.task[IO_MAP_BASE] = (TASK_LIMIT as u32 + 1) << 16;
    for (word, value) in LEGACY_STACK.into_iter().zip([LEGACY_STACK_TOP, 0x10]) {
        tables.task[word] = value;
    }
    tables.task[TASK_WORDS - 1] = u32::MAX;
    let pointer = Pointer { limit: GDT_LIMIT, base: (&raw const tables.gdt) as u64 };
    gates::note_gdt(&pointer);
    // SAFETY: the kernel's selectors mean what they meant before; the task state is complete, and available again.
    unsafe { asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const pointer, in(reg) TASK) };
    gates::load();
}

/// Shows the I/O permission map of CPU 0, which allows the first [`MAPPED_PORTS`], or hides it until [`load`] does so.
pub(crate) fn show_io_map(is_shown: bool) {
    let [own, ..] = &OWN;
    let offset = if is_shown { IO_MAP as u32 * 4 } else { TASK_LIMIT as u32 + 1 };
    // SAFETY: as above.
    unsafe { (&raw mut (*own.0.get()).task[IO_MAP_BASE]).write_volatile(offset << 16) };
}

/// Sets a descriptor of CPU `index`.
pub(crate) fn set_descriptor(index: usize, selector: u16, descriptor: u64) {
    let Some(own) = OWN.get(index) else { return };
    // SAFETY: as above.
    let tables = unsafe { &mut *own.0.get() };
    if let Some(place) = tables.gdt.get_mut(usize::from(selector / 8)) {
        *place = descriptor;
    }
}
