//! Interrupts and exceptions of the hypervisor itself.
//!
//! No entry uses an interrupt stack: while a guest's state is loaded, the task register is the guest's, and a
//! stack from its TSS would be of the guest's choosing. Handlers run on the stack of the pCPU.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use partita_core::arch::PcpuId;
use partita_x86_bare::apic::SPURIOUS_VECTOR;
use partita_x86_bare::exceptions::{self, ExceptionFrame};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::{end_run, rdtsc};
use crate::console;

/// Vector of the local APIC timer of the housekeeping pCPU.
pub const TIMER_VECTOR: u8 = 0x40;
/// Vectors from here on are interrupts'.
const FIRST_INTERRUPT: u8 = 32;
/// Vector that kicks a pCPU whose local APIC is the hypervisor's.
pub const KICK_VECTOR: u8 = 0x41;

// NMI: level-triggered news, and the mailbox is checked again before every guest entry and before every HLT.
// Only a pCPU that was about to halt has to be turned back, or it would sleep with the news: if it was caught
// between its last check and its HLT, it continues behind the HLT.
global_asm!(
    r#"
    .section .text.idt, "ax", @progbits
    .align 16
nmi_stub:
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

    // Halts with interrupts off until an NMI comes, unless the word at RDI, which the NMI handler sets, is set.
    .align 16
    .global park_until_nmi
park_until_nmi:
park_check:
    cmp dword ptr [rdi], 0
    jne park_woken
    hlt
park_woken:
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
spurious_stub:
    iretq
    .previous
    "#,
    timer_fired = sym TIMER_FIRED,
    block_len = const super::percpu::BLOCK_LEN,
    private = const super::percpu::BLOCK_LEN - super::percpu::PRIVATE_LEN,
);

unsafe extern "C" {
    static nmi_stub: u8;
    static timer_stub: u8;
    static kick_stub: u8;
    static spurious_stub: u8;
    fn park_until_nmi(nmi_seen: *const AtomicU32);
}

/// Halts this pCPU, with interrupts off, until an NMI comes. It returns at once if one came since `check` began;
/// `check` says whether there is nothing to do, and is asked after the last NMI's trace was wiped, so that no NMI
/// between the question and the HLT is slept through.
pub fn park_while(check: impl Fn() -> bool) {
    let nmi_seen = &super::percpu::private().nmi_seen;
    nmi_seen.store(0, Ordering::SeqCst);
    if check() {
        // SAFETY: the function only reads the word and halts.
        unsafe { park_until_nmi(nmi_seen) };
    }
}

/// Time-stamp of the last timer interrupt; 0 if none came since it was cleared.
pub static TIMER_FIRED: AtomicU64 = AtomicU64::new(0);

/// Of the housekeeping pCPU, and of all others.
static IDTS: [Once<InterruptDescriptorTable>; 2] = [const { Once::new() }; 2];

/// Loads the descriptor table on this pCPU.
pub fn load() {
    let [housekeeping, others] = &IDTS;
    if super::percpu::private().id == PcpuId(0) {
        housekeeping.call_once(|| build(true)).load();
    } else {
        others.call_once(|| build(false)).load();
    }
}

fn build(has_timer: bool) -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    let stub = |vector| VirtAddr::new(exceptions::stub(vector));
    let at = |symbol: *const u8| VirtAddr::new(symbol as u64);
    // SAFETY: every address is that of a stub written for its vector: with the right error code, in the
    // hypervisor's code segment, and returning by IRETQ or not at all.
    unsafe {
        idt.divide_error.set_handler_addr(stub(0));
        idt.debug.set_handler_addr(stub(1));
        idt.non_maskable_interrupt.set_handler_addr(at(&raw const nmi_stub));
        idt.breakpoint.set_handler_addr(stub(3));
        idt.overflow.set_handler_addr(stub(4));
        idt.bound_range_exceeded.set_handler_addr(stub(5));
        idt.invalid_opcode.set_handler_addr(stub(6));
        idt.device_not_available.set_handler_addr(stub(7));
        idt.double_fault.set_handler_addr(stub(8));
        idt.invalid_tss.set_handler_addr(stub(10));
        idt.segment_not_present.set_handler_addr(stub(11));
        idt.stack_segment_fault.set_handler_addr(stub(12));
        idt.general_protection_fault.set_handler_addr(stub(13));
        idt.page_fault.set_handler_addr(stub(14));
        idt.x87_floating_point.set_handler_addr(stub(16));
        idt.alignment_check.set_handler_addr(stub(17));
        idt.machine_check.set_handler_addr(stub(18));
        idt.simd_floating_point.set_handler_addr(stub(19));
        idt.virtualization.set_handler_addr(stub(20));
        idt.cp_protection_exception.set_handler_addr(stub(21));
        idt.hv_injection_exception.set_handler_addr(stub(28));
        idt.vmm_communication_exception.set_handler_addr(stub(29));
        idt.security_exception.set_handler_addr(stub(30));
        // What was meant for a guest that is no more only has to be ended.
        for vector in FIRST_INTERRUPT..=u8::MAX {
            idt[vector].set_handler_addr(at(&raw const kick_stub));
        }
        if has_timer {
            idt[TIMER_VECTOR].set_handler_addr(at(&raw const timer_stub));
        }
        idt[SPURIOUS_VECTOR].set_handler_addr(at(&raw const spurious_stub));
    }
    idt
}

/// Masks every line of the legacy 8259 interrupt controllers, whose vectors are exceptions' until someone programs
/// them.
pub fn mask_legacy_controllers() {
    for port in [0x21, 0xA1] {
        let mut data: x86_64::instructions::port::Port<u8> = x86_64::instructions::port::Port::new(port);
        // SAFETY: masks interrupts; where there is no controller, nothing happens.
        unsafe { data.write(0xFF) };
    }
}

/// A fault of the hypervisor is fatal.
#[unsafe(no_mangle)]
extern "C" fn bare_exception(frame: &ExceptionFrame) -> ! {
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    let pcpu = super::percpu::private().id.0;
    console::print_fatal(format_args!(
        "\npartita: fatal: exception {} (error code {:#x}) on pCPU {pcpu}: rip {:#x} rsp {:#x} rflags {:#x} cr2 {cr2:#x} \
         tsc {}\n",
        frame.vector,
        frame.error_code,
        frame.rip,
        frame.rsp,
        frame.rflags,
        rdtsc(),
    ));
    end_run(partita_abi::report::HypervisorExit::Fatal)
}

/// Takes the time-stamp of the last timer interrupt, if one came since the last call.
pub fn take_timer() -> Option<u64> {
    let stamp = TIMER_FIRED.swap(0, Ordering::Relaxed);
    (stamp != 0).then_some(stamp)
}
