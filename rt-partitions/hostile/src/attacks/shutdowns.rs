//! What ends a guest, or keeps it for ever: one way in each life. Each says how it ends; what stays so is stopped by the
//! console's next restart, whatever it does.
//!
//! A data breakpoint on the place to which #DB is delivered is not among them: QEMU 10.0.2 aborts at it by an assertion.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use partita_x86_bare::{apic, relax, write_msr};

use super::task_switch;
use crate::Orders;
use crate::console::fail;
use crate::cpus::start_other;
use crate::gates::{self, attempt};
use crate::tables::{self, KERNEL_CODE, Pointer};
use crate::tally::Tally;
use crate::vendor::here;

/// Above every partition's memory in the tests, and mapped by the boot page tables.
const FOREIGN: u64 = 0x4000_0000;
const ZEROS: u64 = 0x9000;
const SELF_IPI: u32 = 0x83F;
const TPR: u32 = 0x808;
const TIMER_TICKS: u32 = 2000;
/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    TripleFault,
    NestedPageFault,
    /// VMX leaves the switch to the hypervisor, which makes none.
    TaskSwitch,
    /// The CPU should refuse it; where it does not, the next entry into the guest does.
    InvalidState,
    /// As the CPU likes: it should refuse it, and then the guest ends itself.
    Anyhow,
    Stays,
}
use End::{Anyhow, InvalidState, NestedPageFault, Stays, TripleFault};

/// A way to end: its name, how it ends, and what does it.
type Way = (&'static str, End, fn(&Orders) -> !);

const WAYS: [Way; 24] = [
    ("no interrupt table", TripleFault, |_| without_table(Pointer::default())),
    ("an interrupt table of zeros", TripleFault, |_| without_table(Pointer { limit: 0xFFF, base: ZEROS })),
    ("an interrupt table at no address", TripleFault, |_| without_table(Pointer { limit: 0xFFF, base: 1 << 46 })),
    ("an interrupt table in foreign memory", NestedPageFault, |_| {
        without_table(Pointer { limit: 0xFFF, base: FOREIGN })
    }),
    ("no descriptor table", TripleFault, |_| without_descriptors()),
    ("page tables of zeros", TripleFault, |_| page_tables(ZEROS)),
    ("page tables in foreign memory", NestedPageFault, |_| page_tables(FOREIGN)),
    ("a stack in foreign memory", NestedPageFault, |_| foreign_stack()),
    ("real mode without a table on vCPU 1", TripleFault, real_mode),
    ("CR0 with NW and without CD", InvalidState, |_| invalid_cr0(0xA001_0011)),
    ("CR0 with paging and without protection", Anyhow, |_| invalid_cr0(0x8000_0010)),
    ("CR0 without paging in 64-bit code", Anyhow, |_| invalid_cr0(0x11)),
    ("CR4 without PAE in 64-bit code", Anyhow, |_| invalid_cr4(0)),
    ("CR4 with reserved bits", Anyhow, |_| invalid_cr4(u64::MAX)),
    ("HLT with interrupts off", Stays, |_| halt()),
    ("a loop with interrupts off", Stays, |_| spin()),
    ("an NMI handler without end", Stays, |_| nmi_handler()),
    ("INIT to itself", Stays, |_| init_to_itself()),
    ("interrupts in service for ever", Stays, |_| in_service()),
    ("an interrupt storm of its timer", Stays, |_| timer_storm()),
    ("both vCPUs send NMIs to each other", Stays, nmi_storm),
    ("an exception in each handler of an exception", Stays, |_| fault_storm()),
    ("single steps into exits", Stays, |_| single_steps()),
    ("exits without end", Stays, |_| exits()),
];

/// The way of this life.
pub(crate) fn attack(orders: &Orders, tally: &mut Tally) {
    let index = (orders.life - 1) as usize % (WAYS.len() + task_switch::TASKS.len());
    tally.tries += 1;
    if let Some((name, end, way)) = WAYS.get(index) {
        orders.say(format_args!("{end:?}: {name}"));
        way(orders)
    }
    let number = index - WAYS.len();
    if let Some(task) = task_switch::TASKS.get(number) {
        orders.say(format_args!("{:?}: {}", here(task.ends), task.name));
    }
    task_switch::switch(number)
}

fn stay(mut act: impl FnMut()) -> ! {
    loop {
        act();
        relax();
    }
}

fn invalid() -> ! {
    // SAFETY: ends the partition, or leads to a handler that does not come back.
    unsafe { asm!("ud2", options(noreturn)) }
}

fn without_table(pointer: Pointer) -> ! {
    gates::load_pointer(&pointer);
    invalid()
}

fn without_descriptors() -> ! {
    let pointer = Pointer::default();
    // SAFETY: the next exception ends the partition.
    unsafe { asm!("lgdt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
    invalid()
}

fn page_tables(root: u64) -> ! {
    // SAFETY: ends the partition.
    unsafe { asm!("mov cr3, {}", "ud2", in(reg) root, options(noreturn)) }
}

fn foreign_stack() -> ! {
    // SAFETY: ends the partition.
    unsafe { asm!("mov rsp, {}", "push rax", "ud2", in(reg) FOREIGN, options(noreturn)) }
}

/// The processor that takes such a value cannot enter the guest behind the next exit.
fn invalid_cr0(value: u64) -> ! {
    let caught = attempt!(["mov rsi, rbx", "mov cr0, rax", "cpuid", "mov rbx, rsi"], inout("rax") value => _, out("rcx") _, out("rdx") _, out("rsi") _);
    fail(format_args!("CR0 = {value:#x} gave exception {caught}"))
}

fn invalid_cr4(value: u64) -> ! {
    let caught = attempt!(["mov rsi, rbx", "mov cr4, rax", "cpuid", "mov rbx, rsi"], inout("rax") value => _, out("rcx") _,
        out("rdx") _, out("rsi") _);
    fail(format_args!("CR4 = {value:#x} gave exception {caught}"))
}

fn halt() -> ! {
    // SAFETY: only waits.
    unsafe { asm!("2: cli", "hlt", "jmp 2b", options(noreturn)) }
}

fn spin() -> ! {
    // SAFETY: only waits.
    unsafe { asm!("cli", "2: jmp 2b", options(noreturn)) }
}

/// Real mode's code: `lidt [0x600]; int3`, with an empty table there.
fn real_mode(orders: &Orders) -> ! {
    const CODE: [u8; 6] = [0x0F, 0x01, 0x1E, 0x00, 0x06, 0xCC];
    const PAGE: u8 = 7;
    let [_, other] = orders.ids[..] else { fail(format_args!("the attack needs two vCPUs")) };
    for (byte, place) in CODE.iter().zip(u64::from(PAGE) << 12..) {
        // SAFETY: low memory that nothing uses.
        unsafe { (place as *mut u8).write_volatile(*byte) };
    }
    // SAFETY: vCPU 1 has not been started; what it does ends the partition.
    unsafe {
        apic::send_init(other);
        apic::send_startup(other, PAGE);
    }
    spin()
}

struct Handler(UnsafeCell<[u64; 512]>);

// SAFETY: only vCPU 0 uses it.
unsafe impl Sync for Handler {}

static OWN_GATES: Handler = Handler(UnsafeCell::new([0; 512]));

/// A table whose gates all lead to one handler, on the stack in use.
fn all_gates_to(handler: u64) {
    // SAFETY: this vCPU's own.
    for gate in unsafe { &mut *OWN_GATES.0.get() }.chunks_mut(2) {
        let words = handler & 0xFFFF | u64::from(KERNEL_CODE) << 16 | 0x8E00 << 32 | (handler >> 16 & 0xFFFF) << 48;
        for (place, word) in gate.iter_mut().zip([words, handler >> 32]) {
            *place = word;
        }
    }
    gates::load_pointer(&Pointer { limit: 0xFFF, base: OWN_GATES.0.get() as u64 });
}

extern "C" fn handler_that_stays() -> ! {
    spin()
}

fn nmi_handler() -> ! {
    all_gates_to(handler_that_stays as *const () as u64);
    // SAFETY: the handler does not come back.
    unsafe { apic::send_nmi(apic::id()) };
    spin()
}

fn init_to_itself() -> ! {
    // SAFETY: this vCPU waits for its start from here on, which nobody sends.
    unsafe { apic::send_init(apic::id()) };
    spin()
}

fn in_service() -> ! {
    for vector in 16..256 {
        // SAFETY: every vector has its handler; they stay pending, as interrupts are off.
        unsafe { write_msr(SELF_IPI, vector) };
    }
    all_gates_to(handler_that_stays as *const () as u64);
    // SAFETY: the first one comes, and stays.
    unsafe {
        write_msr(TPR, 0);
        asm!("sti", "2: jmp 2b", options(noreturn));
    }
}

fn timer_storm() -> ! {
    // SAFETY: every vector has its handler.
    unsafe {
        apic::timer_periodic(0x60, TIMER_TICKS);
        asm!("sti");
    }
    stay(|| {})
}

fn nmi_storm(orders: &Orders) -> ! {
    let [_, other] = orders.ids[..] else { fail(format_args!("the attack needs two vCPUs")) };
    // SAFETY: both vCPUs have a handler for NMIs.
    start_other(other, || stay(|| unsafe { write_msr(0x830, 3 << 18 | 1 << 14 | 4 << 8) }));
    // SAFETY: likewise.
    stay(|| unsafe { write_msr(0x830, 3 << 18 | 1 << 14 | 4 << 8) })
}

extern "C" fn handler_that_faults() -> ! {
    // SAFETY: leads to this handler again, on the same place of the stack.
    unsafe { asm!("mov rsp, {}", "ud2", in(reg) ZEROS, options(noreturn)) }
}

fn fault_storm() -> ! {
    all_gates_to(handler_that_faults as *const () as u64);
    invalid()
}

/// Returns with the trap flag set, to the next instruction.
#[unsafe(naked)]
extern "C" fn handler_that_returns_stepping() -> ! {
    naked_asm!("or dword ptr [rsp + 16], 0x100", "iretq")
}

fn single_steps() -> ! {
    all_gates_to(handler_that_returns_stepping as *const () as u64);
    // SAFETY: #DB after each instruction, which is handled.
    unsafe {
        asm!(
            "pushfq",
            "or dword ptr [rsp], 0x100",
            "popfq",
            "2: xor eax, eax",
            "cpuid",
            "mov ecx, 0x179",
            "rdmsr",
            "mov edx, 0x1234",
            "in al, dx",
            "jmp 2b",
            options(noreturn)
        );
    }
}

fn exits() -> ! {
    tables::load(0);
    // SAFETY: reads a register that the hypervisor answers for.
    unsafe { asm!("2: mov ecx, 0x179", "rdmsr", "jmp 2b", options(noreturn)) }
}
