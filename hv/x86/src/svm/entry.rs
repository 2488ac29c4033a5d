//! Into the guest and back: the loop of a vCPU, from top to bottom.

use core::arch::naked_asm;

use crate::cpu::percpu::EXIT_FRAME_LEN;
use crate::svm::SvmVcpu;
use crate::svm::vmcb::Vmcb;
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
#[unsafe(naked)]
pub unsafe extern "C" fn run(frame: *mut ExitFrame) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "mov rax, [rsp + {vmcb}]",
        "vmload rax",
        "2:",
        "pop rbx",
        "pop rcx",
        "pop rsi",
        "pop rdi",
        "pop rbp",
        "pop r8",
        "pop r9",
        "pop r10",
        "pop r11",
        "pop r12",
        "pop r13",
        "pop r14",
        "pop r15",
        "pop rdx",
        "mov rax, [rsp]",
        "vmrun rax",
        "push rdx",
        "rdtsc",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "push rbp",
        "push rdi",
        "push rsi",
        "push rcx",
        "push rbx",
        "shl rdx, 32",
        "lea rsi, [rax + rdx]",
        "mov rdi, rsp",
        "cld",
        "call {on_exit}",
        "jmp 2b",
        vmcb = const core::mem::offset_of!(ExitFrame, vmcb),
        on_exit = sym on_exit,
    )
}

/// Called by [`run`] after each exit, with NMIs held back. `entered` is the first time-stamp after #VMEXIT.
extern "C" fn on_exit(frame: &mut ExitFrame, entered: u64) {
    // SAFETY: by the contract of `run`, the vCPU is this pCPU's alone.
    let vcpu = unsafe { &mut *frame.vcpu };
    let exit = vcpu.cpu.exit();
    vcpu.handle(exit, &mut frame.registers, entered);
}

/// Loads what VMRUN does not load: FS, GS, TR, LDTR and the system-call registers.
///
/// # Safety
/// The VMCB must be a guest's that this pCPU will enter next: the host uses none of that state.
pub unsafe fn vmload(vmcb: *const Vmcb) {
    // SAFETY: by the contract above.
    unsafe { core::arch::asm!("vmload rax", in("rax") vmcb, options(nostack, preserves_flags)) };
}
