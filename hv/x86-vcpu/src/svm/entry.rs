//! Into the guest and back: the loop of a vCPU, from top to bottom.

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::cpu::percpu::EXIT_FRAME_LEN;
use crate::svm::SvmVcpu;
use crate::svm::vmcb::Vmcb;
use crate::vcpu::{Then, Vcpu};
use crate::virt::{GuestRegisters, ScratchRegisters};

/// What lies at the top of the stack of a pCPU that runs a vCPU. The stack pointer is at the scratch registers in the host,
/// and at `vmcb` in VMRUN.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct ExitFrame {
    /// So that the scratch registers are aligned as a stack has to be at a call.
    _alignment: u64,
    /// The guest's registers, while it does not run.
    registers: GuestRegisters,
    /// Physical address of the VMCB.
    vmcb: u64,
    /// The vCPU.
    vcpu: *mut Vcpu<SvmVcpu>,
}

impl ExitFrame {
    /// The frame of this vCPU.
    pub fn new(registers: GuestRegisters, vmcb: u64, vcpu: *mut Vcpu<SvmVcpu>) -> Self {
        Self { _alignment: 0, registers, vmcb, vcpu }
    }
}

const _: () = assert!(size_of::<ExitFrame>() <= EXIT_FRAME_LEN);
const _: () = assert!(offset_of!(ExitFrame, vmcb) == REGISTERS + size_of::<GuestRegisters>());
const _: () = assert!(REGISTERS == 8 && SCRATCH.is_multiple_of(16));

/// Offset of the registers in the frame.
const REGISTERS: usize = offset_of!(ExitFrame, registers);
/// Offset of the scratch registers in the frame.
const SCRATCH: usize = offset_of!(ExitFrame, registers.scratch);

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
/// Few exits need all registers: [`on_exit`] does with the scratch registers, or says that the rest has to be saved, too.
/// The direction flag needs no care: VMRUN saves the host's, and #VMEXIT loads it.
#[unsafe(naked)]
unsafe extern "C" fn enter(frame: *mut ExitFrame) -> ! {
    naked_asm!(
        "lea rsp, [rdi + {registers}]",
        "pop rbp; pop r12; pop r13; pop r14; pop r15",
        "2:",
        "pop rbx; pop rcx; pop rsi; pop rdi; pop r8; pop r9; pop r10; pop r11; pop rdx",
        "mov rax, [rsp]",
        "vmrun rax",
        "push rdx",
        "rdtsc",
        "push r11; push r10; push r9; push r8; push rdi; push rsi; push rcx; push rbx",
        "shl rdx, 32",
        "lea rsi, [rax + rdx]",
        "mov rdx, rsp",
        "mov rdi, [rsp + {vcpu}]",
        "call {on_exit}",
        "test eax, eax",
        "je 2b",
        "push r15; push r14; push r13; push r12; push rbp",
        "sub rsp, {registers}",
        "mov rdi, rsp",
        "call {on_rest}",
        registers = const REGISTERS,
        vcpu = const offset_of!(ExitFrame, vcpu) - SCRATCH,
        on_exit = sym on_exit,
        on_rest = sym on_rest,
    )
}

/// Called by [`enter`] after each exit, with NMIs held back. `entered` is the first time-stamp after #VMEXIT.
extern "C" fn on_exit(vcpu: &mut Vcpu<SvmVcpu>, entered: u64, registers: &mut ScratchRegisters) -> Then {
    vcpu.on_exit(entered, registers)
}

/// Called by [`enter`] when an exit needs more than the scratch registers.
///
/// It does not return, but enters again: what a return would restore is the guest's next state anyway.
#[cold]
extern "C" fn on_rest(frame: &mut ExitFrame) -> ! {
    // SAFETY: by the contract of `run`, the vCPU is this pCPU's alone.
    let vcpu = unsafe { &mut *frame.vcpu };
    vcpu.on_rest(&mut frame.registers);
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
