//! Into the guest and back: the loop of a vCPU, from top to bottom.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;
use partita_trace::raw;
use partita_x86_policy::ports::quick_out;
use partita_x86_policy::vmx::event::{Interruptibility, InterruptionInfo};
use partita_x86_policy::vmx::exit::reason;
use partita_x86_policy::vmx::field::{self, segment};

use super::VmxVcpu;
use crate::cpu::{idt, rdtsc};
use crate::vcpu::Vcpu;
use crate::vcpu::common::{Handled, Unrecorded};
use crate::vcpu::frame::{self, ExitFrame, place};
use crate::vcpu::quick::*;

/// Where the stack pointer is right after an exit.
pub fn host_rsp() -> u64 {
    frame::own::<VmxVcpu>() as u64 + offset_of!(ExitFrame<VmxVcpu>, vcpu) as u64
}

/// Where an exit of a vCPU leads whose exits are traced, or not.
pub fn host_rip(traces_exits: bool) -> u64 {
    let left = if traces_exits { left_traced } else { left_untraced };
    left as *const () as u64
}

/// Restores all registers, with the stack pointer at the frame in RDI.
macro_rules! restore_all {
    () => {
        concat!("mov rsp, rdi\n", restore_rest!(), "\n", restore!(), "\npop rax")
    };
}

/// Saves all registers behind an entry that has failed: RDI is the frame then.
macro_rules! save_all {
    () => {
        concat!("push rax\npush rdx\npush rcx\npush rsi\npush rdi\n", save_rest!())
    };
}

/// Enters the guest for the first time. The stack begins anew below `frame`.
///
/// # Safety
/// The VMCS of the vCPU in the frame is current, clear and complete; the frame is this pCPU's.
#[unsafe(naked)]
pub unsafe extern "C" fn launch(frame: *mut ExitFrame<VmxVcpu>) -> ! {
    naked_asm!(restore_all!(), "vmlaunch", save_all!(), "call {on_refused}", on_refused = sym on_refused_launch)
}

/// Enters the guest again. The stack begins anew below `frame`: nothing returns to where this is called.
#[unsafe(naked)]
unsafe extern "C" fn enter(frame: *mut ExitFrame<VmxVcpu>) -> ! {
    naked_asm!(restore_all!(), "vmresume", save_all!(), "call {on_refused}", on_refused = sym on_refused)
}

/// Reads a field, `$field`, into a register; changes RAX.
macro_rules! read {
    ($register:literal, $field:literal) => {
        concat!("mov eax, ", $field, "\nvmread ", $register, ", rax")
    };
}

/// Goes on behind the instruction, prefixes included; changes RAX, RCX and RDX.
macro_rules! go_on {
    () => {
        concat!(read!("rcx", "{length}"), "\n", read!("rdx", "{rip}"), "\nadd rdx, rcx\nvmwrite rax, rdx")
    };
}

/// Defines where exits lead, with the stack pointer at the frame's vCPU, and with all flags clear: handles [quick
/// exits](crate::vcpu::quick), calls the [common ones](crate::vcpu::common), and [`on_exit`] for all others.
macro_rules! define_exit {
    ($(#[$doc:meta])* $name:ident, $traced:ident) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name() -> ! {
            naked_exit_asm!([
                "push rax",
                save_and_stamp!(),
                look_for_news!(),
                // Whatever else is seldom: a step, or an interrupt shadow to end.
                read!("rdx", "{rflags}"),
                "and edx, {stepped}",
                read!("rdi", "{interruptibility}"),
                "and edi, {in_shadow}",
                "or edi, edx",
                "jne 5f",
                // The whole field: with any other bit set it is not quick.
                read!("rdi", "{exit_reason}"),
                "cmp edi, {is_wrmsr}",
                "je 21f",
                "cmp edi, {is_hypercall}",
                "je 22f",
                "cmp edi, {is_cpuid}",
                "je 23f",
                "cmp edi, {is_rdmsr}",
                "je 20f",
                "cmp edi, {is_io}",
                "je 24f",

                // All else, and what is not quick.
                "5:",
                save_rest!(),
                "call {on_exit}",

                // The way back.
                "2:",
                restore!(),
                "pop rax",
                "vmresume",
                save_all!(),
                "call {on_refused}",

                // Somebody asks something: an SMP call, which comes with a kick.
                "6:",
                read!("rdi", "{exit_reason}"),
                "cmp edi, {is_exception_or_nmi}",
                "jne 5b",
                read!("rdi", "{interruption}"),
                "and edi, {nmi_mask}",
                "cmp edi, {is_nmi}",
                "jne 5b",
                read!("rdi", "{cut_short}"),
                "test edi, {valid}",
                "jne 5b",
                // The exit leaves NMIs blocked until an IRET (SDM vol. 3 section 28.5.5): here is one, into the function.
                serve_calls!(
                    "lea rax, [rip + 8f]",
                    "push rax",
                    "mov rax, rsp",
                    "push {ss}",
                    "push rax",
                    "pushfq",
                    "push {cs}",
                    "lea rax, [rip + {serve_kick}]",
                    "push rax",
                    "iretq",
                    "8:"
                ),
                record!($traced, "{kick_event}", "{kick}", "mov qword ptr [rdi + rcx + {detail}], 0"),
                "7:",
                save_rest!(),
                "call {on_rest}",

                // RDMSR. ECX is still the guest's.
                "20:",
                "cmp ecx, {apic_base_msr}",
                "jne 25f",
                "mov eax, [rsp + {apic_base}]",
                "mov [rsp + {vendor}], rax",
                "mov eax, [rsp + {apic_base} + 4]",
                "mov [rsp + {rdx}], rax",
                go_on!(),
                record!($traced, "{rdmsr_event}", "{rdmsr}", "mov qword ptr [rdi + rcx + {detail}], {apic_base_msr}"),

                // A write of the ICR.
                "21:",
                "cmp ecx, {icr}",
                "jne 35f",
                "mov eax, [rsp + {vendor}]",
                "mov ecx, [rsp + {rdx}]",
                partita_x86_policy::quick_unicast!("35f"),
                "mfence",
                "lfence",
                "wrmsr",
                go_on!(),
                record!($traced, "{icr_event}", "{icr_forward}",
                    "mov esi, [rsp + {vendor}]",
                    "mov [rdi + rcx + {detail}], esi",
                    "mov esi, [rsp + {rdx}]",
                    "mov [rdi + rcx + {detail} + 4], esi"),

                // The hypercall that does nothing. The privilege level is that of SS (SDM vol. 3 section 25.4.1).
                "22:",
                "cmp dword ptr [rsp + {vendor}], {nop}",
                "jne 5b",
                read!("rdi", "{ss_access_rights}"),
                "test edi, {user}",
                "jne 5b",
                "mov qword ptr [rsp + {vendor}], {success}",
                go_on!(),
                record!($traced, "{hypercall_event}", "{hypercall}", "mov qword ptr [rdi + rcx + {detail}], {nop}"),

                // CPUID, leaf 0.
                "23:",
                "cmp dword ptr [rsp + {vendor}], 0",
                "jne 26f",
                "mov eax, [rsp + {leaf_0}]",
                "mov [rsp + {vendor}], rax",
                "mov ebx, [rsp + {leaf_0} + 4]",
                "mov eax, [rsp + {leaf_0} + 8]",
                "mov [rsp + {rcx}], rax",
                "mov eax, [rsp + {leaf_0} + 12]",
                "mov [rsp + {rdx}], rax",
                go_on!(),
                record!($traced, "{cpuid_event}", "{cpuid}", "mov qword ptr [rdi + rcx + {detail}], 0"),

                // OUT to port 0x80.
                "24:",
                read!("rdi", "{qualification}"),
                "and edi, {out_mask}",
                "cmp edi, {quick_out}",
                "jne 27f",
                read!("rdi", "{dr7}"),
                "test edi, {breakpoints}",
                "jne 27f",
                go_on!(),
                record!($traced, "{out_event}", "{out}",
                    "movzx esi, byte ptr [rsp + {vendor}]",
                    "mov [rdi + rcx + {detail}], rsi"),

                // What is as common, and takes more.
                "25:",
                common_exits!($traced),
                ],
                on_exit = sym on_exit,
                on_rest = sym on_rest,
                on_news = sym on_news,
                on_msr_read = sym Vcpu::<VmxVcpu>::on_msr_read,
                on_msr_write = sym Vcpu::<VmxVcpu>::on_msr_write,
                on_cpuid = sym Vcpu::<VmxVcpu>::on_cpuid,
                on_io = sym Vcpu::<VmxVcpu>::on_io,
                on_refused = sym on_refused,
                exit_reason = const field::EXIT_REASON.encoding(),
                rflags = const field::GUEST_RFLAGS.encoding(),
                rip = const field::GUEST_RIP.encoding(),
                length = const field::VM_EXIT_INSTRUCTION_LENGTH.encoding(),
                interruptibility = const field::GUEST_INTERRUPTIBILITY_STATE.encoding(),
                interruption = const field::VM_EXIT_INTERRUPTION_INFORMATION.encoding(),
                cut_short = const field::IDT_VECTORING_INFORMATION.encoding(),
                qualification = const field::EXIT_QUALIFICATION.encoding(),
                ss_access_rights = const segment::SS.access_rights.encoding(),
                dr7 = const field::GUEST_DR7.encoding(),
                in_shadow = const Interruptibility::SHADOW,
                nmi_mask = const InterruptionInfo::WHAT,
                is_nmi = const InterruptionInfo::NMI,
                valid = const InterruptionInfo::VALID,
                is_wrmsr = const reason::WRMSR,
                is_rdmsr = const reason::RDMSR,
                is_hypercall = const reason::VMCALL,
                is_cpuid = const reason::CPUID,
                is_io = const reason::IO,
                is_exception_or_nmi = const reason::EXCEPTION_OR_NMI,
                user = const USER,
                out_mask = const quick_out::VMX_MASK,
                quick_out = const quick_out::VMX_VALUE,
                cs = const idt::CODE_SELECTOR,
                ss = const idt::DATA_SELECTOR,
            )
        }
    };
}

/// Access rights of a segment: any bit of the privilege level.
const USER: u32 = 3 << 5;

define_exit! {
    /// Where exits of a vCPU lead that are traced.
    left_traced, traced
}

define_exit! {
    /// Where exits of a vCPU lead that are not traced.
    left_untraced, untraced
}

/// Called after each exit that is not quick. `entered` is the first time-stamp after it.
///
/// It does not return, but enters again: what a return would restore is the guest's next state anyway.
extern "C" fn on_exit(frame: &mut ExitFrame<VmxVcpu>, entered: u64) -> ! {
    // SAFETY: the vCPU is this pCPU's alone since it was taken over.
    unsafe { &mut *frame.vcpu }.on_exit(&mut frame.registers, entered);
    // SAFETY: the frame is the one of this pCPU.
    unsafe { enter_again(frame) }
}

/// Called when a kick brought more than SMP calls.
#[cold]
extern "C" fn on_rest(frame: &mut ExitFrame<VmxVcpu>) -> ! {
    // SAFETY: as in `on_exit`.
    unsafe { &mut *frame.vcpu }.on_rest(&mut frame.registers, frame.quick.entered);
    // SAFETY: the frame is the one of this pCPU.
    unsafe { enter_again(frame) }
}

/// Called after a [common exit](crate::vcpu::common) if anything is asked.
#[cold]
extern "C" fn on_news(frame: &mut ExitFrame<VmxVcpu>, handled: Handled) -> ! {
    // SAFETY: as in `on_exit`.
    unsafe { &mut *frame.vcpu }.on_news(&mut frame.registers, Unrecorded { handled, entered: frame.quick.entered });
    // SAFETY: the frame is the one of this pCPU.
    unsafe { enter_again(frame) }
}

/// Called when the CPU refuses to enter the guest at all: its partition is stopped, and the way leads back when it has been
/// started anew.
extern "C" fn on_refused(frame: &mut ExitFrame<VmxVcpu>) -> ! {
    // SAFETY: the vCPU is this pCPU's alone since it was taken over.
    if unsafe { &*frame.vcpu }.cpu.is_clear() {
        // SAFETY: the frame is the one of this pCPU, and what lies on the stack below it is needed no longer.
        unsafe { launch_again(frame) }
    }
    refuse(frame);
    // SAFETY: the frame is the one of this pCPU.
    unsafe { enter_again(frame) }
}

/// The same where it has never been entered: the VMCS is still clear.
extern "C" fn on_refused_launch(frame: &mut ExitFrame<VmxVcpu>) -> ! {
    refuse(frame);
    // SAFETY: the frame is the one of this pCPU, and what lies on the stack below it is needed no longer.
    unsafe { launch_again(frame) }
}

/// Enters the guest for the first time, from the depth of the stack.
///
/// # Safety
/// As for [`enter_again`]; the VMCS is still clear.
unsafe fn launch_again(frame: &mut ExitFrame<VmxVcpu>) -> ! {
    // SAFETY: by the contract above.
    unsafe { asm!("jmp {launch}", launch = sym launch, in("rdi") &raw mut *frame, options(noreturn)) }
}

fn refuse(frame: &mut ExitFrame<VmxVcpu>) {
    // SAFETY: the vCPU is this pCPU's alone since it was taken over.
    let vcpu = unsafe { &mut *frame.vcpu };
    vcpu.handle(vcpu.cpu.refused(), &mut frame.registers, rdtsc());
}

/// Enters the guest from the depth of the stack.
///
/// # Safety
/// The frame is this pCPU's, and what lies on the stack below it is needed no longer.
#[inline(always)]
unsafe fn enter_again(frame: &mut ExitFrame<VmxVcpu>) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        asm!("jmp {enter}", enter = sym enter, in("rdi") &raw mut *frame, options(noreturn));
    }
}
