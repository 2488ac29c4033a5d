//! Into the guest and back: the loop of a vCPU, from top to bottom.

use core::arch::naked_asm;

use crate::cpu::percpu::EXIT_FRAME_LEN;
use crate::svm::vmcb::{Control, Vmcb};
use crate::svm::{NMI_EXIT, SvmVcpu};
use crate::vcpu::Vcpu;
use crate::virt::GuestRegisters;

/// What lies at the top of the stack of a pCPU that runs a vCPU. The stack pointer is at `registers` in the host, and
/// at `vmcb` in VMRUN.
#[derive(Debug)]
#[repr(C)]
pub struct ExitFrame {
    /// The guest's registers, while it does not run.
    pub registers: GuestRegisters,
    /// Physical address of the VMCB.
    pub vmcb: u64,
    /// The vCPU.
    pub vcpu: *mut Vcpu<SvmVcpu>,
}

const _: () = assert!(size_of::<ExitFrame>().is_multiple_of(16) && size_of::<ExitFrame>() <= EXIT_FRAME_LEN);

/// Runs the guest, for ever. The stack begins anew below `frame`.
///
/// # Safety
/// SVM is on and the global interrupt flag clear; `frame` lies at the top of this pCPU's stack, 16-byte aligned, with
/// the VMCB and the vCPU it names complete and used by nobody else.
pub unsafe fn run(frame: *mut ExitFrame) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        vmload((*frame).vmcb as *const Vmcb);
        enter(frame)
    }
}

/// Enters the guest, and handles its exits. The stack begins anew below `frame`: nothing returns to where this is called.
///
/// A kick comes seldom with more than an SMP call, for which the registers that Rust code preserves need not be saved.
#[unsafe(naked)]
unsafe extern "C" fn enter(frame: *mut ExitFrame) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "pop rbx",
        "pop rbp",
        "pop r12",
        "pop r13",
        "pop r14",
        "pop r15",
        "2:",
        "pop rcx",
        "pop rsi",
        "pop rdi",
        "pop r8",
        "pop r9",
        "pop r10",
        "pop r11",
        "pop rdx",
        "mov rax, [rsp]",
        "vmrun rax",
        // RAX is the VMCB again.
        "cmp qword ptr [rax + {exit_code}], {nmi}",
        "push rdx",
        "rdtsc",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "push rdi",
        "push rsi",
        "push rcx",
        "je 3f",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push rbp",
        "push rbx",
        "shl rdx, 32",
        "lea rsi, [rax + rdx]",
        "mov rdi, rsp",
        "cld",
        "call {on_exit}",
        "3:",
        "shl rdx, 32",
        "lea rsi, [rax + rdx]",
        "mov rdi, [rsp + {vcpu} - {preserved}]",
        "cld",
        "call {on_kick}",
        "test rax, rax",
        "je 2b",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push rbp",
        "push rbx",
        "mov rdi, rsp",
        "mov rsi, rax",
        "call {on_more}",
        exit_code = const EXIT_CODE,
        nmi = const NMI_EXIT,
        vcpu = const core::mem::offset_of!(ExitFrame, vcpu),
        preserved = const PRESERVED,
        on_exit = sym on_exit,
        on_kick = sym on_kick,
        on_more = sym on_more,
    )
}

/// Offset of the exit code in a VMCB.
const EXIT_CODE: usize = core::mem::offset_of!(Vmcb, control) + core::mem::offset_of!(Control, exit_code);
/// Bytes of the registers at the start of the frame that Rust code preserves.
const PRESERVED: usize = core::mem::offset_of!(GuestRegisters, rcx);
const _: () = assert!(core::mem::offset_of!(ExitFrame, vmcb) == size_of::<GuestRegisters>());
const _: () = assert!(PRESERVED == 6 * 8 && PRESERVED.is_multiple_of(16));

/// Called by [`enter`] after each exit but kicks, with NMIs held back. `entered` is the first time-stamp after #VMEXIT.
///
/// It does not return, but enters again: what a return would restore is the guest's next state anyway.
extern "C" fn on_exit(frame: &mut ExitFrame, entered: u64) -> ! {
    // SAFETY: by the contract of `run`, the vCPU is this pCPU's alone.
    let vcpu = unsafe { &mut *frame.vcpu };
    let exit = vcpu.cpu.exit();
    vcpu.handle(exit, &mut frame.registers, entered);
    // SAFETY: the frame is the one of `run`.
    unsafe { enter_again(frame) }
}

/// Called by [`enter`] after an exit for a physical NMI. 0 if the guest can go on; else there is more to do, and the value
/// is the time since which.
extern "C" fn on_kick(vcpu: &mut Vcpu<SvmVcpu>, entered: u64) -> u64 {
    if vcpu.kicked(entered) { 0 } else { entered }
}

/// Called by [`enter`] when a kick came with more than SMP calls.
extern "C" fn on_more(frame: &mut ExitFrame, entered: u64) -> ! {
    // SAFETY: by the contract of `run`, the vCPU is this pCPU's alone.
    let vcpu = unsafe { &mut *frame.vcpu };
    vcpu.kicked_for_more(&mut frame.registers, entered);
    // SAFETY: the frame is the one of `run`.
    unsafe { enter_again(frame) }
}

/// Enters the guest from the depth of the stack.
///
/// # Safety
/// The frame is the one of [`run`], and what lies on the stack below it is needed no longer.
#[inline(always)]
unsafe fn enter_again(frame: &mut ExitFrame) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        core::arch::asm!("jmp {enter}", enter = sym enter, in("rdi") &raw mut *frame, options(noreturn));
    }
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
