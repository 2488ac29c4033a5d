//! Into the guest and back: the loop of a vCPU, from top to bottom.

use core::mem::offset_of;

use partita_trace::histogram::HistogramId;
use partita_trace::names::ExitReason;
use partita_trace::raw;
use partita_x86_policy::ports::quick_out;
use partita_x86_policy::svm_exit::code;

use crate::svm::SvmVcpu;
use crate::svm::vmcb::{Vmcb, event};
use crate::vcpu::Vcpu;
use crate::vcpu::common::{Handled, Unrecorded};
use crate::vcpu::frame::{ExitFrame, place};
use crate::vcpu::quick::*;

/// Runs the guest, for ever. The stack begins anew below `frame`.
///
/// # Safety
/// SVM is on and the global interrupt flag clear; `frame` lies at the top of this pCPU's stack, 16-byte aligned, with
/// the VMCB and the vCPU it names complete and used by nobody else.
pub unsafe fn run(frame: &mut ExitFrame<SvmVcpu>) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        vmload(frame.vendor as *const Vmcb);
        enter_again(frame)
    }
}

/// Defines the loop of a vCPU: enters the guest, handles its [quick exits](crate::vcpu::quick), calls the
/// [common ones](crate::vcpu::common), and [`on_exit`] for all others. The stack begins anew below `frame`: nothing returns to
/// where this is called.
///
/// Behind an exit RDI is the address of the VMCB. The direction flag needs no care: VMRUN saves the host's, and #VMEXIT loads it.
macro_rules! define_loop {
    ($(#[$doc:meta])* $name:ident, $traced:ident) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(frame: *mut ExitFrame<SvmVcpu>) -> ! {
            naked_exit_asm!([
                "mov rsp, rdi",
                restore_rest!(),
                "2:",
                restore!(),
                "mov rax, [rsp]",
                "vmrun rax",
                save_and_stamp!(),
                "mov rdi, [rsp + {vendor}]",
                look_for_news!(),
                "test dword ptr [rdi + {rflags}], {stepped}",
                "jne 5f",
                "cmp dword ptr [rdi + {exit_code}], {is_msr}",
                "je 20f",
                "cmp dword ptr [rdi + {exit_code}], {is_hypercall}",
                "je 22f",
                "cmp dword ptr [rdi + {exit_code}], {is_cpuid}",
                "je 23f",
                "cmp dword ptr [rdi + {exit_code}], {is_io}",
                "je 24f",

                // All else, and what is not quick.
                "5:",
                save_rest!(),
                "call {on_exit}",

                // Somebody asks something: an SMP call, which comes with a kick.
                "6:",
                "cmp dword ptr [rdi + {exit_code}], {is_nmi}",
                "jne 5b",
                "test dword ptr [rdi + {exit_int_info}], {valid}",
                "jne 5b",
                "stgi",
                "clgi",
                serve_calls!("call {serve_kick}"),
                record!($traced, "{kick_event}", "{kick}", "mov qword ptr [rdi + rcx + {detail}], 0"),
                "7:",
                save_rest!(),
                "call {on_rest}",

                // MSRs. ECX is still the guest's.
                "20:",
                "cmp ecx, {icr}",
                "je 21f",
                "cmp ecx, {apic_base_msr}",
                "jne 25f",
                "test byte ptr [rdi + {info_1}], 1",
                "jne 25f",
                "mov eax, [rsp + {apic_base}]",
                "mov [rdi + {rax}], rax",
                "mov eax, [rsp + {apic_base} + 4]",
                "mov [rsp + {rdx}], rax",
                "add qword ptr [rdi + {rip}], 2",
                "mov qword ptr [rdi + {shadow}], 0",
                record!($traced, "{rdmsr_event}", "{rdmsr}", "mov qword ptr [rdi + rcx + {detail}], {apic_base_msr}"),

                // A write of the ICR.
                "21:",
                "test byte ptr [rdi + {info_1}], 1",
                "je 25f",
                "mov eax, [rdi + {rax}]",
                "mov ecx, [rsp + {rdx}]",
                partita_x86_policy::quick_unicast!("25f"),
                "mfence",
                "lfence",
                "wrmsr",
                "add qword ptr [rdi + {rip}], 2",
                "mov qword ptr [rdi + {shadow}], 0",
                record!($traced, "{icr_event}", "{icr_forward}",
                    "mov rsi, [rsp + {vendor}]",
                    "mov esi, [rsi + {rax}]",
                    "mov [rdi + rcx + {detail}], esi",
                    "mov esi, [rsp + {rdx}]",
                    "mov [rdi + rcx + {detail} + 4], esi"),

                // The hypercall that does nothing.
                "22:",
                "cmp dword ptr [rdi + {rax}], {nop}",
                "jne 5b",
                "cmp byte ptr [rdi + {cpl}], 0",
                "jne 5b",
                "mov qword ptr [rdi + {rax}], {success}",
                "add qword ptr [rdi + {rip}], 3",
                "mov qword ptr [rdi + {shadow}], 0",
                record!($traced, "{hypercall_event}", "{hypercall}", "mov qword ptr [rdi + rcx + {detail}], {nop}"),

                // CPUID, leaf 0.
                "23:",
                "cmp dword ptr [rdi + {rax}], 0",
                "jne 26f",
                "mov eax, [rsp + {leaf_0}]",
                "mov [rdi + {rax}], rax",
                "mov ebx, [rsp + {leaf_0} + 4]",
                "mov eax, [rsp + {leaf_0} + 8]",
                "mov [rsp + {rcx}], rax",
                "mov eax, [rsp + {leaf_0} + 12]",
                "mov [rsp + {rdx}], rax",
                "add qword ptr [rdi + {rip}], 2",
                "mov qword ptr [rdi + {shadow}], 0",
                record!($traced, "{cpuid_event}", "{cpuid}", "mov qword ptr [rdi + rcx + {detail}], 0"),

                // OUT to port 0x80.
                "24:",
                "mov eax, [rdi + {info_1}]",
                "and eax, {out_mask}",
                "cmp eax, {quick_out}",
                "jne 27f",
                "test byte ptr [rdi + {dr7}], {breakpoints}",
                "jne 27f",
                "mov rax, [rdi + {info_2}]",
                "mov [rdi + {rip}], rax",
                "mov qword ptr [rdi + {shadow}], 0",
                record!($traced, "{out_event}", "{out}",
                    "mov rsi, [rsp + {vendor}]",
                    "movzx esi, byte ptr [rsi + {rax}]",
                    "mov [rdi + rcx + {detail}], rsi"),

                // What is as common, and takes more.
                "25:",
                "test byte ptr [rdi + {info_1}], 1",
                "jne 35f",
                common_exits!($traced),
                ],
                on_exit = sym on_exit,
                on_rest = sym on_rest,
                on_news = sym on_news,
                on_msr_read = sym Vcpu::<SvmVcpu>::on_msr_read,
                on_msr_write = sym Vcpu::<SvmVcpu>::on_msr_write,
                on_cpuid = sym Vcpu::<SvmVcpu>::on_cpuid,
                on_io = sym Vcpu::<SvmVcpu>::on_io,

                exit_code = const offset_of!(Vmcb, control.exit_code),
                info_1 = const offset_of!(Vmcb, control.exit_info_1),
                info_2 = const offset_of!(Vmcb, control.exit_info_2),
                exit_int_info = const offset_of!(Vmcb, control.exit_int_info),
                shadow = const offset_of!(Vmcb, control.interrupt_shadow),
                rax = const offset_of!(Vmcb, save.rax),
                rip = const offset_of!(Vmcb, save.rip),
                rflags = const offset_of!(Vmcb, save.rflags),
                cpl = const offset_of!(Vmcb, save.cpl),
                dr7 = const offset_of!(Vmcb, save.dr7),
                is_msr = const code::MSR,
                is_hypercall = const code::VMMCALL,
                is_cpuid = const code::CPUID,
                is_io = const code::IOIO,
                is_nmi = const code::NMI,
                valid = const event::VALID,
                out_mask = const quick_out::SVM_MASK,
                quick_out = const quick_out::SVM_VALUE,
            )
        }
    };
}

define_loop! {
    /// The loop of a vCPU whose exits are traced.
    enter_traced, traced
}

define_loop! {
    /// The loop of a vCPU whose exits are not traced.
    enter_untraced, untraced
}

/// Called after each exit that is not quick, with NMIs held back. `entered` is the first time-stamp after #VMEXIT.
///
/// It does not return, but enters again: what a return would restore is the guest's next state anyway.
extern "C" fn on_exit(frame: &mut ExitFrame<SvmVcpu>, entered: u64) -> ! {
    // SAFETY: by the contract of `run`, the vCPU is this pCPU's alone.
    unsafe { &mut *frame.vcpu }.on_exit(&mut frame.registers, entered);
    // SAFETY: the frame is the one of `run`.
    unsafe { enter_again(frame) }
}

/// Called when a kick brought more than SMP calls.
#[cold]
extern "C" fn on_rest(frame: &mut ExitFrame<SvmVcpu>) -> ! {
    // SAFETY: as in `on_exit`.
    unsafe { &mut *frame.vcpu }.on_rest(&mut frame.registers, frame.quick.entered);
    // SAFETY: the frame is the one of `run`.
    unsafe { enter_again(frame) }
}

/// Called after a [common exit](crate::vcpu::common) if anything is asked.
#[cold]
extern "C" fn on_news(frame: &mut ExitFrame<SvmVcpu>, handled: Handled) -> ! {
    // SAFETY: as in `on_exit`.
    unsafe { &mut *frame.vcpu }.on_news(&mut frame.registers, Unrecorded { handled, entered: frame.quick.entered });
    // SAFETY: the frame is the one of `run`.
    unsafe { enter_again(frame) }
}

/// Enters the guest from the depth of the stack.
///
/// # Safety
/// The frame is the one of [`run`], and what lies on the stack below it is needed no longer.
#[inline(always)]
unsafe fn enter_again(frame: &mut ExitFrame<SvmVcpu>) -> ! {
    // SAFETY: as in `on_exit`.
    let enter = if unsafe { &*frame.vcpu }.traces_exits { enter_traced } else { enter_untraced };
    // SAFETY: by the contract above.
    unsafe { core::arch::asm!("jmp {enter}", enter = in(reg) enter, in("rdi") &raw mut *frame, options(noreturn)) }
}

/// Loads what VMRUN does not load: FS, GS, TR, LDTR and the system-call registers.
///
/// # Safety
/// The VMCB must be a guest's that this pCPU will enter next: the host uses none of that state.
pub unsafe fn vmload(vmcb: *const Vmcb) {
    // SAFETY: by the contract above.
    unsafe { core::arch::asm!("vmload rax", in("rax") vmcb, options(nostack, preserves_flags)) };
}

/// Saves what [`vmload`] loads.
///
/// # Safety
/// The VMCB must be that of the guest whose state this pCPU has.
pub unsafe fn vmsave(vmcb: *mut Vmcb) {
    // SAFETY: by the contract above.
    unsafe { core::arch::asm!("vmsave rax", in("rax") vmcb, options(nostack, preserves_flags)) };
}
