//! Each CPU's own descriptor table and task state, for what needs a stack of its own: NMIs, and exceptions of user code.

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::peer::CPUS;

/// Selector of the kernel's code.
pub(crate) const KERNEL_CODE: u64 = 0x08;
/// Selector of the kernel's data.
pub(crate) const KERNEL_DATA: u64 = 0x10;
/// Selector of user data.
pub(crate) const USER_DATA: u64 = 0x18 | 3;
/// Selector of user code.
pub(crate) const USER_CODE: u64 = 0x20 | 3;
/// Selector of 32-bit code of the kernel.
pub(crate) const KERNEL_CODE_32: u64 = 0x38;
/// Selector of 16-bit code of the kernel, which is where [`set_code_16`] says.
pub(crate) const KERNEL_CODE_16: u64 = 0x40;
/// Selector of 32-bit user code.
pub(crate) const USER_CODE_32: u64 = 0x48 | 3;
const TASK: u16 = 0x28;
const STACK_LEN: usize = 4096;
/// Words of the descriptor table.
const DESCRIPTORS: usize = 10;
const CODE_16: u64 = 0x0000_9B00_0000_FFFF;
/// Offsets in a 64-bit task state segment (APM vol. 2 section 12.2.5), in words of four bytes.
const RSP0: usize = 1;
const IST1: usize = 9;
const IO_MAP_BASE: usize = 25;
const TASK_WORDS: usize = 26;
const TASK_LIMIT: u64 = TASK_WORDS as u64 * 4 - 1;
/// Present, available 64-bit task state segment.
const AVAILABLE_TASK: u64 = 0x89 << 40;

#[repr(C, align(64))]
struct Tables {
    gdt: [u64; DESCRIPTORS],
    task: [u32; TASK_WORDS],
    nmi_stack: [u8; STACK_LEN],
    kernel_stack: [u8; STACK_LEN],
}

struct Own(UnsafeCell<Tables>);

// SAFETY: each is its CPU's own.
unsafe impl Sync for Own {}

static OWN: [Own; CPUS] = [const {
    Own(UnsafeCell::new(Tables {
        gdt: [0; DESCRIPTORS],
        task: [0; TASK_WORDS],
        nmi_stack: [0; STACK_LEN],
        kernel_stack: [0; STACK_LEN],
    }))
}; CPUS];

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Builds this CPU's tables anew and loads them: CPU `index`, once after each start.
pub(crate) fn load(index: usize) {
    let Some(own) = OWN.get(index) else { return };
    let own = own.0.get();
    // SAFETY: the tables are this CPU's, and it uses none of them yet.
    let tables = unsafe { &mut *own };
    let base = (&raw const tables.task) as u64;
    tables.gdt = [
        0,
        0x00AF_9B00_0000_FFFF, // 0x08: kernel code, as the boot code has it
        0x00CF_9300_0000_FFFF, // 0x10: kernel data, likewise
        0x00CF_F300_0000_FFFF,
        0x00AF_FB00_0000_FFFF,
        TASK_LIMIT | (base & 0xFF_FFFF) << 16 | AVAILABLE_TASK | (base >> 24 & 0xFF) << 56,
        base >> 32,
        0x00CF_9B00_0000_FFFF,
        CODE_16,
        0x00CF_FB00_0000_FFFF,
    ];
    let mut stack = |word: usize, top: u64| {
        for (place, half) in tables.task.iter_mut().skip(word).zip([top as u32, (top >> 32) as u32]) {
            *place = half;
        }
    };
    let end = STACK_LEN as u64;
    stack(RSP0, (&raw const tables.kernel_stack) as u64 + end);
    stack(IST1, (&raw const tables.nmi_stack) as u64 + end);
    tables.task[IO_MAP_BASE] = (TASK_LIMIT as u32 + 1) << 16;
    let pointer = Pointer { limit: (size_of_val(&tables.gdt) - 1) as u16, base: (&raw const tables.gdt) as u64 };
    // SAFETY: the kernel's selectors mean what they meant before; the task state is complete.
    unsafe { asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const pointer, in(reg) TASK) };
}

/// Where the kernel's 16-bit code begins on the CPU that executes this: below 4 GiB.
pub(crate) fn set_code_16(base: u64) {
    let mut pointer = Pointer { limit: 0, base: 0 };
    // SAFETY: stores ten bytes.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    let descriptor = CODE_16 | (base & 0xFF_FFFF) << 16 | (base >> 24 & 0xFF) << 56;
    // SAFETY: the table is the one of `load`, which has this descriptor; nobody uses it now.
    unsafe { ((pointer.base + KERNEL_CODE_16) as *mut u64).write_volatile(descriptor) };
}

/// Whether `address` lies in the NMI stack of a CPU.
pub(crate) fn in_nmi_stack(index: usize, address: u64) -> bool {
    let Some(own) = OWN.get(index) else { return false };
    // SAFETY: only the address is taken.
    let start = unsafe { &raw const (*own.0.get()).nmi_stack } as u64;
    (start..start + STACK_LEN as u64).contains(&address)
}

fn gate(vector: u8) -> *mut u64 {
    let mut pointer = Pointer { limit: 0, base: 0 };
    // SAFETY: stores ten bytes.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    (pointer.base + u64::from(vector) * 16) as *mut u64
}

/// The address of the handler of a vector.
pub(crate) fn handler(vector: u8) -> u64 {
    let gate = gate(vector);
    // SAFETY: the table has a gate of two words for every vector.
    let (low, high) = unsafe { (gate.read_volatile(), gate.add(1).read_volatile()) };
    low & 0xFFFF | (low >> 48 & 0xFFFF) << 16 | high << 32
}

/// Lets the handler of a vector run on the NMI stack.
///
/// # Safety
/// Every CPU that takes this vector has loaded its tables, and none takes it meanwhile.
pub(crate) unsafe fn use_nmi_stack(vector: u8) {
    let gate = gate(vector);
    // SAFETY: as in `handler`; the stack is there, by the contract.
    unsafe { gate.write_volatile(gate.read_volatile() & !(7 << 32) | 1 << 32) };
}
