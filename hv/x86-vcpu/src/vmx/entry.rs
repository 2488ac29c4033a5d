//! Into the guest and back: the loop of a vCPU, from top to bottom.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use super::VmxVcpu;
use crate::cpu::percpu::{self, EXIT_FRAME_LEN};
use crate::cpu::rdtsc;
use crate::vcpu::{Then, Vcpu};
use crate::virt::{GuestRegisters, ScratchRegisters};

/// What lies at the top of the stack of a pCPU that runs a vCPU. The stack pointer is at the scratch registers in the host,
/// and at `vcpu` right after an exit.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct ExitFrame {
    /// So that the scratch registers are aligned as a stack has to be at a call.
    _alignment: u64,
    /// The guest's registers, while it does not run.
    pub registers: GuestRegisters,
    /// RAX.
    pub rax: u64,
    /// The vCPU.
    pub vcpu: *mut Vcpu<VmxVcpu>,
}

const _: () = assert!(size_of::<ExitFrame>() <= EXIT_FRAME_LEN);
const _: () = assert!(offset_of!(ExitFrame, rax) == REGISTERS + size_of::<GuestRegisters>());
const _: () = assert!(offset_of!(ExitFrame, vcpu) == offset_of!(ExitFrame, rax) + 8);
const _: () = assert!(REGISTERS == 8 && SCRATCH.is_multiple_of(16));

/// Offset of the registers in the frame.
const REGISTERS: usize = offset_of!(ExitFrame, registers);
/// Offset of the scratch registers in the frame.
const SCRATCH: usize = offset_of!(ExitFrame, registers.scratch);

/// The frame of the pCPU that executes this.
#[inline(always)]
pub fn frame() -> *mut ExitFrame {
    percpu::own_exit_frame() as *mut ExitFrame
}

/// Where the stack pointer is right after an exit.
pub fn host_rsp() -> u64 {
    frame() as u64 + offset_of!(ExitFrame, vcpu) as u64
}

/// Where an exit leads.
pub fn host_rip() -> u64 {
    left as *const () as u64
}

/// Pops the registers before the scratch registers.
macro_rules! pop_preserved {
    () => {
        "pop rbp; pop r12; pop r13; pop r14; pop r15"
    };
}

/// Pops the scratch registers and RAX.
macro_rules! pop_scratch {
    () => {
        "pop rbx; pop rcx; pop rsi; pop rdi; pop r8; pop r9; pop r10; pop r11; pop rdx; pop rax"
    };
}

/// Pushes what [`pop_preserved`] pops.
macro_rules! push_preserved {
    () => {
        "push r15; push r14; push r13; push r12; push rbp"
    };
}

/// Pushes the scratch registers but RDX, which comes before them with RAX.
macro_rules! push_scratch {
    () => {
        "push r11; push r10; push r9; push r8; push rdi; push rsi; push rcx; push rbx"
    };
}

/// Makes the stack pointer, behind what [`push_preserved`] pushes, the frame.
macro_rules! to_frame {
    () => {
        "sub rsp, {registers}; mov rdi, rsp"
    };
}

/// Enters the guest for the first time. The stack begins anew below `frame`.
///
/// # Safety
/// The VMCS of the vCPU in the frame is current, clear and complete; the frame is this pCPU's.
#[unsafe(naked)]
pub unsafe extern "C" fn launch(frame: *mut ExitFrame) -> ! {
    naked_asm!(
        "lea rsp, [rdi + {registers}]",
        pop_preserved!(),
        pop_scratch!(),
        "vmlaunch",
        "push rax; push rdx",
        push_scratch!(),
        push_preserved!(),
        to_frame!(),
        "call {on_refused}",
        registers = const REGISTERS,
        on_refused = sym on_refused_launch,
    )
}

/// Enters the guest again. The stack begins anew below `frame`: nothing returns to where this is called.
#[unsafe(naked)]
unsafe extern "C" fn enter(frame: *mut ExitFrame) -> ! {
    naked_asm!(
        "lea rsp, [rdi + {registers}]",
        pop_preserved!(),
        "jmp {resume}",
        registers = const REGISTERS,
        resume = sym resume,
    )
}

/// Enters the guest again where the other registers are the guest's already, and the stack pointer is at the scratch
/// registers.
#[unsafe(naked)]
unsafe extern "C" fn resume() -> ! {
    naked_asm!(
        pop_scratch!(),
        "vmresume",
        "push rax; push rdx",
        push_scratch!(),
        push_preserved!(),
        to_frame!(),
        "call {on_refused}",
        registers = const REGISTERS,
        on_refused = sym on_refused,
    )
}

/// An exit comes here, with the stack pointer at the frame's vCPU, and with all flags clear.
///
/// Few exits need all registers: [`on_exit`] does with the scratch registers, or says that the rest has to be saved, too.
#[unsafe(naked)]
unsafe extern "C" fn left() -> ! {
    naked_asm!(
        "push rax",
        "push rdx",
        "rdtsc",
        push_scratch!(),
        "shl rdx, 32",
        "lea rsi, [rax + rdx]",
        "mov rdx, rsp",
        "mov rdi, [rsp + {vcpu}]",
        "call {on_exit}",
        "test eax, eax",
        "je {resume}",
        push_preserved!(),
        to_frame!(),
        "call {on_rest}",
        registers = const REGISTERS,
        vcpu = const offset_of!(ExitFrame, vcpu) - SCRATCH,
        on_exit = sym on_exit,
        on_rest = sym on_rest,
        resume = sym resume,
    )
}

/// Called by [`left`] after each exit. `entered` is the first time-stamp after it.
extern "C" fn on_exit(vcpu: &mut Vcpu<VmxVcpu>, entered: u64, registers: &mut ScratchRegisters) -> Then {
    vcpu.on_exit(entered, registers)
}

/// Called by [`left`] when an exit needs more than the scratch registers.
///
/// It does not return, but enters again: what a return would restore is the guest's next state anyway.
#[cold]
extern "C" fn on_rest(frame: &mut ExitFrame) -> ! {
    // SAFETY: the vCPU is this pCPU's alone since it was taken over.
    let vcpu = unsafe { &mut *frame.vcpu };
    vcpu.on_rest(&mut frame.registers);
    // SAFETY: the frame is the one of this pCPU.
    unsafe { enter_again(frame) }
}

/// Called when the CPU refuses to enter the guest at all: its partition is stopped, and the way leads back when it has been
/// started anew.
extern "C" fn on_refused(frame: &mut ExitFrame) -> ! {
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
extern "C" fn on_refused_launch(frame: &mut ExitFrame) -> ! {
    refuse(frame);
    // SAFETY: the frame is the one of this pCPU, and what lies on the stack below it is needed no longer.
    unsafe { launch_again(frame) }
}

/// Enters the guest for the first time, from the depth of the stack.
///
/// # Safety
/// As for [`enter_again`]; the VMCS is still clear.
unsafe fn launch_again(frame: &mut ExitFrame) -> ! {
    // SAFETY: by the contract above.
    unsafe { asm!("jmp {launch}", launch = sym launch, in("rdi") &raw mut *frame, options(noreturn)) }
}

fn refuse(frame: &mut ExitFrame) {
    // SAFETY: the vCPU is this pCPU's alone since it was taken over.
    let vcpu = unsafe { &mut *frame.vcpu };
    vcpu.handle(vcpu.cpu.refused(), &mut frame.registers, rdtsc());
}

/// Enters the guest from the depth of the stack.
///
/// # Safety
/// The frame is this pCPU's, and what lies on the stack below it is needed no longer.
#[inline(always)]
unsafe fn enter_again(frame: &mut ExitFrame) -> ! {
    // SAFETY: by the contract above.
    unsafe {
        asm!("jmp {enter}", enter = sym enter, in("rdi") &raw mut *frame, options(noreturn));
    }
}
