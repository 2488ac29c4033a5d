//! Interrupts and exceptions of the hypervisor itself.
//!
//! No entry uses an interrupt stack: while a guest's state is loaded, the task register is the guest's, and a
//! stack from its TSS would be of the guest's choosing. Handlers run on the stack of the pCPU.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use partita_core::arch::PcpuId;
use partita_x86_bare::apic::SPURIOUS_VECTOR;
use partita_x86_bare::exceptions;
use partita_x86_policy::vmx::field;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::structures::idt::{Entry, HandlerFunc, InterruptDescriptorTable};

/// Selectors of the hypervisor's code and data (`boot_gdt` of the entry code).
pub const CODE_SELECTOR: u16 = 8;
/// See [`CODE_SELECTOR`].
pub const DATA_SELECTOR: u16 = 16;

/// Vector of the local APIC timer of the housekeeping pCPU.
pub const TIMER_VECTOR: u8 = 0x40;
/// Vector of COM1, on the housekeeping pCPU: it only wakes it.
pub const SERIAL_VECTOR: u8 = 0x42;
/// Vectors from here on are interrupts' only.
const FIRST_INTERRUPT: u8 = 32;
const DEBUG: u8 = 1;
const NMI: u8 = 2;
const GENERAL_PROTECTION: u8 = 13;
/// Vector that kicks a pCPU whose local APIC is the hypervisor's.
pub const KICK_VECTOR: u8 = 0x41;

// NMI: level-triggered news, and mailbox and requests are looked at again before every guest entry, so that there is
// nothing to do. Only a pCPU that was about to halt has to be turned back, or it would sleep with the news: if it was
// caught between its last check and its HLT, it continues behind the HLT. Such a pCPU has a handler of its own.
global_asm!(
    r#"
    .section .text.idt, "ax", @progbits
    .align 16
nmi_stub:
    iretq

    // Where NMIs cannot be held back between an exit and the next entry, which shall end at once then: arms the guest's
    // preemption timer, which stands at 0. Without a current VMCS the write does nothing.
    .align 16
arming_nmi_stub:
    push rax
    push rdx
    mov eax, {pin_controls}
    mov edx, [rip + {armed}]
    vmwrite rax, rdx
    pop rdx
    pop rax
    iretq

    .align 16
parking_nmi_stub:
    push rax
    push rcx
    mov rax, rsp
    and rax, -{block_len}
    mov dword ptr [rax + {private}], 1
    lea rcx, [rip + park_woken]
    cmp [rsp + 16], rcx
    jae 2f
    lea rax, [rip + park_check]
    cmp [rsp + 16], rax
    jb 2f
    mov [rsp + 16], rcx
2:  pop rcx
    pop rax
    iretq

    // Writes MSR EDI with RSI; EAX tells whether it faulted.
    .align 16
    .global try_write_msr
try_write_msr:
    mov ecx, edi
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
try_write_msr_at:
    wrmsr
    xor eax, eax
    ret

    // Reads MSR EDI to where RSI points; EAX tells whether it faulted.
    .align 16
    .global try_read_msr
try_read_msr:
    mov ecx, edi
try_read_msr_at:
    rdmsr
    mov [rsi], eax
    mov [rsi + 4], edx
    xor eax, eax
    ret

    // Writes extended control register EDI with RSI; EAX tells whether it faulted.
    .align 16
    .global try_xsetbv
try_xsetbv:
    mov ecx, edi
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
try_xsetbv_at:
    xsetbv
    xor eax, eax
    ret

try_msr_faulted:
    mov eax, 1
    ret

    // #GP: expected in three places only.
    .align 16
general_protection_stub:
    push rax
    lea rax, [rip + try_write_msr_at]
    cmp [rsp + 16], rax
    je 4f
    lea rax, [rip + try_read_msr_at]
    cmp [rsp + 16], rax
    je 4f
    lea rax, [rip + try_xsetbv_at]
    cmp [rsp + 16], rax
    je 4f
    pop rax
    jmp exception_stubs + 13 * 16
4:  lea rax, [rip + try_msr_faulted]
    mov [rsp + 16], rax
    pop rax
    add rsp, 8
    iretq

    // Halts until an NMI comes, or an interrupt if ESI is not 0, unless the word at RDI, which the NMI handler sets, is
    // set. Interrupts are off before and afterwards.
    .align 16
    .global park_until_kicked
park_until_kicked:
park_check:
    cmp dword ptr [rdi], 0
    jne park_woken
    test esi, esi
    jz 5f
    sti
5:  hlt
park_woken:
    cli
    ret

    .align 16
timer_stub:
    push rax
    push rdx
    push rcx
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov [rip + {timer_fired}], rax
    jmp 3f
    .align 16
kick_stub:
    push rax
    push rdx
    push rcx
3:  xor eax, eax
    xor edx, edx
    mov ecx, 0x80B          // x2APIC EOI
    wrmsr
    pop rcx
    pop rdx
    pop rax
    iretq

    // #DB: the hypervisor neither steps nor has breakpoints. In Bochs 2.7 a guest's single step over an instruction that exits
    // comes to the hypervisor, behind the VMRUN.
debug_stub:
    iretq
    .previous
    "#,
    timer_fired = sym TIMER_FIRED,
    armed = sym ARMED_PIN_CONTROLS,
    pin_controls = const field::PIN_BASED_CONTROLS.encoding(),
    block_len = const super::percpu::BLOCK_LEN,
    private = const super::percpu::BLOCK_LEN - super::percpu::PRIVATE_LEN,
);

unsafe extern "C" {
    static nmi_stub: u8;
    static parking_nmi_stub: u8;
    static arming_nmi_stub: u8;
    static timer_stub: u8;
    static kick_stub: u8;
    static debug_stub: u8;
    static general_protection_stub: u8;
    fn try_write_msr(msr: u32, value: u64) -> u32;
    fn try_read_msr(msr: u32, value: *mut u64) -> u32;
    fn try_xsetbv(register: u32, value: u64) -> u32;
    fn park_until_kicked(nmi_seen: *const AtomicU32, interrupts: u32);
}

/// What wakes a pCPU that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WokenBy {
    /// NMIs only: its local APIC is a guest's.
    Nmis,
    /// NMIs and interrupts: its local APIC is the hypervisor's.
    NmisAndInterrupts,
}

/// Halts this pCPU, with interrupts off on entry and return, until it is kicked. It returns at once if an NMI came since
/// `check` began; `check` says whether there is nothing to do, and is asked after the last NMI's trace was wiped, so that
/// no NMI between the question and the HLT is slept through.
pub fn park_while(by: WokenBy, check: impl Fn() -> bool) {
    load_table(&PARKING);
    let nmi_seen = &super::percpu::private().nmi_seen;
    nmi_seen.store(0, Ordering::SeqCst);
    if check() {
        // SAFETY: the function reads the word and halts; interrupts have their handlers.
        unsafe { park_until_kicked(nmi_seen, u32::from(by == WokenBy::NmisAndInterrupts)) };
    }
    load();
}

/// The CPU refused an access to a model-specific register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrRefused;

/// Writes a model-specific register that this CPU may not have, or whose value it may not take.
///
/// # Errors
/// If the CPU refuses it (#GP).
///
/// # Safety
/// A write that the CPU accepts must not break memory safety.
pub unsafe fn write_msr_checked(msr: u32, value: u64) -> Result<(), MsrRefused> {
    // SAFETY: a #GP at the write comes back as a result; by the contract above.
    if unsafe { try_write_msr(msr, value) } == 0 { Ok(()) } else { Err(MsrRefused) }
}

/// Reads a model-specific register that this CPU may not have.
///
/// # Errors
/// If the CPU refuses it (#GP).
pub fn read_msr_checked(msr: u32) -> Result<u64, MsrRefused> {
    let mut value = 0;
    // SAFETY: a #GP at the read comes back as a result; reading has no effect on memory.
    if unsafe { try_read_msr(msr, &raw mut value) } == 0 { Ok(value) } else { Err(MsrRefused) }
}

/// Writes an extended control register with a value that this CPU may not take. CR4.OSXSAVE is set.
///
/// # Errors
/// If the CPU refuses it (#GP).
///
/// # Safety
/// The value must do no harm if the CPU takes it.
pub unsafe fn set_extended_control_checked(register: u32, value: u64) -> Result<(), MsrRefused> {
    // SAFETY: by the contract above; the handler of #GP knows the instruction.
    if unsafe { try_xsetbv(register, value) } == 0 { Ok(()) } else { Err(MsrRefused) }
}

/// Time-stamp of the last timer interrupt; 0 if none came since it was cleared.
pub static TIMER_FIRED: AtomicU64 = AtomicU64::new(0);

type Table = Once<InterruptDescriptorTable>;

// Built by the boot pCPU before there is another, so that nobody ever waits for one.
static HOUSEKEEPING: Table = Once::new();
static OTHERS: Table = Once::new();
static DRAINING: Table = Once::new();
static PARKING: Table = Once::new();
static ARMING: Table = Once::new();

/// Builds the descriptor tables: once, on the boot pCPU.
pub fn build_tables() {
    HOUSEKEEPING.call_once(build_housekeeping);
    OTHERS.call_once(|| build(FIRST_INTERRUPT, &raw const nmi_stub));
    DRAINING.call_once(build_draining);
    PARKING.call_once(|| build(FIRST_INTERRUPT, &raw const parking_nmi_stub));
    ARMING.call_once(|| build(FIRST_INTERRUPT, &raw const arming_nmi_stub));
}

fn load_table(table: &'static Table) {
    if let Some(table) = table.get() {
        table.load();
    }
}

/// Loads the descriptor table on this pCPU.
pub fn load() {
    let private = super::percpu::private();
    load_table(match private.id {
        PcpuId(0) => &HOUSEKEEPING,
        _ if private.arms_guest.get() => &ARMING,
        _ => &OTHERS,
    });
}

/// Pin-based controls of VMX with the preemption timer on: what the NMI handler of a pCPU with a vCPU writes.
static ARMED_PIN_CONTROLS: AtomicU32 = AtomicU32::new(0);

/// Says what [`arm_guest_at_nmi`] has the handler write: once, before another pCPU is up.
pub fn set_armed_pin_controls(controls: u32) {
    ARMED_PIN_CONTROLS.store(controls, Ordering::Relaxed);
}

/// From now on an NMI on this pCPU ends the next entry into its guest at once.
pub fn arm_guest_at_nmi() {
    super::percpu::private().arms_guest.set(true);
    load();
}

/// Runs `drain` with a descriptor table that takes every vector for an interrupt: a guest can have sent itself those that are
/// exceptions otherwise, in QEMU all of them. `drain` causes no exception.
pub fn while_draining(drain: impl FnOnce()) {
    load_table(&DRAINING);
    drain();
    load();
}

/// Sets the handler of a vector.
fn set(table: &mut InterruptDescriptorTable, vector: u8, handler: u64) {
    let gates = (&raw mut *table).cast::<Entry<HandlerFunc>>();
    // SAFETY: the table is an array of 256 gates, whatever type of handler each is declared with; every address is that
    // of a stub written for its vector: with the right error code, in the hypervisor's code segment, and returning by
    // IRETQ or not at all.
    unsafe { (*gates.add(usize::from(vector))).set_handler_addr(VirtAddr::new(handler)) };
}

fn build_housekeeping() -> InterruptDescriptorTable {
    let mut table = build(FIRST_INTERRUPT, &raw const nmi_stub);
    set(&mut table, TIMER_VECTOR, &raw const timer_stub as u64);
    // No guest's step comes to this pCPU.
    set(&mut table, DEBUG, exceptions::stub(DEBUG));
    table
}

/// A table in which vectors from `first_interrupt` on are interrupts', to be ended and forgotten.
fn build(first_interrupt: u8, nmi: *const u8) -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    for vector in 0..first_interrupt {
        set(&mut table, vector, exceptions::stub(vector));
    }
    set(&mut table, DEBUG, &raw const debug_stub as u64);
    set(&mut table, NMI, nmi as u64);
    set(&mut table, GENERAL_PROTECTION, &raw const general_protection_stub as u64);
    // What was meant for a guest that is no more only has to be ended. After a spurious interrupt the EOI finds nothing in service.
    for vector in (first_interrupt..=u8::MAX).chain([SPURIOUS_VECTOR]) {
        set(&mut table, vector, &raw const kick_stub as u64);
    }
    table
}

/// A table in which every vector is an interrupt's. Where nothing is in service, as after an NMI, the EOI does nothing.
fn build_draining() -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    for vector in 0..=u8::MAX {
        set(&mut table, vector, &raw const kick_stub as u64);
    }
    table
}

/// Takes the time-stamp of the last timer interrupt, if one came since the last call.
pub fn take_timer() -> Option<u64> {
    let stamp = TIMER_FIRED.swap(0, Ordering::Relaxed);
    (stamp != 0).then_some(stamp)
}
